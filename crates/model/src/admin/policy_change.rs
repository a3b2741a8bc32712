//! What a new policy changes: in its text by rule and service, and between the hosts of a fleet.

use serde::{Deserialize, Serialize};

/// What differs between two bundles, whatever the order and the files that things are written in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyDiff {
    /// Rules in the order of the new bundle, then those that went; services and tests likewise.
    pub changes: Vec<PolicyChange>,
}

/// One rule, service or test that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyChange {
    /// What it is.
    pub kind: PolicyItem,
    /// A rule's id, a service's name, a test as it is written.
    pub name: String,
    /// What became of it.
    pub change: ChangeKind,
    /// `file:line` where it stands; of what went, where it stood.
    pub source: String,
    /// What differs in it; of what came or went, all of it.
    pub parts: Vec<PartChange>,
}

/// What a bundle is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyItem {
    /// An allow or a deny.
    Rule,
    /// A name with endpoints.
    Service,
    /// What the bundle promises of itself.
    Test,
}

/// What became of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// Only the new bundle has it.
    Added,
    /// Only the old bundle has it.
    Removed,
    /// Both have it, and it is not the same.
    Changed,
}

/// One part of a rule or service, as sets: order means nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartChange {
    /// `effect from to traffic` of a rule, `port protocol endpoints` of a service, `rule` of a test.
    pub part: String,
    /// What only the new one says.
    pub added: Vec<String>,
    /// What only the old one says.
    pub removed: Vec<String>,
}
