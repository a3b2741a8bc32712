//! A client of the JSON APIs: over a Unix socket, or over TLS with a bearer secret.

mod answer;
mod manner;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use model::admin::ErrorBody;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, timeout};

use crate::reason;
use crate::tls;

use answer::Answer;
use manner::{Attempt, Manner, Purpose};
pub use manner::{Persistence, Server};

/// How long it is waited before a server that is gone is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Why a request got no useful answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Nobody answers there, or not in time.
    #[error("{0}")]
    Unreachable(String),
    /// The server says no.
    #[error("{}", .body.message)]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its reasons.
        body: ErrorBody,
    },
    /// The answer cannot be understood.
    #[error("{0}")]
    Protocol(String),
}

/// Where requests go.
#[derive(Clone, Debug)]
enum Target {
    Unix(PathBuf),
    Tls {
        addresses: Vec<String>,
        config: Arc<rustls::ClientConfig>,
        bearer: Bearer,
    },
}

/// What proves who asks; never printed.
#[derive(Clone)]
struct Bearer(String);

impl Bearer {
    /// The value of the `Authorization` header, marked so that nobody prints it either.
    fn header(&self) -> Result<HeaderValue, ApiError> {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", self.0)).map_err(|_| {
            ApiError::Protocol("the credential's secret has characters that no secret has".into())
        })?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(..)")
    }
}

/// A client of one JSON API. Each request opens a connection of its own.
#[derive(Clone, Debug)]
pub struct ApiClient {
    target: Target,
    /// For the audit log, as the header has it.
    reason: Option<HeaderValue>,
    manner: Manner,
}

impl ApiClient {
    /// Makes a client of the API behind a Unix socket.
    pub fn unix(path: &Path) -> Self {
        Self {
            target: Target::Unix(path.to_owned()),
            reason: None,
            manner: Manner::default(),
        }
    }

    /// Makes a client of the API at the first of `addresses` (`host:port`) that answers.
    pub fn tls(addresses: Vec<String>, config: Arc<rustls::ClientConfig>, bearer: String) -> Self {
        Self {
            target: Target::Tls {
                addresses,
                config,
                bearer: Bearer(bearer),
            },
            reason: None,
            manner: Manner::default(),
        }
    }

    /// Says why, with each request, for the audit log.
    #[must_use]
    pub fn with_reason(self, reason: &str) -> Self {
        let header = HeaderValue::from_str(&reason::encode(reason));
        Self {
            reason: header.ok().filter(|header| !header.is_empty()),
            ..self
        }
    }

    /// Calls the server so in messages.
    #[must_use]
    pub fn with_server(mut self, server: Server) -> Self {
        self.manner.server = server;
        self
    }

