//! What a host remembers of its fleet and tells a coordinator that may know less than it, as after
//! a restore from an old backup.

use crate::limits::Limits;
use crate::map::PolicySlice;
use crate::record::Signed;

/// A part of what a host remembers, everything as it was signed. All parts together hold what is
/// in the host's map; each fits in a message.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Memory {
    /// The `TrustStatement` that the host believes.
    pub trust: Signed,
    /// The host's own `HostRecord`.
    pub record: Signed,
    /// `HostRecord`s of its peers.
    pub records: Vec<Signed>,
    /// `Tombstone`s of hosts that are gone.
    pub tombstones: Vec<Signed>,
    /// Some leaves of the policy, not always the first among them.
    pub policy: Option<PolicySlice>,
    /// No more parts follow.
    pub last: bool,
}

impl Memory {
    /// Bytes of signed things and leaves in one part; the rest of a message is left to what every
    /// part carries and to framing.
    pub const PART_BYTES: usize = Limits::REPORT_BYTES / 2;
}
