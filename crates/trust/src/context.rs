//! What a signature is for. To be signed is `context || 0x00 || payload`, so that a signature over
//! one kind of payload is never one over another. X.509 needs no context: what it signs begins with
//! 0x30, no context does.

/// The kind of a signed payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context(&'static str);

/// A `model::record::TrustStatement`; signed by a root key.
pub const TRUST_STATEMENT: Context = Context("mesh.v1.trust-statement");
/// A `model::record::HostRecord`; signed by a record key.
pub const HOST_RECORD: Context = Context("mesh.v1.host-record");
/// A `model::record::Tombstone`; signed by a record key.
pub const TOMBSTONE: Context = Context("mesh.v1.tombstone");
/// A `model::record::MapHead`; signed by a record key.
pub const MAP_HEAD: Context = Context("mesh.v1.map-head");
/// A `model::record::BundleHead`; signed by a record key.
pub const BUNDLE_HEAD: Context = Context("mesh.v1.bundle-head");

impl Context {
    /// Returns what is signed.
    pub(crate) fn to_be_signed(self, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + payload.len());
        bytes.extend_from_slice(self.0.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(payload);
        bytes
    }
}