    /// Waits no longer than that for the server to take the request, for the head of its answer, and
    /// for each further piece of it.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.manner.patience = patience;
        self
    }

    /// Tries again when the server is gone, where that can do no harm; `None` gives up at once.
    #[must_use]
    pub fn with_persistence(mut self, persistence: Option<Persistence>) -> Self {
        self.manner.persistence = persistence;
        self
    }

    /// Asks `GET path`.
    ///
    /// # Errors
    /// See `ApiError`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        let request = self.request(Method::GET, path, None::<&()>)?;
        self.ask(request, Purpose::Question).await
    }

    /// Asks `DELETE path`.
    ///
    /// # Errors
    /// See `ApiError`.
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        let request = self.request(Method::DELETE, path, None::<&()>)?;
        self.ask(request, Purpose::Order).await
    }

    /// Asks `POST path` with a JSON body.
    ///
    /// # Errors
    /// See `ApiError`.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ApiError> {
        let request = self.request(Method::POST, path, Some(body))?;
        self.ask(request, Purpose::Order).await
    }

    /// Asks `POST path` with a JSON body what changes nothing.
    ///
    /// # Errors
    /// See `ApiError`.
    pub async fn query<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ApiError> {
        let request = self.request(Method::POST, path, Some(body))?;
        self.ask(request, Purpose::Question).await
    }

    /// Asks `PUT path` with a JSON body.
    ///
    /// # Errors
    /// See `ApiError`.
    pub async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ApiError> {
        let request = self.request(Method::PUT, path, Some(body))?;
        self.ask(request, Purpose::Order).await
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Request<Full<Bytes>>, ApiError> {
        let bytes = match body {
            Some(body) => serde_json::to_vec(body).map_err(|error| {
                ApiError::Protocol(format!("cannot write the request: {error}"))
            })?,
            None => Vec::new(),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "mesh")
            .header(header::CONTENT_TYPE, "application/json");
        if let Target::Tls { bearer, .. } = &self.target {
            request = request.header(header::AUTHORIZATION, bearer.header()?);
        }
        if let Some(reason) = &self.reason {
            request = request.header(reason::HEADER, reason.clone());
        }
        request
            .body(Full::new(Bytes::from(bytes)))
            .map_err(|error| ApiError::Protocol(format!("{path} is not a path: {error}")))
    }

    /// Asks until there is an answer, or no more attempt is worth it. A server that cannot answer for
    /// now says when it can: it is not asked before, and not at all when that is too late.
    async fn ask<T: DeserializeOwned>(
        &self,
        request: Request<Full<Bytes>>,
        purpose: Purpose,
    ) -> Result<T, ApiError> {
        let started = Instant::now();
        let mut is_told = false;
        loop {
            let (error, wait) = match self.exchange(request.clone()).await {
                Ok(answer) => match (answer.parse(), answer.repeat_after()) {
                    (Err(error), Some(wait)) if purpose == Purpose::Question => (error, wait),
                    (said, _) => return said,
                },
                Err(attempt) => {
                    let why = attempt.explain(purpose, &self.target_name(), &self.manner);
                    if !attempt.may_be_repeated(purpose) {
                        return Err(ApiError::Unreachable(why));
                    }
                    (ApiError::Unreachable(why), AGAIN_AFTER)
                }
            };
            let wait = wait.max(AGAIN_AFTER);
            match self.manner.persistence {
                Some(Persistence { how_long, notice }) if started.elapsed() + wait <= how_long => {
                    if !std::mem::replace(&mut is_told, true) {
                        notice(&error.to_string());
                    }
                }
                _ => return Err(error),
            }
            sleep(wait).await;
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, Attempt> {
        let patience = self.manner.patience;
        match &self.target {
            Target::Unix(path) => {
                let connecting = tokio::net::UnixStream::connect(path);
                let stream = in_time(patience, connecting)
                    .await?
                    .map_err(|error| Attempt::NotSent(self.unix_advice(path, &error)))?;
                send(stream, request, patience).await
            }
            Target::Tls {
                addresses, config, ..
            } => {
                // Each address has a time of its own.
                let (stream, _) =
                    tls::connect(addresses, Arc::clone(config))
                        .await
                        .map_err(|error| match error.untrusted || error.clock {
                            true => Attempt::Hopeless(error.message),
                            false => Attempt::NotSent(error.message),
                        })?;
                send(stream, request, patience).await
            }
        }
    }

    fn unix_advice(&self, path: &Path, error: &std::io::Error) -> String {
        format!(
            "cannot reach {} at {}: {error}; is it running? (`systemctl status`; and is that its socket?)",
            self.manner.server.name,
            path.display()
        )
    }

    fn target_name(&self) -> String {
        match &self.target {
            Target::Unix(path) => path.display().to_string(),
            Target::Tls { addresses, .. } => addresses.join(", "),
        }
    }
}

async fn in_time<T>(patience: Duration, work: impl Future<Output = T>) -> Result<T, Attempt> {
    timeout(patience, work).await.map_err(|_| Attempt::Silent)
}

async fn send<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    patience: Duration,
) -> Result<Answer, Attempt>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| Attempt::Broken(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let driver = tokio::spawn(connection);
    let response = in_time(patience, sender.send_request(request)).await;
    let answer = match response {
        Ok(Ok(response)) => Answer::read(response, patience).await,
        Ok(Err(error)) => Err(broken(error)),
        Err(silent) => Err(silent),
    };
    driver.abort();
    answer
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn the_secret_is_not_printed() {
        let config = tls::pinned_client(model::ids::Digest::from_bytes([0; 32]));
        let client = ApiClient::tls(vec!["c1:7443".into()], config, "hunter2".into());
        let Target::Tls { bearer, .. } = &client.target else {
            unreachable!("made for TLS");
        };
        let printed = format!("{client:?} {:?}", bearer.header().unwrap());
        assert!(!printed.contains("hunter2"), "{printed}");
    }

    #[tokio::test]
    async fn a_server_that_is_silent_is_waited_for_no_longer_than_asked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let _silent = tokio::net::UnixListener::bind(&path).unwrap();
        let client = ApiClient::unix(&path).with_patience(Duration::ZERO);
        let error = client.get::<()>("/").await.unwrap_err().to_string();
        assert!(error.contains("did not answer within 0 s"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_socket_says_what_to_try() {
        let error = ApiClient::unix(Path::new("/nonexistent/x.sock"))
            .get::<()>("/")
            .await
            .unwrap_err();
        assert!(matches!(error, ApiError::Unreachable(_)));
        assert!(error.to_string().contains("is it running?"), "{error}");
    }

    /// Answers each of `refusals` once, then `null`; returns how often it was asked.
    fn serve(path: &Path, refusals: &[&'static str]) -> tokio::task::JoinHandle<usize> {
        const GOOD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnull";
        let listener = tokio::net::UnixListener::bind(path).unwrap();
        let answers: Vec<&str> = refusals.iter().copied().chain([GOOD]).collect();
        tokio::spawn(async move {
            for (number, answer) in answers.iter().enumerate() {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
                if answers.len() == number + 1 {
                    break;
                }
            }
            answers.len()
        })
    }

    const SOON: &str =
        "HTTP/1.1 503 Service Unavailable\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n";
    const LATER: &str =
        "HTTP/1.1 503 Service Unavailable\r\nretry-after: 3600\r\ncontent-length: 0\r\n\r\n";
    const NEVER: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";

    #[tokio::test]
    async fn a_server_that_cannot_for_now_is_asked_again_when_it_says() {
        let how_long = Duration::from_secs(60);
        for (refusal, is_repeated) in [(SOON, true), (LATER, false), (NEVER, false)] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("x.sock");
            let server = serve(&path, &[refusal]);
            let persistence = Persistence {
                how_long,
                notice: |_| {},
            };
            let client = ApiClient::unix(&path).with_persistence(Some(persistence));
            let answer = client.get::<()>("/").await;
            assert_eq!(answer.is_ok(), is_repeated, "{refusal}: {answer:?}");
            match is_repeated {
                true => assert_eq!(server.await.unwrap(), 2),
                false => server.abort(),
            }
        }
    }

    #[tokio::test]
    async fn an_order_that_is_refused_is_not_repeated() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let server = serve(&path, &[SOON]);
        let persistence = Persistence {
            how_long: Duration::from_secs(60),
            notice: |_| {},
        };
        let client = ApiClient::unix(&path).with_persistence(Some(persistence));
        let error = client.delete::<()>("/").await.unwrap_err();
        assert!(matches!(error, ApiError::Refused { status: 503, .. }));
        server.abort();
    }
}
