//! A coordinator that was restored, or is behind its fleet: what its hosts still have to tell.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::PolicyVersion;
use crate::name::Name;

/// `GET /v1/recovery`, and the answer to `POST /v1/recovery` and `POST /v1/recovery/finish`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecoveryStatus {
    /// Hosts are being asked what they remember; nothing else is changed meanwhile.
    pub under_way: bool,
    /// Why, for people.
    pub why: Option<String>,
    /// The epoch that is in force; raised at the end of a recovery.
    pub epoch: u64,
    /// Members, as far as is known.
    pub hosts: usize,
    /// Members that have told everything.
    pub heard: usize,
    /// Members that have not.
    pub missing: Vec<Name>,
    /// Records and tombstones that hosts remembered and that are stored since this program started.
    pub stored: usize,
    /// Those that are being stored.
    pub pending: usize,
    /// The policy version that hosts remember, when it is newer than the stored one.
    pub recalled_policy: Option<PolicyVersion>,
    /// Machines that in the last minutes said that they do not believe what this coordinator shows, as
    /// anybody who reaches its port can: hosts among them cannot tell what they remember.
    #[serde(default)]
    pub disbelieving: usize,
}

/// `POST /v1/recovery/finish`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FinishRecovery {
    /// Also when no host has told what it remembers.
    #[serde(default)]
    pub force: bool,
}

/// `POST /v1/recovery`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StartRecovery {
    /// Why it is known that the store is behind, for people.
    #[serde(default)]
    pub why: String,
}
