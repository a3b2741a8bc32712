//! The host's end of the control channel: carries out what the agent asks of it, one channel at a
//! time, and tells what happened. It decides nothing and retries nothing.

use std::sync::Arc;

use agent::{ChannelError, ChannelErrorKind, ChannelEvent, ChannelIdentity, EnrolError};
use model::control::{Description, EnrolRequest, Enrolled, FromHost};
use model::ids::Digest;
use model::wire::{self, generated as pb};
use runtime::control::{self, ControlClient};
use runtime::refusal;
use runtime::tls::{self, ConnectError};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use trust::enrolment::TlsKey;

/// Messages to the coordinator that may wait.
const OUTGOING_MAX: usize = 256;

/// An open channel, or one that is being opened.
pub struct Channel {
    outgoing: mpsc::Sender<FromHost>,
}

impl Channel {
    /// Opens a sync channel; what happens goes to `events` until `Closed`, which is the last.
    pub fn open(
        coordinators: Vec<String>,
        identity: ChannelIdentity,
        events: impl EventSink,
    ) -> Self {
        let (outgoing, queue) = mpsc::channel(OUTGOING_MAX);
        tokio::spawn(async move {
            let closed = run(coordinators, identity, queue, &events).await;
            events.tell(ChannelEvent::Closed(closed)).await;
        });
        Self { outgoing }
    }

    /// Sends a message; it is dropped when the coordinator does not take what was sent before.
    pub fn send(&self, message: FromHost) {
        if self.outgoing.try_send(message).is_err() {
            tracing::debug!(
                "a message to the coordinator was dropped: the channel is closed or slow"
            );
        }
    }
}

/// Where events of a channel go.
pub trait EventSink: Clone + Send + Sync + 'static {
    /// Takes one event.
    fn tell(&self, event: ChannelEvent) -> impl Future<Output = ()> + Send;
}

async fn run(
    coordinators: Vec<String>,
    identity: ChannelIdentity,
    queue: mpsc::Receiver<FromHost>,
    events: &impl EventSink,
) -> ChannelError {
    let mut client = match connect_member(&coordinators, identity).await {
        Ok(client) => client,
        Err(error) => return error,
    };
    let outgoing = ReceiverStream::new(queue).map(pb::FromHost::from);
    let mut incoming = match client.sync(outgoing).await {
        Ok(response) => response.into_inner(),
        Err(status) => return channel_error(&status),
    };
    events.tell(ChannelEvent::Opened).await;
    loop {
        match incoming.message().await {
            Ok(Some(message)) => match message.try_into() {
                Ok(message) => events.tell(ChannelEvent::Message(message)).await,
                Err(error) => {
                    let message = format!(
                        "the coordinator sent what is not understood: {error}; do the versions fit?"
                    );
                    return ChannelError::new(ChannelErrorKind::Protocol, message);
                }
            },
            Ok(None) => {
                return ChannelError::new(
                    ChannelErrorKind::Interrupted,
                    "the coordinator ended the channel",
                );
            }
            Err(status) => return channel_error(&status),
        }
    }
}

async fn connect_member(
    coordinators: &[String],
    identity: ChannelIdentity,
) -> Result<ControlClient, ChannelError> {
    let key = TlsKey::from_seed(identity.tls_key);
    let config = tls::member_client(
        identity.roots,
        identity.fleet,
        &identity.chain,
        key.pkcs8_der().expose(),
    )
    .map_err(|error| {
        ChannelError::new(
            ChannelErrorKind::Rejected,
            format!("this host's certificate cannot be used: {error}"),
        )
    })?;
    Ok(control::connect(coordinators, config)
        .await
        .map_err(connect_error)?
        .client)
}

/// Asks a coordinator for its description.
///
/// # Errors
/// Nobody answers, or nobody who is believed.
pub async fn describe(coordinators: &[String], pin: Digest) -> Result<Description, ChannelError> {
    let mut client = control::connect(coordinators, tls::pinned_client(pin))
        .await
        .map_err(connect_error)?
        .client;
    let request = pb::DescribeRequest {
        software_version: env!("CARGO_PKG_VERSION").into(),
    };
    let reply = client
        .describe(request)
        .await
        .map_err(|status| channel_error(&status))?;
    reply
        .into_inner()
        .try_into()
        .map_err(|error: wire::WireError| not_understood(&error))
}

/// Asks a coordinator to enrol this host.
///
/// # Errors
/// Nobody answers, or the coordinator refuses.
pub async fn enrol(
    coordinators: &[String],
    pin: Digest,
    request: &EnrolRequest,
) -> Result<Enrolled, EnrolError> {
    let connected = control::connect(coordinators, tls::pinned_client(pin)).await;
    let mut client = connected
        .map_err(|error| EnrolError::Channel(connect_error(error)))?
        .client;
    let reply = client
        .enrol(pb::EnrolRequest::from(request.clone()))
        .await
        .map_err(|status| match refusal::from_grpc(&status) {
            Some(refusal) => EnrolError::Refused(refusal),
            None => EnrolError::Channel(channel_error(&status)),
        })?;
    reply
        .into_inner()
        .try_into()
        .map_err(|error: wire::WireError| EnrolError::Channel(not_understood(&error)))
}

fn not_understood(error: &wire::WireError) -> ChannelError {
    ChannelError::new(
        ChannelErrorKind::Protocol,
        format!("the coordinator's answer is not understood: {error}; do the versions fit?"),
    )
}

fn connect_error(error: ConnectError) -> ChannelError {
    let kind = match (error.clock, error.untrusted) {
        (true, _) => ChannelErrorKind::Clock,
        (false, true) => ChannelErrorKind::Untrusted,
        (false, false) => ChannelErrorKind::Unreachable,
    };
    ChannelError::new(kind, error.message)
}

fn channel_error(status: &Status) -> ChannelError {
    let kind = match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => ChannelErrorKind::Rejected,
        Code::Unimplemented | Code::InvalidArgument => ChannelErrorKind::Protocol,
        _ => ChannelErrorKind::Interrupted,
    };
    let message = format!("the channel to the coordinator broke: {}", status.message());
    ChannelError::new(kind, message).after(refusal::retry_after(status))
}

/// Sends events on to a queue, marked with the channel that they come from.
impl<F, Fut> EventSink for Arc<F>
where
    F: Fn(ChannelEvent) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send,
{
    async fn tell(&self, event: ChannelEvent) {
        self(event).await;
    }
}
