//! What the proxy has to know of gRPC over HTTP/2: which requests are calls, how long they may
//! take, and how an answer that the mesh makes itself is told to a client that reads only trailers.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// The status of a call, in the head or the trailers of its answer.
pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// What the status means, percent-encoded.
pub(crate) const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// How long the caller waits.
pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// The type of an answer that the mesh makes.
pub(crate) const GRPC_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

/// The status of what will not work when it is tried again.
pub(crate) const UNIMPLEMENTED: u8 = 12;

/// Returns whether the request is a gRPC call; gRPC-Web is not, its status travels in the body.
pub(crate) fn is_call(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Returns how long the caller waits, if it says so in a form that the protocol knows.
pub(crate) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    // At most eight digits, by the protocol.
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit())
    {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// Returns the gRPC status that says the same as an HTTP status of the mesh.
pub(crate) const fn status_for(status: StatusCode) -> u8 {
    match status {
        StatusCode::FORBIDDEN => 7, // PERMISSION_DENIED
        StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => 4, // DEADLINE_EXCEEDED
        StatusCode::TOO_MANY_REQUESTS => 8, // RESOURCE_EXHAUSTED
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => 14, // UNAVAILABLE
        _ => 13,                    // INTERNAL: the request itself is not as it should be
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn calls_are_known_by_their_type() {
        for (value, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            assert_eq!(is_call(&headers(CONTENT_TYPE, value)), expected, "{value}");
        }
        assert!(!is_call(&HeaderMap::new()));
    }

    #[test]
    fn timeouts_are_read_in_every_unit() {
        for (value, expected) in [
            ("2H", Some(Duration::from_secs(7200))),
            ("3M", Some(Duration::from_secs(180))),
            ("15S", Some(Duration::from_secs(15))),
            ("250m", Some(Duration::from_millis(250))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("1n", Some(Duration::from_nanos(1))),
            ("123456789m", None),
            ("m", None),
            ("", None),
            ("1", None),
            ("-1S", None),
            ("1é", None),
        ] {
            let read = HeaderValue::from_bytes(value.as_bytes())
                .map(|value| timeout(&HeaderMap::from_iter([(GRPC_TIMEOUT, value)])))
                .unwrap();
            assert_eq!(read, expected, "{value}");
        }
    }
}
