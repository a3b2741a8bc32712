//! What a server answered: read from the connection, and as the caller understands it.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::{HeaderMap, Response, StatusCode, header};
use model::admin::ErrorBody;
use serde::de::DeserializeOwned;

use super::manner::Attempt;
use super::{ApiError, in_time};

/// Bytes of an answer that are read at most.
const BYTES_MAX: usize = 64 << 20;

/// An answer that is whole.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    retry_after: Option<Duration>,
    bytes: Bytes,
}

impl Answer {
    /// Reads an answer for as long as it goes on coming.
    pub(super) async fn read(
        response: Response<Incoming>,
        patience: Duration,
    ) -> Result<Self, Attempt> {
        let status = response.status();
        let retry_after = retry_after(response.headers());
        let bytes = body(response.into_body(), patience).await?;
        Ok(Self {
            status,
            retry_after,
            bytes,
        })
    }

    /// Returns after how long the same is worth asking again, where the server says that it cannot
    /// answer for now only: one that names no time has a reason that does not pass by waiting.
    pub(super) fn repeat_after(&self) -> Option<Duration> {
        let is_for_now = self.status == StatusCode::SERVICE_UNAVAILABLE;
        self.retry_after.filter(|_| is_for_now)
    }

    /// Returns what it says.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        let Self { status, bytes, .. } = self;
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
}

async fn body(mut body: Incoming, patience: Duration) -> Result<Bytes, Attempt> {
    let mut whole = Vec::new();
    while let Some(frame) = in_time(patience, body.frame()).await? {
        let frame = frame.map_err(|error| Attempt::Broken(error.to_string()))?;
        let piece = frame.into_data().unwrap_or_default();
        if whole.len() + piece.len() > BYTES_MAX {
            let text = format!("the answer exceeds {BYTES_MAX} bytes");
            return Err(Attempt::TooLarge(text));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.into())
}

/// In seconds: our servers name no dates (RFC 9110 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: StatusCode, retry_after: Option<u64>) -> Answer {
        Answer {
            status,
            retry_after: retry_after.map(Duration::from_secs),
            bytes: Bytes::from_static(b"oops"),
        }
    }

    #[test]
    fn a_refusal_that_is_not_json_is_shown_as_it_is() {
        let answer = answer(StatusCode::BAD_GATEWAY, None);
        let error = answer.parse::<()>().unwrap_err();
        assert_eq!(error.to_string(), "HTTP 502 Bad Gateway: oops");
    }

    #[test]
    fn only_what_passes_is_asked_again() {
        let for_now = StatusCode::SERVICE_UNAVAILABLE;
        let five = Some(Duration::from_secs(5));
        assert_eq!(answer(for_now, Some(5)).repeat_after(), five);
        assert_eq!(answer(for_now, None).repeat_after(), None);
        let limited = StatusCode::TOO_MANY_REQUESTS;
        assert_eq!(answer(limited, Some(5)).repeat_after(), None);
    }

    #[test]
    fn the_time_to_wait_is_read_in_seconds() {
        let mut headers = HeaderMap::new();
        assert_eq!(retry_after(&headers), None);
        headers.insert(header::RETRY_AFTER, "5".parse().unwrap());
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(5)));
        let date = "Fri, 31 Dec 1999 23:59:59 GMT";
        headers.insert(header::RETRY_AFTER, date.parse().unwrap());
        assert_eq!(retry_after(&headers), None);
    }
}
