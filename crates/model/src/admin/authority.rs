//! The fleet's authority as operators see it, and its change to other keys.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::Digest;
use crate::name::Name;

/// `GET /v1/authority`, and the answer to `POST /v1/authority/rotate` and `/v1/authority/retire`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuthorityView {
    /// The epoch of the trust statement in force.
    pub epoch: u64,
    /// The serial of the trust statement in force.
    pub serial: u64,
    /// The roots that it lists, the oldest first.
    pub roots: Vec<RootView>,
    /// Two roots are believed: the old one can be retired once every host has moved.
    pub rotating: bool,
    /// Members of the fleet.
    pub hosts: usize,
    /// Members that believe the newest root and have a certificate of it, on their disks.
    pub moved: usize,
    /// Members that have not moved, in the order of their names.
    pub missing: Vec<UnmovedHost>,
    /// Records, tombstones and policies that the newest root's keys still have to sign.
    pub to_sign: usize,
    /// Keys of retired roots that are still on the coordinator's disk; erasing them is tried until it
    /// works.
    pub to_erase: usize,
    /// Why they are still there, as the last attempt to erase them told.
    #[serde(default)]
    pub erase_trouble: Option<String>,
    /// Members that this retirement left behind; each has to join anew.
    #[serde(default)]
    pub left_behind: Vec<Name>,
}

/// A root of the fleet's authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RootView {
    /// SHA-256 of its certificate: what tokens and credentials pin.
    pub pin: Digest,
    /// Its certificate's name, for people.
    pub name: String,
    /// When it was made, in Unix seconds.
    pub made_secs: u64,
    /// When its certificate expires, in Unix seconds.
    pub expires_secs: u64,
}

/// A member that has not moved to the newest root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnmovedHost {
    /// Its name.
    pub name: Name,
    /// It is connected now.
    pub online: bool,
    /// When it was heard of last, in Unix seconds; absent: not since the coordinator started.
    pub last_seen_secs: Option<u64>,
    /// It believes the newest root, and has no certificate of it yet.
    pub believes: bool,
}

/// `POST /v1/authority/retire`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetireAuthority {
    /// Also when hosts are left behind that have not moved.
    #[serde(default)]
    pub force: bool,
}
