//! What a thread shows in handshakes. Made anew when the host's certificate is another one.

use std::cell::RefCell;
use std::sync::Arc;

use model::catalogue::StreamIdentity;
use runtime::tls;
use rustls::{ClientConfig, ServerConfig};

use super::datagrams;

/// Both ends of TLS and QUIC, for the identity that they were made from.
#[derive(Clone)]
struct Made {
    from: Arc<StreamIdentity>,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    quic_client: quinn::ClientConfig,
    quic_server: Arc<quinn::ServerConfig>,
}

/// The last that was made.
#[derive(Default)]
pub(super) struct Identities {
    made: RefCell<Option<Made>>,
}

impl Identities {
    /// Returns the connecting end.
    pub(super) fn client(
        &self,
        identity: &Arc<StreamIdentity>,
    ) -> Result<Arc<ClientConfig>, rustls::Error> {
        self.of(identity).map(|made| made.client)
    }

    /// Returns the accepting end.
    pub(super) fn server(
        &self,
        identity: &Arc<StreamIdentity>,
    ) -> Result<Arc<ServerConfig>, rustls::Error> {
        self.of(identity).map(|made| made.server)
    }

    /// Returns the connecting end of QUIC.
    pub(super) fn quic_client(
        &self,
        identity: &Arc<StreamIdentity>,
    ) -> Result<quinn::ClientConfig, rustls::Error> {
        self.of(identity).map(|made| made.quic_client)
    }

    /// Returns the accepting end of QUIC.
    pub(super) fn quic_server(
        &self,
        identity: &Arc<StreamIdentity>,
    ) -> Result<Arc<quinn::ServerConfig>, rustls::Error> {
        self.of(identity).map(|made| made.quic_server)
    }

    fn of(&self, identity: &Arc<StreamIdentity>) -> Result<Made, rustls::Error> {
        if let Some(made) = &*self.made.borrow()
            && Arc::ptr_eq(&made.from, identity)
        {
            return Ok(made.clone());
        }
        let made = make(identity)?;
        *self.made.borrow_mut() = Some(made.clone());
        Ok(made)
    }
}

fn make(identity: &Arc<StreamIdentity>) -> Result<Made, rustls::Error> {
    let StreamIdentity {
        chain,
        private_key,
        roots,
        fleet_name,
    } = &**identity;
    let key = private_key.expose();
    let client = tls::stream_client(roots.clone(), fleet_name.clone(), chain, key)?;
    let server = tls::stream_server(roots.clone(), fleet_name.clone(), chain, key)?;
    Ok(Made {
        from: Arc::clone(identity),
        quic_client: datagrams::client(Arc::clone(&client))?,
        quic_server: datagrams::server(Arc::clone(&server))?,
        client,
        server,
    })
}
