//! What is answered where no endpoint takes a call, if the policy says so for its service.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use model::rule::StaticAnswer;

use crate::marks::{self, CallId};
use crate::refusal::Reason;

impl Reason {
    /// Whether it says that no endpoint took the call, and nothing of the policy. Where no host offers
    /// the service nobody has decided yet: see [`crate::asking::Asked::would_be_allowed`].
    pub(crate) const fn is_for_fallback(self) -> bool {
        matches!(
            self,
            Self::NoEndpoint
                | Self::Unhealthy
                | Self::Unreachable
                | Self::ConnectionRefused
                | Self::NotOffered
        )
    }
}

/// Returns the fallback as an answer that says what it stands for.
pub(crate) fn answer(fallback: &StaticAnswer, reason: Reason, call: CallId) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::from(fallback.body.clone()));
    let status = StatusCode::from_u16(fallback.status);
    *answer.status_mut() = status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let headers = answer.headers_mut();
    if let Ok(content_type) = HeaderValue::from_str(&fallback.content_type)
        && !content_type.is_empty()
    {
        headers.insert(CONTENT_TYPE, content_type);
    }
    headers.insert(marks::REASON, HeaderValue::from_static(reason.name()));
    headers.insert(marks::CALL, call.header());
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fallback_says_what_it_stands_for() {
        let fallback = StaticAnswer {
            status: 203,
            content_type: "text/html".into(),
            body: "<p>later".into(),
        };
        let answer = answer(&fallback, Reason::Unreachable, CallId::from_number(0xab));
        assert_eq!(answer.status(), 203);
        assert_eq!(answer.headers()["content-type"], "text/html");
        assert_eq!(answer.headers()["mesh-reason"], "unreachable");
        assert_eq!(answer.headers()["mesh-call"], "00000000000000ab");
        assert_eq!(answer.body(), "<p>later");
    }

    #[test]
    fn there_is_none_for_what_the_policy_denies() {
        let all = Reason::ALL.into_iter();
        let mut denied = all.filter(|reason| reason.status() == StatusCode::FORBIDDEN);
        assert!(denied.all(|reason| !reason.is_for_fallback()));
        assert!(Reason::NoEndpoint.is_for_fallback());
    }
}
