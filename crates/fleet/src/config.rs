//! What a fleet is started with, what bounds it, and why it may not start.

use std::time::Duration;

use model::address::OverlayPrefixes;
use model::ids::Digest;
use model::name::Name;
use model::store::Key;
use thiserror::Error;

use crate::turnstile::Admission;

/// How this coordinator serves the fleet. What all coordinators of a fleet share is in its store.
#[derive(Clone, Debug)]
pub struct FleetConfig {
    /// Version of `mesh-coordinator`.
    pub software_version: String,
    /// Where hosts reach this coordinator, `host:port`, 1 to `Limits::COORDINATOR_ADDRESSES`; goes
    /// in join tokens.
    pub advertise: Vec<String>,
    /// How fast members may open streams.
    pub streams: Admission,
    /// How fast hosts with a good token may join.
    pub enrolments: Admission,
    /// How fast one credential may ask; whoever is on the coordinator's own machine may always.
    pub callers: Admission,
}

impl FleetConfig {
    /// Returns the configuration of a coordinator that is reached at `advertise`, with the pace that
    /// suits two cores: a handshake and a hello cost about a millisecond.
    pub fn new(software_version: impl Into<String>, advertise: Vec<String>) -> Self {
        let pace = Admission {
            burst: FleetLimits::ADMISSION_BURST,
            per_sec: FleetLimits::ADMISSION_PER_SEC,
        };
        Self {
            software_version: software_version.into(),
            advertise,
            streams: pace,
            enrolments: pace,
            callers: Admission {
                burst: FleetLimits::CALLER_BURST,
                per_sec: FleetLimits::CALLER_PER_SEC,
            },
        }
    }
}

/// What is decided once, when a fleet is made.
#[derive(Clone, Debug)]
pub struct BootstrapConfig {
    /// The fleet's name, its SPIFFE trust domain.
    pub fleet_name: Name,
    /// The overlay; `None`: derived from the fleet's id.
    pub overlay: Option<OverlayPrefixes>,
    /// What follows names in DNS, without dots at the ends.
    pub dns_suffix: String,
}

/// The bounds of a fleet. Those of messages and records are `model::limits`'.
#[derive(Clone, Copy, Debug)]
pub struct FleetLimits;

impl FleetLimits {
    /// Requests under way at one time; one more is refused as `Unavailable`.
    pub const REQUESTS_MAX: usize = 16_384;
    /// Members that may open streams, and hosts that may join, at once after a quiet time; the next
    /// are told when to come back.
    pub const ADMISSION_BURST: u32 = 1000;
    /// How many a second from then on.
    pub const ADMISSION_PER_SEC: u32 = 500;
    /// Requests of one credential at once after a quiet time.
    pub const CALLER_BURST: u32 = 500;
    /// How many a second from then on.
    pub const CALLER_PER_SEC: u32 = 50;
    /// Attempts of one request whose commits meet conflicts; then it is refused as `Unavailable`.
    pub const ATTEMPTS_MAX: u32 = 5;
    /// Join tokens that exist at one time; one more is refused, unless an expired one can go.
    pub const TOKENS_MAX: usize = 16_384;
    /// How long a token may be good for.
    pub const TOKEN_VALID_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
    /// Name patterns of one token.
    pub const TOKEN_NAMES_MAX: usize = 64;
    /// Credentials for the admin API; one more is refused.
    pub const ADMINS_MAX: usize = 1024;
    /// How long a credential may be good for, where it is to expire.
    pub const ADMIN_VALID_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
    /// Entries of the audit log that the store keeps; beyond it the oldest goes with each new one. The
    /// program's log has them all.
    pub const AUDIT_ENTRIES_MAX: usize = 65_536;
    /// Policies that are being looked at, or wait for it; one more is refused as `Unavailable`. Each may
    /// hold `Limits::BUNDLE_BYTES` and the records of all hosts.
    pub const POLICY_WORKS_MAX: usize = 8;
    /// Policy versions whose content is kept; beyond it the oldest is forgotten.
    pub const POLICY_VERSIONS_MAX: usize = 256;
    /// Tombstones that are kept; beyond it the oldest is forgotten, and hosts that were away since
    /// before it get a whole map.
    pub const TOMBSTONES_MAX: usize = 16_384;
    /// Questions to hosts under way at one time; one more is refused as `Unavailable`.
    pub const QUESTIONS_MAX: usize = 1024;
    /// Addresses of one host that are remembered because peers saw it there; the newest stay.
    pub const OBSERVATIONS_PER_HOST: usize = 4;
    /// Former names of one host that are kept from others; with one more it is not renamed.
    pub const FORMER_NAMES_PER_HOST: usize = 16;
    /// Features that a host may name.
    pub const FEATURES_PER_HOST: usize = 64;
    /// Messages that a host may send at once, on one stream or several, and regains at
    /// `MESSAGES_PER_SEC`. A host that sends more is sent away.
    pub const MESSAGES_BURST: u32 = 16_384;
    /// See `MESSAGES_BURST`.
    pub const MESSAGES_PER_SEC: u64 = 256;
}

/// Why a fleet cannot be loaded from its store.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LoadError {
    /// The store has no fleet.
    #[error("the store holds no fleet; bootstrap one first")]
    Empty,
    /// The store belongs to another authority than the one given.
    #[error(
        "the store does not belong to the authority with root {given} ({why}); \
         put the files of one coordinator back together"
    )]
    OtherAuthority {
        /// The pin of the authority that was passed in.
        given: Digest,
        /// What does not fit.
        why: String,
    },
    /// A value cannot be read.
    #[error("the store's value of {key} cannot be used: {why}")]
    Value {
        /// Of the value.
        key: Key,
        /// What is wrong, what to try.
        why: String,
    },
    /// No address is advertised, or too many.
    #[error("{count} advertised addresses: a coordinator advertises 1 to {max}")]
    Advertise {
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
}
