//! A client of the JSON APIs: over a Unix socket, or over TLS with a bearer secret.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use model::admin::ErrorBody;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::reason;
use crate::tls::{self, ConnectError};

/// Bytes of an answer that are read at most.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// How long an answer may take: `policy apply` on a large fleet included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a request got no useful answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Nobody answers there.
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
    /// How long an answer may take.
    patience: Duration,
}

impl ApiClient {
    /// Makes a client of the API behind a Unix socket.
    pub fn unix(path: &Path) -> Self {
        Self {
            target: Target::Unix(path.to_owned()),
            reason: None,
            patience: ANSWER_TIMEOUT,
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
            patience: ANSWER_TIMEOUT,
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

    /// Waits no longer than that for an answer.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Asks `GET path`.
    ///
    /// # Errors
    /// See `ApiError`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.request(Method::GET, path, None::<&()>).await
    }

    /// Asks `DELETE path`.
    ///
    /// # Errors
    /// See `ApiError`.
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.request(Method::DELETE, path, None::<&()>).await
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
        self.request(Method::POST, path, Some(body)).await
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
        self.request(Method::PUT, path, Some(body)).await
    }

    async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ApiError> {
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
        let request = request
            .body(Full::new(Bytes::from(bytes)))
            .map_err(|error| ApiError::Protocol(format!("{path} is not a path: {error}")))?;
        let answered = tokio::time::timeout(self.patience, self.exchange(request));
        let (status, bytes) = answered.await.map_err(|_| {
            ApiError::Unreachable(format!(
                "{} did not answer within {} s; look at its logs",
                self.target_name(),
                self.patience.as_secs()
            ))
        })??;
        parse(status, &bytes)
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), ApiError> {
        match &self.target {
            Target::Unix(path) => {
                let stream = tokio::net::UnixStream::connect(path)
                    .await
                    .map_err(|error| ApiError::Unreachable(unix_advice(path, &error)))?;
                send(stream, request).await
            }
            Target::Tls {
                addresses, config, ..
            } => {
                let (stream, _) = tls::connect(addresses, Arc::clone(config))
                    .await
                    .map_err(|ConnectError { message, .. }| ApiError::Unreachable(message))?;
                send(stream, request).await
            }
        }
    }

    fn target_name(&self) -> String {
        match &self.target {
            Target::Unix(path) => path.display().to_string(),
            Target::Tls { addresses, .. } => addresses.join(", "),
        }
    }
}

fn unix_advice(path: &Path, error: &std::io::Error) -> String {
    format!(
        "cannot reach the daemon at {}: {error}; is it running? (systemctl status, or another --socket)",
        path.display()
    )
}

async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), ApiError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken =
        |error: hyper::Error| ApiError::Unreachable(format!("the connection broke: {error}"));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(broken)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await
        .map_err(|error| ApiError::Protocol(format!("the answer broke off: {error}")))?;
    driver.abort();
    Ok((status, body.to_bytes()))
}

fn parse<T: DeserializeOwned>(status: StatusCode, bytes: &[u8]) -> Result<T, ApiError> {
    if status.is_success() {
        return serde_json::from_slice(bytes).map_err(|error| {
            ApiError::Protocol(format!(
                "the answer is not understood ({error}); do the versions of both programs fit?"
            ))
        });
    }
    let body = serde_json::from_slice(bytes).unwrap_or_else(|_| ErrorBody {
        code: "invalid".into(),
        message: format!(
            "HTTP {status}: {}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(500)])
        ),
        diagnostics: Vec::new(),
    });
    Err(ApiError::Refused {
        status: status.as_u16(),
        body,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_is_not_json_is_shown_as_it_is() {
        let error = parse::<()>(StatusCode::BAD_GATEWAY, b"oops").unwrap_err();
        assert_eq!(error.to_string(), "HTTP 502 Bad Gateway: oops");
    }

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
}
