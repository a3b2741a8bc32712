//! DNS by TCP: a bounded number of clients, each of which asks one thing after the other and is let
//! go when it says nothing for a while, or no more (RFC 7766 6.2.3).

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_server::net::xfer::Protocol;
use hickory_server::server::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use super::Responder;

/// Clients at once on one address; the one that came first makes room for another.
const CLIENTS_MAX: usize = 64;
/// How long a client may take to ask, and to take its answer.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// How long nobody is let in after the kernel refused, as when descriptors are used up.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers until it is aborted.
pub(super) async fn serve(listener: TcpListener, responder: Responder) {
    serve_patiently(listener, responder, IDLE_MAX).await;
}

/// As `serve`, for clients that may take as long as this.
pub(super) async fn serve_patiently(
    listener: TcpListener,
    responder: Responder,
    patience: Duration,
) {
    let responder = Arc::new(responder);
    let mut clients = Clients::default();
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let client = Client { stream, patience };
                clients.let_in(client.answer(from, Arc::clone(&responder)));
            }
            Err(error) => {
                tracing::debug!(%error, "a DNS client could not be let in");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// The clients that are served now, in the order in which they came.
#[derive(Default)]
struct Clients {
    running: JoinSet<()>,
    handles: VecDeque<AbortHandle>,
}

impl Clients {
    fn let_in(&mut self, client: impl Future<Output = ()> + Send + 'static) {
        while self.running.try_join_next().is_some() {}
        self.handles.retain(|handle| !handle.is_finished());
        if self.handles.len() >= CLIENTS_MAX
            && let Some(first) = self.handles.pop_front()
        {
            first.abort();
        }
        self.handles.push_back(self.running.spawn(client));
    }
}

struct Client {
    stream: TcpStream,
    /// How long it may take to ask, and to take its answer.
    patience: Duration,
}

impl Client {
    async fn answer(mut self, from: SocketAddr, responder: Arc<Responder>) {
        loop {
            let asked = in_time(self.patience, read_message(&mut self.stream));
            let question = match asked.await {
                Ok(question) => question,
                Err(error) => {
                    tracing::trace!(%error, "a DNS client is gone, or has nothing to ask");
                    return;
                }
            };
            let Some(answer) = answer(question, from, &responder).await else {
                return;
            };
            let written = in_time(self.patience, write_message(&mut self.stream, &answer));
            if written.await.is_err() {
                return;
            }
        }
    }
}

/// Returns the bytes of the answer; `None`: this is no question.
async fn answer(question: Vec<u8>, from: SocketAddr, responder: &Responder) -> Option<Vec<u8>> {
    let id = u16::from_be_bytes(*question.first_chunk()?);
    let answer = match Request::from_bytes(question, from, Protocol::Tcp) {
        Ok(request) if request.metadata.message_type == MessageType::Query => {
            responder.message(&request).await
        }
        Ok(_) => return None,
        Err(_) => {
            let mut refusal = Message::response(id, OpCode::Query);
            refusal.metadata.response_code = ResponseCode::FormErr;
            refusal
        }
    };
    answer.to_vec().ok()
}

async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    // At once: two writes would be two segments, of which the second waits for an acknowledgement.
    stream
        .write_all(&[&length.to_be_bytes(), message].concat())
        .await
}

async fn in_time<T>(
    patience: Duration,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    match tokio::time::timeout(patience, work).await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}
