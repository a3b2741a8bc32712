//! SHA-256.

use aws_lc_rs::digest::{SHA256, digest};
use model::ids::Digest;

/// Returns the SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> Digest {
    let value = digest(&SHA256, bytes);
    Digest::from_bytes(value.as_ref().try_into().expect("SHA-256 has 32 bytes"))
}
