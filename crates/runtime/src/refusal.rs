//! Refusals as HTTP and gRPC say them.

use std::time::Duration;

use model::admin::ErrorBody;
use model::control::{Refusal, RefusalCode};
use tonic::{Code, Status};

/// Returns the HTTP status and body of a refusal.
pub fn to_http(refusal: Refusal) -> (u16, ErrorBody) {
    let (status, code) = match refusal.code {
        RefusalCode::Invalid => (422, "invalid"),
        RefusalCode::Denied => (403, "denied"),
        RefusalCode::NotFound => (404, "not_found"),
        RefusalCode::Conflict => (409, "conflict"),
        RefusalCode::Exhausted => (429, "exhausted"),
        RefusalCode::Unavailable => (503, "unavailable"),
    };
    (
        status,
        ErrorBody {
            code: code.into(),
            message: refusal.message,
            diagnostics: Vec::new(),
        },
    )
}

/// The metadata of a status that says when to try again, in milliseconds: what gRPC calls server
/// pushback (gRFC A6).
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// Returns the status of a refusal that says when to try again.
pub fn to_grpc_after(refusal: Refusal, retry_after: Option<Duration>) -> Status {
    let mut status = to_grpc(refusal);
    if let Some(wait) = retry_after {
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        status.metadata_mut().insert(PUSHBACK, millis.into());
    }
    status
}

/// Returns when to try again, if the status says so.
pub fn retry_after(status: &Status) -> Option<Duration> {
    let value = status.metadata().get(PUSHBACK)?.to_str().ok()?;
    value.parse().ok().map(Duration::from_millis)
}

/// Returns the gRPC status of a refusal.
pub fn to_grpc(refusal: Refusal) -> Status {
    let code = match refusal.code {
        RefusalCode::Invalid => Code::InvalidArgument,
        RefusalCode::Denied => Code::PermissionDenied,
        RefusalCode::NotFound => Code::NotFound,
        RefusalCode::Conflict => Code::AlreadyExists,
        RefusalCode::Exhausted => Code::ResourceExhausted,
        RefusalCode::Unavailable => Code::Unavailable,
    };
    Status::new(code, refusal.message)
}

/// Returns the refusal that a gRPC status stands for; `None`: the call itself went wrong.
pub fn from_grpc(status: &Status) -> Option<Refusal> {
    let code = match status.code() {
        Code::InvalidArgument => RefusalCode::Invalid,
        Code::PermissionDenied => RefusalCode::Denied,
        Code::NotFound => RefusalCode::NotFound,
        Code::AlreadyExists => RefusalCode::Conflict,
        Code::ResourceExhausted => RefusalCode::Exhausted,
        _ => return None,
    };
    Some(Refusal::new(code, status.message()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_to_come_back_survives_grpc() {
        let busy = || Refusal::new(RefusalCode::Unavailable, "busy");
        let wait = Some(Duration::from_millis(12_345));
        assert_eq!(retry_after(&to_grpc_after(busy(), wait)), wait);
        assert_eq!(retry_after(&to_grpc_after(busy(), None)), None);
    }

    #[test]
    fn refusals_survive_grpc() {
        for code in [
            RefusalCode::Invalid,
            RefusalCode::Denied,
            RefusalCode::NotFound,
            RefusalCode::Conflict,
            RefusalCode::Exhausted,
        ] {
            let refusal = Refusal::new(code, "why not");
            assert_eq!(from_grpc(&to_grpc(refusal.clone())), Some(refusal));
        }
        assert_eq!(
            from_grpc(&to_grpc(Refusal::new(RefusalCode::Unavailable, "later"))),
            None
        );
    }
}
