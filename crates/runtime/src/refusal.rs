//! Refusals as HTTP and gRPC say them.

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
