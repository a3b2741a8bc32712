//! Answers that the mesh makes in a program's place: short, with the reason and the call's id, and
//! nothing of what the policy holds.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

use crate::grpc;
use crate::marks::{self, CallId};

/// Why the mesh answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No rule allows the call, or one denies it.
    Denied,
    /// A rule allows a workload, and nobody knows which this is.
    UnknownWorkload,
    /// The source host may not vouch for the workload.
    ClaimRefused,
    /// The head of the request can be read in two ways, or not at all.
    BadRequest,
    /// Its caller did not send the rest of the request in time.
    RequestStalled,
    /// Policy reads the path, and it can mean two things.
    AmbiguousPath,
    /// The host does not offer what was called.
    NotOffered,
    /// The program there fails its health checks.
    Unhealthy,
    /// Every endpoint is down, or there is none.
    NoEndpoint,
    /// As many calls as there may be are under way.
    Overflow,
    /// No session to the endpoint's host.
    Unreachable,
    /// The program there takes no connection.
    ConnectionRefused,
    /// The answer broke off before it began.
    Broken,
    /// The program there does not speak as the call does.
    ProtocolMismatch,
    /// No answer in time.
    Deadline,
    /// The policy has changed since, and does not allow it any more.
    CutByPolicy,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Denied,
        Self::UnknownWorkload,
        Self::ClaimRefused,
        Self::BadRequest,
        Self::RequestStalled,
        Self::AmbiguousPath,
        Self::NotOffered,
        Self::Unhealthy,
        Self::NoEndpoint,
        Self::Overflow,
        Self::Unreachable,
        Self::ConnectionRefused,
        Self::Broken,
        Self::ProtocolMismatch,
        Self::Deadline,
        Self::CutByPolicy,
    ];

    /// Returns the name in headers, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::UnknownWorkload => "unknown-workload",
            Self::ClaimRefused => "claim-refused",
            Self::BadRequest => "bad-request",
            Self::RequestStalled => "request-stalled",
            Self::AmbiguousPath => "ambiguous-path",
            Self::NotOffered => "not-offered",
            Self::Unhealthy => "unhealthy",
            Self::NoEndpoint => "no-endpoint",
            Self::Overflow => "overflow",
            Self::Unreachable => "unreachable",
            Self::ConnectionRefused => "connection-refused",
            Self::Broken => "broken",
            Self::ProtocolMismatch => "protocol-mismatch",
            Self::Deadline => "deadline",
            Self::CutByPolicy => "cut-by-policy",
        }
    }

    /// Whether the policy decided so.
    pub const fn is_of_policy(self) -> bool {
        matches!(
            self,
            Self::Denied | Self::UnknownWorkload | Self::ClaimRefused | Self::CutByPolicy
        )
    }

    /// Returns the reason of that name.
    pub fn of_name(name: &[u8]) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|reason| reason.name().as_bytes() == name)
    }

    /// Returns the status of the answer.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Denied | Self::UnknownWorkload | Self::ClaimRefused | Self::CutByPolicy => {
                StatusCode::FORBIDDEN
            }
            Self::BadRequest | Self::AmbiguousPath => StatusCode::BAD_REQUEST,
            Self::RequestStalled => StatusCode::REQUEST_TIMEOUT,
            Self::NotOffered
            | Self::Unhealthy
            | Self::NoEndpoint
            | Self::Overflow
            | Self::Unreachable
            | Self::ConnectionRefused => StatusCode::SERVICE_UNAVAILABLE,
            Self::Broken | Self::ProtocolMismatch => StatusCode::BAD_GATEWAY,
            Self::Deadline => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Returns the status of the answer to a call of gRPC.
    pub(crate) const fn grpc_status(self) -> u8 {
        match self {
            // Another attempt would come to the same.
            Self::ProtocolMismatch => grpc::UNIMPLEMENTED,
            _ => grpc::status_for(self.status()),
        }
    }

    /// Returns what a person reads.
    const fn text(self) -> &'static str {
        match self {
            Self::Denied => "the policy does not allow this call",
            Self::UnknownWorkload => {
                "the policy allows a workload, and this caller is of none that is known"
            }
            Self::ClaimRefused => "the calling host may not speak for the workload that it names",
            Self::BadRequest => "the request is malformed",
            Self::RequestStalled => "the caller did not send the rest of its request in time",
            Self::AmbiguousPath => {
                "rules about this service look at paths, and this one can be read in two ways"
            }
            Self::NotOffered => "the host does not offer this service",
            Self::Unhealthy => "the program at the endpoint fails its health checks",
            Self::NoEndpoint => "no endpoint of the service is up",
            Self::Overflow => "too many calls of the service are under way",
            Self::Unreachable => "the endpoint's host cannot be reached",
            Self::ConnectionRefused => "the program at the endpoint takes no connection",
            Self::Broken => "the connection to the endpoint broke",
            Self::ProtocolMismatch => {
                "the program at the endpoint does not speak the protocol of the call"
            }
            Self::Deadline => "the endpoint did not answer in time",
            Self::CutByPolicy => "the policy has changed and does not allow this call any more",
        }
    }

    /// Returns the answer to a request; gRPC calls get theirs in the form that they read.
    pub fn answer(self, call: CallId, is_grpc: bool, detail: &str) -> Response<Bytes> {
        let (text, colon) = (self.text(), if detail.is_empty() { "" } else { ": " });
        let message = format!("mesh: {text}{colon}{detail} (call {call})");
        let mut answer = if is_grpc {
            grpc_answer(self.grpc_status(), &message)
        } else {
            let mut answer = Response::new(Bytes::from(message + "\n"));
            *answer.status_mut() = self.status();
            let plain = HeaderValue::from_static("text/plain; charset=utf-8");
            answer.headers_mut().insert(CONTENT_TYPE, plain);
            answer
        };
        let headers = answer.headers_mut();
        headers.insert(marks::REASON, HeaderValue::from_static(self.name()));
        headers.insert(marks::CALL, call.header());
        match self {
            // What follows on the connection cannot be trusted to be where it seems.
            Self::BadRequest | Self::RequestStalled if !is_grpc => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Self::Overflow if !is_grpc => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        answer
    }
}

