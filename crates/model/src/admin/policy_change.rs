//! What a new policy changes: in its text by rule and service, and between the hosts of a fleet.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::Name;

/// What differs between two bundles, whatever the order and the files that things are written in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyDiff {
    /// Settings, then rules in the order of the new bundle, then those that went; services and tests
    /// likewise.
    pub changes: Vec<PolicyChange>,
}

/// One setting, rule, service or test that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyChange {
    /// What it is.
    pub kind: PolicyItem,
    /// A rule's id, a service's name, a test or setting as it is written.
    pub name: String,
    /// What became of it.
    pub change: ChangeKind,
    /// `file:line` where it stands; of what went, where it stood; empty for a setting.
    pub source: String,
    /// What differs in it; of what came or went, all of it.
    pub parts: Vec<PartChange>,
}

/// What a bundle is made of.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum PolicyItem {
    /// Something that holds for the whole fleet, such as `cipher: standard`.
    Setting,
    /// An allow or a deny.
    Rule,
    /// A name with endpoints.
    Service,
    /// Processes that rules can name.
    Workload,
    /// What the bundle promises of itself.
    Test,
}

/// What became of something.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PartChange {
    /// `effect from to traffic` of a rule, `port protocol endpoints` of a service, `rule` of a test.
    pub part: String,
    /// What only the new one says.
    pub added: Vec<String>,
    /// What only the old one says.
    pub removed: Vec<String>,
}

/// What a new policy would do to the hosts of a fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyPlan {
    /// Hosts that were looked at.
    pub hosts: usize,
    /// Ordered pairs of hosts that may do something new.
    pub pairs_gaining: u64,
    /// Ordered pairs of hosts that may no longer do something.
    pub pairs_losing: u64,
    /// What changes beside which packets may pass between hosts: settings of the fleet, rules about
    /// workloads, requests and hours, how services are called.
    #[serde(default)]
    pub settings: Vec<PolicyChange>,
    /// What changes, the most pairs first.
    pub groups: Vec<PlanGroup>,
    /// Groups with fewer pairs that are not in the list.
    pub groups_left_out: usize,
    /// Everything was looked at; else the numbers are lower bounds.
    pub complete: bool,
    /// What to look at before applying it, the worst first.
    pub warnings: Vec<PlanWarning>,
    /// Warnings that are not in the list.
    pub warnings_left_out: usize,
}

/// Pairs of hosts that gain or lose the same by the same rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanGroup {
    /// Gained or lost.
    pub change: PlanChange,
    /// `tcp 22`, `tcp 8000-8100`, `any udp port`, `icmp`, `other protocols`, or `everything`.
    pub traffic: Vec<String>,
    /// Who opens the flows: selectors of the rules.
    pub from: Vec<String>,
    /// Who is reached: selectors of the rules, or services.
    pub to: Vec<String>,
    /// The rules that make the difference.
    pub causes: Vec<PlanCause>,
    /// Ordered pairs of hosts.
    pub pairs: u64,
    /// Distinct hosts that open flows.
    pub from_hosts: usize,
    /// Distinct hosts that are reached.
    pub to_hosts: usize,
    /// Some of the pairs.
    pub examples: Vec<PlanPair>,
}

/// Which way access changes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum PlanChange {
    /// It becomes possible.
    Gain,
    /// It becomes impossible.
    Lose,
}

/// A rule that makes a difference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct PlanCause {
    /// Its id.
    pub rule: String,
    /// `file:line`, in the old bundle for what it does no longer.
    pub source: String,
    /// What it does.
    pub effect: CauseEffect,
}

/// What a rule does to a flow that it did not before.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum CauseEffect {
    /// An allow that is new or reaches further.
    Allows,
    /// An allow that is gone or reaches less far.
    AllowsNoLonger,
    /// A deny that is new or reaches further.
    Denies,
    /// A deny that is gone or reaches less far.
    DeniesNoLonger,
}

/// Two hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanPair {
    /// Who opens flows.
    pub from: Name,
    /// Who is reached.
    pub to: Name,
}

/// Something to look at before a policy is applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanWarning {
    /// What it is about.
    pub kind: PlanWarningKind,
    /// For people.
    pub message: String,
    /// The rule that it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// `file:line` of the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Some of the hosts that it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<Name>,
}

/// What a warning is about.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum PlanWarningKind {
    /// Hosts that could be reached by SSH cannot be any longer.
    CutsOwnWayIn,
    /// A new rule connects most pairs of hosts, so that every host has to know every other.
    AllToAll,
    /// A rule matches no pair of hosts, since one of its ends selects none.
    SelectsNoHost,
}

impl PlanWarningKind {
    /// Returns whether it may do harm; else something has no effect yet.
    pub const fn is_dangerous(self) -> bool {
        matches!(self, Self::CutsOwnWayIn | Self::AllToAll)
    }
}
