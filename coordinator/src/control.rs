//! The coordinator's end of the control channel: gRPC calls of hosts, turned into words for the
//! brain and back.

use std::pin::Pin;
use std::sync::Arc;

use fleet::{Rejection, Reply, SessionId, SessionPeer};
use model::control::{EnrolRequest, FromHost, RefusalCode};
use model::limits::Limits;
use model::memory::Memory;
use model::wire::{WireError, generated as pb};
use runtime::control::generated::control_server::{self, Control, ControlServer};
use runtime::refusal;
use runtime::tls_server::Connection;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::spawn_blocking;
use tonic::{Request, Response, Status, Streaming};

use crate::brain::{BrainGone, BrainHandle, Input};
use crate::sessions::{Outgoing, Session};

/// The path of all calls.
pub const PATH: &str = "/mesh.v1.Control/{call}";

/// Hosts whose memory is verified at one time.
const VERIFIED_AT_ONCE: usize = 2;

/// Returns the service for `PATH`.
pub fn service(brain: BrainHandle) -> ControlServer<ControlService> {
    debug_assert!(PATH.contains(control_server::SERVICE_NAME));
    let verifiers = Arc::new(Semaphore::new(VERIFIED_AT_ONCE));
    ControlServer::new(ControlService { brain, verifiers })
        .max_decoding_message_size(Limits::REPORT_BYTES)
        .max_encoding_message_size(Limits::CONTROL_MESSAGE_BYTES)
}

/// Answers hosts.
pub struct ControlService {
    brain: BrainHandle,
    verifiers: Arc<Semaphore>,
}

#[tonic::async_trait]
impl Control for ControlService {
    async fn describe(
        &self,
        _: Request<pb::DescribeRequest>,
    ) -> Result<Response<pb::DescribeReply>, Status> {
        let description = self.brain.ask(Input::Describe).await.map_err(gone)?;
        Ok(Response::new(description.into()))
    }

    async fn enrol(
        &self,
        request: Request<pb::EnrolRequest>,
    ) -> Result<Response<pb::EnrolReply>, Status> {
        let from = connection(&request).remote.ip();
        let request: EnrolRequest = request.into_inner().try_into().map_err(malformed)?;
        let name = request.name.clone();
        let asked = self
            .brain
            .ask(|answer| Input::Enrol(Box::new(request), from, answer))
            .await;
        match asked.map_err(gone)? {
            Ok(Reply::Enrolled(enrolled)) => {
                tracing::info!(host = %name, id = %enrolled.host, %from, "a host joined");
                Ok(Response::new(enrolled.into()))
            }
            Ok(other) => unreachable!("an enrolment is answered by an enrolment, not by {other:?}"),
            Err(Rejection {
                refusal: why,
                retry_after,
                ..
            }) => {
                if is_of_token_holder(why.code) {
                    tracing::info!(host = %name, %from, %why, "a host may not join");
                } else {
                    tracing::debug!(host = %name, %from, %why, "a host may not join");
                }
                Err(refusal::to_grpc_after(why, retry_after))
            }
        }
    }

    type SyncStream = Pin<Box<Outgoing>>;

    async fn sync(
        &self,
        request: Request<Streaming<pb::FromHost>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let connection = connection(&request).clone();
        let Some(facts) = &connection.certificate else {
            return Err(Status::unauthenticated(
                "this call needs the certificate of a host; join the fleet first (meshctl join)",
            ));
        };
        let peer = SessionPeer {
            identity: facts.spiffe.clone(),
            tls_key_hash: facts.tls_key_hash,
            not_before: facts.not_before,
            not_after: facts.not_after,
        };
        let from = connection.remote.ip();
        let opened = self
            .brain
            .ask(|answer| Input::Open(peer, from, answer))
            .await;
        let Session {
            id,
            is_of_member,
            outgoing,
            ended,
            delivered,
        } = opened.map_err(gone)?;
        if is_of_member {
            connection.admit();
        }
        let listener = Listener {
            id,
            brain: self.brain.clone(),
            verifiers: Arc::clone(&self.verifiers),
            connection,
        };
        tokio::spawn(listener.run(request.into_inner(), ended, delivered));
        Ok(Response::new(Box::pin(outgoing)))
    }
}

/// Hears what a host says on its stream.
struct Listener {
    id: SessionId,
    brain: BrainHandle,
    verifiers: Arc<Semaphore>,
    connection: Connection,
}

impl Listener {
    async fn run(
        self,
        mut incoming: Streaming<pb::FromHost>,
        mut ended: oneshot::Receiver<()>,
        delivered: oneshot::Receiver<()>,
    ) {
        loop {
            tokio::select! {
                message = incoming.message() => match message {
                    Ok(Some(message)) => self.hear(message).await,
                    Ok(None) | Err(_) => {
                        tracing::debug!(session = self.id.0, "a host's stream is gone");
                        self.brain.tell(Input::Closed(self.id)).await;
                        break;
                    }
                },
                _ = &mut ended => break,
            }
        }
        // A connection is good for one stream: it goes as soon as what was sent has arrived.
        self.connection.end();
        let _ = delivered.await;
    }

    async fn hear(&self, message: pb::FromHost) {
        let heard = match FromHost::try_from(message) {
            Ok(FromHost::Memory(part)) => return self.hear_memory(part).await,
            Ok(message) => Input::Heard(self.id, message),
            Err(error) => {
                tracing::warn!(from = %self.connection.remote, %error, "a host is not understood; its stream is closed");
                Input::Misheard(self.id, malformed(error))
            }
        };
        self.brain.tell(heard).await;
    }
}

impl Listener {
    /// What a host remembers may be thousands of signatures: they are verified beside the brain, for
    /// few hosts at one time, and the host is not heard any further meanwhile.
    async fn hear_memory(&self, part: Box<Memory>) {
        let remembered = |answer| Input::Remembered(self.id, part, answer);
        let Ok(Some(hearsay)) = self.brain.ask(remembered).await else {
            return;
        };
        let turn = self.verifiers.acquire().await;
        let told = spawn_blocking(move || hearsay.verify()).await;
        drop(turn);
        match told {
            Ok(told) => self.brain.tell(Input::Testimony(self.id, told)).await,
            Err(error) => tracing::error!(%error, "verifying what a host remembers failed"),
        }
    }
}

/// Returns whether nobody is refused so without a good join token. Strangers do not write the log: the
/// audit log has tokens that are not good, and counts what is too much of them.
const fn is_of_token_holder(code: RefusalCode) -> bool {
    match code {
        RefusalCode::Conflict | RefusalCode::Exhausted => true,
        RefusalCode::Invalid
        | RefusalCode::Denied
        | RefusalCode::NotFound
        | RefusalCode::Unavailable => false,
    }
}

fn connection<T>(request: &Request<T>) -> &Connection {
    request
        .extensions()
        .get()
        .expect("the TLS port puts the connection in every request")
}

fn malformed(error: WireError) -> Status {
    Status::invalid_argument(format!(
        "{error}; do the versions of meshd and mesh-coordinator fit?"
    ))
}

fn gone(error: BrainGone) -> Status {
    Status::unavailable(error.to_string())
}
