//! The body of a request: JSON of bounded size that has to come in time. Unknown keys are errors
//! by the types that it is read as.

use std::time::Duration;

use axum::body::{Bytes, to_bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use model::control::{Refusal, RefusalCode};
use model::limits::Limits;
use serde::de::DeserializeOwned;

use super::answer::Failure;

/// Bytes of a body: a bundle's files, each line of them escaped, and the rest.
const BODY_BYTES_MAX: usize = 2 * Limits::BUNDLE_BYTES + (1 << 20);
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Reads the whole body.
pub(super) async fn read(request: Request) -> Result<Bytes, Failure> {
    let read = to_bytes(request.into_body(), BODY_BYTES_MAX);
    match tokio::time::timeout(BODY_TIMEOUT, read).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(too_large()),
        Err(_) => Err(too_slow()),
    }
}

/// Reads a body as what it is expected to be.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|error| not_understood(&error))
}

fn too_large() -> Failure {
    let message = format!("the request is cut off, or has more than {BODY_BYTES_MAX} bytes");
    Failure::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        Refusal::new(RefusalCode::Exhausted, message),
    )
}

fn too_slow() -> Failure {
    let message = format!(
        "the request did not arrive within {} s",
        BODY_TIMEOUT.as_secs()
    );
    Failure::new(
        StatusCode::REQUEST_TIMEOUT,
        Refusal::new(RefusalCode::Unavailable, message),
    )
}

fn not_understood(error: &serde_json::Error) -> Failure {
    let message = format!(
        "the request is not understood: {error}; do the versions of meshctl and mesh-coordinator fit?"
    );
    Failure::new(
        StatusCode::BAD_REQUEST,
        Refusal::new(RefusalCode::Invalid, message),
    )
}
