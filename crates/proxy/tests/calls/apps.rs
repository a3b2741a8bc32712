//! Programs that are called, and programs that call.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

/// How long `/late` takes.
const LATE: Duration = Duration::from_millis(500);

/// A program that answers by the path that it is asked for.
pub(crate) struct App {
    name: &'static str,
    requests: AtomicUsize,
    greetings: AtomicUsize,
    paths: Mutex<Vec<String>>,
}

/// What a program speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// HTTP/1.1 and 2, as it is spoken to.
    Both,
    /// HTTP/1.1; who begins in HTTP/2 is told that this is no request.
    Http1,
    /// HTTP/1.1; on who begins in HTTP/2 it hangs up.
    Http1Curtly,
    /// HTTP/2.
    Http2,
}

type Answer = Response<BoxBody<Bytes, hyper::Error>>;

impl App {
    /// Starts it.
    pub(crate) fn start(name: &'static str, listener: TcpListener) -> Arc<Self> {
        Self::start_speaking(Speaks::Both, name, listener)
    }

    /// Starts it; it speaks nothing else.
    pub(crate) fn start_speaking(
        speaks: Speaks,
        name: &'static str,
        listener: TcpListener,
    ) -> Arc<Self> {
        let app = Arc::new(Self {
            name,
            requests: AtomicUsize::new(0),
            greetings: AtomicUsize::new(0),
            paths: Mutex::default(),
        });
        let serving = Arc::clone(&app);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&serving).serve(speaks, stream));
            }
        });
        app
    }

    async fn serve(self: Arc<Self>, speaks: Speaks, mut stream: TcpStream) {
        let mut first = [0; 3];
        while let Ok(1..3) = stream.peek(&mut first).await {
            tokio::task::yield_now().await;
        }
        if &first == b"PRI" {
            self.greetings.fetch_add(1, Ordering::Relaxed);
            if speaks == Speaks::Http1 {
                let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
                let _ = stream.write_all(answer).await;
                return;
            }
        }
        let service = service_fn(|request| {
            let app = Arc::clone(&self);
            async move { Ok::<_, Infallible>(app.answer(request).await) }
        });
        let stream = TokioIo::new(stream);
        match speaks {
            Speaks::Both => {
                let both = auto::Builder::new(TokioExecutor::new());
                let _ = both.serve_connection_with_upgrades(stream, service).await;
            }
            Speaks::Http1 | Speaks::Http1Curtly => {
                let http1 = http1::Builder::new();
                let _ = http1.serve_connection(stream, service).await;
            }
            Speaks::Http2 => {
                let http2 = http2::Builder::new(TokioExecutor::new());
                let _ = http2.serve_connection(stream, service).await;
            }
        }
    }

    /// Returns how many connections of HTTP/2 it was offered.
    pub(crate) fn greetings(&self) -> usize {
        self.greetings.load(Ordering::Relaxed)
    }

    /// Returns how many requests it got.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Returns what was asked for, in its order.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.paths.lock().unwrap().clone()
    }

    async fn answer(&self, mut request: Request<Incoming>) -> Answer {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let path = request.uri().path().to_owned();
        self.paths.lock().unwrap().push(path.clone());
        match path.as_str() {
            "/echo" => {
                let length = request.headers().get("content-length").cloned();
                let mut answer = Response::new(request.into_body().boxed());
                if let Some(length) = length {
                    answer.headers_mut().insert("content-length", length);
                }
                answer
            }
            "/collect" => {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                text(StatusCode::OK, String::from_utf8_lossy(&body).into_owned())
            }
            "/headers" => text(StatusCode::OK, format!("{:?}", request.headers())),
            "/503" => text(StatusCode::SERVICE_UNAVAILABLE, self.name.into()),
            "/never" => std::future::pending().await,
            "/late" => {
                let _ = request.into_body().collect().await;
                sleep(LATE).await;
                text(StatusCode::OK, self.name.into())
            }
            "/forged" => {
                let mut answer = text(StatusCode::OK, String::new());
                answer
                    .headers_mut()
                    .insert("mesh-reason", HeaderValue::from_static("denied"));
                answer
                    .headers_mut()
                    .insert("keep-alive", HeaderValue::from_static("timeout=9"));
                answer
            }
            "/trailers" => trailers(),
            "/trailers-back" => trailers_back(request.into_body()).await,
            "/endless" => endless(),
            "/upgrade" => {
                let upgrade = hyper::upgrade::on(&mut request);
                tokio::spawn(async move {
                    let mut stream = TokioIo::new(upgrade.await.unwrap());
                    let mut heard = [0; 1024];
                    while let Ok(length @ 1..) = stream.read(&mut heard).await {
                        stream.write_all(&heard[..length]).await.unwrap();
                    }
                });
                let mut answer = text(StatusCode::SWITCHING_PROTOCOLS, String::new());
                let headers = answer.headers_mut();
                headers.insert("connection", HeaderValue::from_static("upgrade"));
                headers.insert("upgrade", HeaderValue::from_static("websocket"));
                headers.insert("x-accepted", HeaderValue::from_static("yes"));
                answer
            }
            _ => text(StatusCode::OK, self.name.into()),
        }
    }
}