/// An answer without a body: a client of gRPC looks at nothing else.
fn grpc_answer(status: u8, message: &str) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::new());
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, grpc::GRPC_TYPE);
    headers.insert(grpc::GRPC_STATUS, HeaderValue::from(u16::from(status)));
    if let Ok(message) = HeaderValue::from_str(&percent_encode(message)) {
        headers.insert(grpc::GRPC_MESSAGE, message);
    }
    answer
}

/// What gRPC wants of its messages: visible ASCII but the percent sign.
fn percent_encode(message: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => write!(encoded, "%{byte:02X}").expect("a String takes everything"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_known_by_its_name() {
        for reason in Reason::ALL {
            assert_eq!(Reason::of_name(reason.name().as_bytes()), Some(reason));
        }
        assert_eq!(Reason::of_name(b"none"), None);
    }

    #[test]
    fn an_answer_has_its_reason_and_id() {
        let call = CallId::from_number(0xab);
        let answer = Reason::Denied.answer(call, false, "");
        assert_eq!(answer.status(), 403);
        assert_eq!(answer.headers()["mesh-reason"], "denied");
        assert_eq!(answer.headers()["mesh-call"], "00000000000000ab");
        let text = String::from_utf8(answer.into_body().to_vec()).unwrap();
        assert!(text.contains("(call 00000000000000ab)"), "{text}");
    }

    #[test]
    fn a_grpc_client_finds_its_status_where_it_looks() {
        let answer = Reason::Deadline.answer(CallId::from_number(1), true, "50% é");
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["grpc-status"], "4");
        let message = answer.headers()["grpc-message"].to_str().unwrap();
        assert!(message.contains("50%25 %C3%A9"), "{message}");
        assert!(answer.body().is_empty());
    }
}
