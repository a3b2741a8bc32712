//! What operators are answered: JSON, also when the answer is no.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use fleet::{Rejection, Reply};
use model::admin::ErrorBody;
use model::control::{Refusal, RefusalCode};
use runtime::refusal;

use crate::brain::BrainGone;

/// When a coordinator that stops is asked again: the one that is started in its place may be there.
const ANEW_AFTER: Duration = Duration::from_secs(1);

/// An answer that is not a success.
#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    body: ErrorBody,
    retry_after: Option<Duration>,
}

impl Failure {
    pub(super) fn new(status: StatusCode, refusal: Refusal) -> Self {
        let (_, body) = refusal::to_http(refusal);
        Self {
            status,
            body,
            retry_after: None,
        }
    }

    pub(super) fn unauthenticated(message: &str) -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            Refusal::new(RefusalCode::Denied, message),
        )
    }

    pub(super) fn no_such_request() -> Self {
        let message =
            "there is no such request; do the versions of meshctl and mesh-coordinator fit?";
        Refusal::new(RefusalCode::NotFound, message).into()
    }

    pub(crate) fn no_such_method() -> Self {
        let message =
            "this cannot be done with that; do the versions of meshctl and mesh-coordinator fit?";
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            Refusal::new(RefusalCode::Invalid, message),
        )
    }

    /// Returns the text for people.
    pub(super) fn message(&self) -> &str {
        &self.body.message
    }
}

impl From<Refusal> for Failure {
    fn from(why: Refusal) -> Self {
        let (status, _) = refusal::to_http(why.clone());
        let status = StatusCode::from_u16(status).expect("a constant of the table");
        Self::new(status, why)
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        let mut failure = Self::from(rejection.refusal);
        failure.body.diagnostics = rejection.diagnostics;
        failure.retry_after = rejection.retry_after;
        failure
    }
}

impl From<BrainGone> for Failure {
    fn from(gone: BrainGone) -> Self {
        let mut failure = Self::from(Refusal::new(RefusalCode::Unavailable, gone.to_string()));
        failure.retry_after = Some(ANEW_AFTER);
        failure
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, scheme);
        }
        if let Some(wait) = self.retry_after {
            // Whole seconds, rounded up (RFC 9110 10.2.3).
            let secs = wait.as_millis().div_ceil(1000).to_string();
            let secs = HeaderValue::from_str(&secs).expect("digits");
            response.headers_mut().insert(header::RETRY_AFTER, secs);
        }
        response
    }
}

/// Writes a reply of the fleet as JSON.
pub(super) fn to_json(reply: Reply) -> Response {
    match reply {
        Reply::Status(it) => Json(it).into_response(),
        Reply::Hosts(it) => Json(it).into_response(),
        Reply::Host(it) | Reply::HostRemoved(it) => Json(it).into_response(),
        Reply::RemovedHosts(it) => Json(it).into_response(),
        Reply::RemovedHost(it) => Json(it).into_response(),
        Reply::Recovery(it) => Json(it).into_response(),
        Reply::Authority(it) => Json(it).into_response(),
        Reply::TokenCreated(it) => Json(it).into_response(),
        Reply::Tokens(it) => Json(it).into_response(),
        Reply::Token(it) => Json(it).into_response(),
        Reply::PolicyApplied(it) => Json(it).into_response(),
        Reply::PolicyVersions(it) => Json(it).into_response(),
        Reply::Policy(it) => Json(it).into_response(),
        Reply::PolicyPlanned(it) => Json(it).into_response(),
        Reply::Rollout(it) => Json(it).into_response(),
        Reply::Why(it) => Json(it).into_response(),
        Reply::AdminCreated(it) => Json(it).into_response(),
        Reply::Admins(it) => Json(it).into_response(),
        Reply::AdminRevoked(it) => Json(it).into_response(),
        Reply::Audit(it) => Json(it).into_response(),
        Reply::Enrolled(_) | Reply::Noted => unreachable!("operators do not ask for this"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stops_and_who_is_busy_say_when_to_ask_again_and_nobody_else_does() {
        let after = |failure: Failure| {
            let response = failure.into_response();
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            response.headers().get(header::RETRY_AFTER).cloned()
        };
        let busy = Rejection {
            retry_after: Some(Duration::from_millis(4001)),
            ..Rejection::new(RefusalCode::Unavailable, "busy")
        };
        assert_eq!(after(BrainGone.into()).unwrap(), "1");
        assert_eq!(after(busy.into()).unwrap(), "5");
        let lasting = Refusal::new(RefusalCode::Unavailable, "the key cannot be read");
        assert_eq!(after(lasting.into()), None);
    }
}