fn text(status: StatusCode, text: String) -> Answer {
    let body = Full::new(Bytes::from(text))
        .map_err(|never| match never {})
        .boxed();
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer
}

fn trailers() -> Answer {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [
        Frame::data(Bytes::from_static(b"hello")),
        Frame::trailers(trailers),
    ];
    let stream = futures_util::stream::iter(frames.map(Ok));
    let mut answer = Response::new(BoxBody::new(StreamBody::new(stream)));
    let headers = answer.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("trailer", HeaderValue::from_static("grpc-status"));
    answer
}

/// Says which trailers came, and sends some of its own, one of them in the name of the mesh.
async fn trailers_back(body: Incoming) -> Answer {
    let came = body.collect().await.unwrap();
    let came = format!("{:?}", came.trailers().unwrap());
    let mut trailers = HeaderMap::new();
    trailers.insert("mesh-reason", HeaderValue::from_static("denied"));
    trailers.insert("x-own", HeaderValue::from_static("2"));
    let frames = [Frame::data(Bytes::from(came)), Frame::trailers(trailers)];
    let stream = futures_util::stream::iter(frames.map(Ok));
    Response::new(BoxBody::new(StreamBody::new(stream)))
}

/// The first piece of an answer that never ends.
fn endless() -> Answer {
    use futures_util::StreamExt;
    let first = futures_util::stream::iter([Ok(Frame::data(Bytes::from_static(b"first")))]);
    let stream = first.chain(futures_util::stream::pending());
    Response::new(BoxBody::new(StreamBody::new(stream)))
}

/// Returns whether something is there without waiting for it.
pub(crate) async fn is_there(future: impl Future) -> bool {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context).is_ready()))
        .await
}

/// Sends one request in its own words, and returns all that comes until the connection ends.
pub(crate) async fn say(mut stream: TcpStream, words: &[u8]) -> String {
    stream.write_all(words).await.unwrap();
    let mut heard = Vec::new();
    // An end by a reset is an end.
    let _ = stream.read_to_end(&mut heard).await;
    String::from_utf8_lossy(&heard).into_owned()
}

/// Asks for a path on a connection of its own.
pub(crate) async fn get(stream: TcpStream, path: &str) -> (u16, String) {
    let words = format!("GET {path} HTTP/1.1\r\nhost: orders\r\nconnection: close\r\n\r\n");
    let heard = say(stream, words.as_bytes()).await;
    (status(&heard), heard)
}

/// Returns the status of an answer; 0: there is none.
pub(crate) fn status(answer: &str) -> u16 {
    answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0)
}
