//! Signs and verifies what hosts believe: trust statements, records, tombstones, policy bundles,
//! join tokens, enrolment proofs, certificates. What this crate promises:
//!
//! - A payload is decoded only after a signature over its very bytes holds, by a key that may sign
//!   this kind of payload for this fleet.
//! - The same inputs always give the same bytes: every signature is Ed25519, serial numbers and
//!   seeds are passed in, and nothing here reads a clock or rolls dice.
//! - Secrets are wiped when they are dropped, never printed, and compared in constant time.
//!
//! It decides nothing about fleets and hosts, and stores nothing: that is `fleet`'s and `agent`'s.

#![forbid(unsafe_code)]

pub mod anchors;
pub mod audit;
pub mod authority;
pub mod bundle;
pub mod certificate;
pub mod context;
pub mod digest;
pub mod enrolment;
mod issue;
pub mod key_change;
pub mod signing;
pub mod token;

pub use anchors::{TrustAnchors, TrustError};
pub use authority::{Authority, AuthorityKeys, AuthoritySeeds, CoordinatorIdentity, HostIdentity};
pub use bundle::BundleTree;
pub use digest::{digest, sha256};
pub use signing::SigningKey;
pub use token::JoinToken;

#[cfg(test)]
mod fixture;
