//! The control channel: gRPC over TLS 1.3. The host's end connects here; the coordinator's end is
//! the service that `generated` describes, served by `coordinator`.

pub mod generated;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use model::limits::Limits;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::tls::{self, ConnectError};

/// How often a silent connection is asked whether it is alive, and how long that may take: a
/// coordinator that is cut off is noticed within the sum.
const ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A client of the control channel over one TLS connection.
pub type ControlClient = generated::control_client::ControlClient<Channel>;

/// A connected control channel.
#[derive(Debug)]
pub struct Connected {
    /// Makes calls.
    pub client: ControlClient,
    /// Which of the addresses answered.
    pub address: String,
}

/// Connects to the first of `addresses` that answers and is believed.
///
/// # Errors
/// Says of each address why not.
pub async fn connect(
    addresses: &[String],
    config: Arc<rustls::ClientConfig>,
) -> Result<Connected, ConnectError> {
    let mut config = (*config).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (stream, address) = tls::connect(addresses, Arc::new(config)).await?;
    // tonic asks the connector each time it wants a connection; there is only this one.
    let once = Arc::new(Mutex::new(Some(TokioIo::new(stream))));
    let connector = service_fn(move |_: Uri| {
        let stream = once
            .lock()
            .expect("nobody panics with the lock held")
            .take();
        async move { stream.ok_or_else(|| std::io::Error::other("the connection is gone")) }
    });
    let channel = Endpoint::from_static("http://coordinator.mesh.internal")
        .http2_keep_alive_interval(ALIVE_INTERVAL)
        .keep_alive_timeout(ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
        .map_err(|error| ConnectError {
            message: format!(
                "{address} answered, but does not speak the control protocol: {error}"
            ),
            untrusted: false,
            clock: false,
        })?;
    let client = ControlClient::new(channel)
        .max_decoding_message_size(Limits::CONTROL_MESSAGE_BYTES)
        .max_encoding_message_size(Limits::CONTROL_MESSAGE_BYTES);
    Ok(Connected { client, address })
}
