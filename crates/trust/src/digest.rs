//! SHA-256, plain and for a purpose.

use aws_lc_rs::digest::SHA256;
use model::ids::Digest;

/// Returns the SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> Digest {
    let value = aws_lc_rs::digest::digest(&SHA256, bytes);
    Digest::from_bytes(value.as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

/// Returns the SHA-256 of `context || 0x00 || bytes`, so that a digest for one purpose is never one
/// for another. The context has no zero byte.
pub fn digest(context: &[u8], bytes: &[u8]) -> Digest {
    sha256(&[context, &[0], bytes].concat())
}
