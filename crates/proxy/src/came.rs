//! What came of one attempt, and what it says of its endpoint.

use http::Response;
use traffic::{Failure, Outcome};

use crate::body::ProxyBody;
use crate::grpc;
use crate::refusal::Reason;
use crate::replay::Replay;
use crate::serving::Served;
use crate::sessions::SessionError;
use crate::under_way::{AnswerBody, UnderWay, reason_of};

/// What came of an attempt.
pub(crate) enum Came {
    /// An answer.
    Answer(Response<ProxyBody>),
    /// None.
    Failure(Failure, Reason, String),
    /// None, and that is its caller's own fault.
    CallersFault(Reason, &'static str),
}

impl Came {
    /// Returns the same, unless the request ended before its end, or its caller kept the endpoint
    /// waiting for the rest of it: then no endpoint could answer it.
    pub(crate) fn to(self, body: Option<&Replay>) -> Self {
        match self {
            Self::Failure(..) if body.is_some_and(Replay::is_broken) => {
                Self::CallersFault(Reason::BadRequest, "its body breaks off or cannot be read")
            }
            Self::Failure(Failure::Timeout, ..) if body.is_some_and(Replay::waits_for_caller) => {
                Self::CallersFault(Reason::RequestStalled, "")
            }
            came => came,
        }
    }

    /// Returns what it says of the endpoint.
    pub(crate) fn outcome(&self, is_grpc: bool) -> Outcome {
        match self {
            Self::Failure(failure, ..) => Outcome::Failed(*failure),
            Self::CallersFault(..) => Outcome::NotJudged,
            Self::Answer(answer) => match reason_of(answer.headers()) {
                Some(reason) => outcome_of_reason(reason),
                None if is_grpc => outcome_of_grpc(answer),
                None => Outcome::of_status(answer.status().as_u16()),
            },
        }
    }

    /// Answers the caller with it.
    pub(crate) fn answer(self, under_way: Box<UnderWay>) -> Response<AnswerBody> {
        match self {
            Self::Answer(mut answer) => match reason_of(answer.headers()) {
                Some(reason) if under_way.has_fallback(reason) => {
                    under_way.take_told(answer.headers_mut());
                    under_way.refuse(reason, "")
                }
                _ => under_way.pass_on(answer),
            },
            Self::Failure(_, reason, detail) => under_way.refuse(reason, &detail),
            Self::CallersFault(reason, detail) => under_way.refuse(reason, detail),
        }
    }
}

impl From<SessionError> for Came {
    fn from(error: SessionError) -> Self {
        let (failure, reason) = match &error {
            SessionError::Broken(_) => (Failure::Broken, Reason::Broken),
            SessionError::Refused(_) => (Failure::Refused, Reason::Unreachable),
            SessionError::Full => (Failure::Refused, Reason::Overflow),
            // That is this host's own trouble.
            SessionError::NoIdentity => (Failure::Connect, Reason::Unreachable),
            SessionError::NoAddress | SessionError::Connect(_) | SessionError::Untrusted(_) => {
                (Failure::Unreachable, Reason::Unreachable)
            }
        };
        // What it says of addresses and keys is for the log, not for programs.
        tracing::debug!(%error, "a call did not reach its endpoint's host");
        Self::Failure(failure, reason, String::new())
    }
}

impl From<Served> for Came {
    fn from(served: Served) -> Self {
        match served {
            Ok(answer) => Self::Answer(answer),
            Err((reason, detail)) => match outcome_of_reason(reason) {
                Outcome::Failed(failure) => Self::Failure(failure, reason, detail),
                _ => Self::Failure(Failure::Error, reason, detail),
            },
        }
    }
}

/// What an answer that the mesh made at the other end says of the endpoint.
pub(crate) const fn outcome_of_reason(reason: Reason) -> Outcome {
    match reason {
        Reason::Denied
        | Reason::UnknownWorkload
        | Reason::ClaimRefused
        | Reason::CutByPolicy
        | Reason::BadRequest
        | Reason::RequestStalled
        // It does its work, and for those who speak as it does.
        | Reason::ProtocolMismatch
        | Reason::AmbiguousPath => Outcome::NotJudged,
        Reason::Unhealthy => Outcome::Failed(Failure::Unhealthy),
        Reason::NotOffered
        | Reason::NoEndpoint
        | Reason::Unreachable
        | Reason::ConnectionRefused => Outcome::Failed(Failure::Connect),
        Reason::Overflow => Outcome::Failed(Failure::Shed),
        Reason::Broken => Outcome::Failed(Failure::Broken),
        Reason::Deadline => Outcome::Failed(Failure::Timeout),
    }
}

fn outcome_of_grpc(answer: &Response<ProxyBody>) -> Outcome {
    let status = answer.headers().get(grpc::GRPC_STATUS);
    match status.and_then(|status| status.to_str().ok()?.parse().ok()) {
        Some(code) => Outcome::of_grpc(code),
        None if answer.status() == http::StatusCode::OK => Outcome::Begun,
        None => Outcome::of_status(answer.status().as_u16()),
    }
}
