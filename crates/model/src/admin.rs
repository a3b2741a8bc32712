//! The coordinator's admin API as JSON: what `meshctl` asks and what it is answered.
//! `docs/` has the paths; the types are here, so that both ends share them.

use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::address::HostAddresses;
use crate::ids::{FleetId, HostId, PolicyVersion, Revision, TokenId};
use crate::key::WireguardKey;
use crate::name::{Labels, Name};
use crate::pair::PairFacts;
use crate::question::{CallFacts, Verdict};

mod audit;
mod authority;
mod backup;
mod host_changes;
mod operators;
mod planning;
mod policy_change;
mod recovery;

pub use audit::{AuditChange, AuditEntry, AuditOutcome, AuditPage, AuditQuery};
pub use authority::{AuthorityView, RetireAuthority, RootView, UnmovedHost};
pub use backup::{Backup, BackupEntry};
pub use host_changes::{RemovedHost, RemovedHostView, RenameHost};
pub use operators::{AdminCredential, AdminView, CreateAdmin, CreatedAdmin, Role};
pub use planning::{PlanRequest, PlannedPolicy};
pub use policy_change::{
    CauseEffect, ChangeKind, PartChange, PlanCause, PlanChange, PlanGroup, PlanPair, PlanWarning,
    PlanWarningKind, PolicyChange, PolicyDiff, PolicyItem, PolicyPlan,
};
pub use recovery::{FinishRecovery, RecoveryStatus, StartRecovery};

/// Every answer that is not a success: HTTP 400, 401, 403, 404, 409, 422, 429, 503.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// `invalid denied not_found conflict exhausted unavailable`
    pub code: String,
    /// What failed, why, what to try.
    pub message: String,
    /// Lines of a policy that are wrong, where that is the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<DiagnosticView>,
}

/// `GET /v1/status` for a local user who is neither root nor in group `mesh`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CoordinatorVersion {
    /// Of `mesh-coordinator`.
    pub version: String,
}

/// `GET /v1/status`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CoordinatorStatus {
    /// Of `mesh-coordinator`.
    pub version: String,
    /// The fleet's id.
    pub fleet: FleetId,
    /// The fleet's name, its SPIFFE trust domain.
    pub fleet_name: Name,
    /// What follows names in DNS.
    pub dns_suffix: String,
    /// IPv4 prefix of the overlay.
    #[schemars(with = "String")]
    pub overlay_v4: ipnet::Ipv4Net,
    /// IPv6 prefix of the overlay.
    #[schemars(with = "String")]
    pub overlay_v6: ipnet::Ipv6Net,
    /// SHA-256 of the root certificate, hex: what tokens pin.
    pub root_pin: String,
    /// The revision of the last change.
    pub revision: Revision,
    /// Members.
    pub hosts: usize,
    /// Members with an open `Sync` stream.
    pub hosts_online: usize,
    /// The policy in force.
    pub policy: PolicyVersion,
    /// Where hosts and operators reach it, `host:port`, in the order of trying.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Machines that in the last minutes said that they do not believe what this coordinator shows, as
    /// anybody who reaches its port can.
    #[serde(default)]
    pub disbelieving: usize,
    /// What an operator should look at on the coordinator's machine.
    #[serde(default)]
    pub alarms: Vec<String>,
}

/// `POST /v1/tokens`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// Given to each host that joins with the token.
    #[serde(default)]
    pub labels: Labels,
    /// How many hosts may join with it; `None`: any number until it expires.
    #[serde(default)]
    pub uses: Option<u32>,
    /// How long it is good for, in seconds; at most a year.
    pub valid_for_secs: u64,
    /// Names that may be taken: each a name, or a prefix ending in `*`. Empty: any.
    #[serde(default)]
    pub names: Vec<String>,
    /// For people.
    #[serde(default)]
    pub comment: String,
}

/// The answer to `CreateToken`, the only time that the token itself is shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CreatedToken {
    /// What `meshctl join` takes.
    pub token: String,
    /// Its description.
    #[serde(flatten)]
    pub view: TokenView,
}

impl std::fmt::Debug for CreatedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedToken")
            .field("view", &self.view)
            .finish_non_exhaustive()
    }
}

/// One row of `GET /v1/tokens`. `DELETE /v1/tokens/ID` revokes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenView {
    /// Not secret.
    pub id: TokenId,
    /// Given to each host that joins with it.
    pub labels: Labels,
    /// How many hosts may join with it.
    pub uses: Option<u32>,
    /// How many did.
    pub used: u32,
    /// Unix seconds.
    pub created_secs: u64,
    /// Unix seconds.
    pub expires_secs: u64,
    /// It was revoked.
    pub revoked: bool,
    /// Names that may be taken.
    pub names: Vec<String>,
    /// For people.
    pub comment: String,
}

/// One row of `GET /v1/hosts`, and `GET /v1/hosts/NAME`. `DELETE /v1/hosts/NAME` removes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostView {
    /// For ever.
    pub id: HostId,
    /// Now.
    pub name: Name,
    /// Set by operators.
    pub labels: Labels,
    /// Overlay addresses.
    #[serde(flatten)]
    pub addresses: HostAddresses,
    /// Its public key.
    pub wireguard_key: WireguardKey,
    /// It has an open `Sync` stream.
    pub online: bool,
    /// Unix seconds of the enrolment.
    pub joined_secs: u64,
    /// Unix seconds when its stream was last open; `None`: not since the coordinator started.
    pub last_seen_secs: Option<u64>,
    /// Of its `meshd`, as it says.
    pub software_version: Option<String>,
    /// Where it may be reached.
    pub endpoints: Vec<SocketAddr>,
    /// What is in force there, as it says.
    pub applied_policy: Option<PolicyVersion>,
    /// Why its last map could not be applied, as it says.
    pub apply_error: Option<String>,
    /// Why it is not in the overlay although it is online, as it says.
    #[serde(default)]
    pub trouble: Option<String>,
}

/// `PUT /v1/hosts/NAME/labels`: the whole set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetLabels {
    /// Replaces the labels of the host.
    pub labels: Labels,
    /// What they replace, as far as the caller knows; refused when the host has others by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Labels>,
}

/// One file of a bundle's directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// Relative to the directory.
    pub path: String,
    /// YAML.
    pub text: String,
}

/// `POST /v1/policy`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyPolicy {
    /// The whole directory.
    pub files: Vec<PolicyFile>,
    /// The version that the change was made on; refused when another is in force. `None`: any.
    #[serde(default)]
    pub base: Option<PolicyVersion>,
    /// For the history.
    #[serde(default)]
    pub message: String,
    /// Check and test against the fleet, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// `POST /v1/policy/rollback`: makes a new version with the content of an old one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackPolicy {
    /// Whose content.
    pub to: PolicyVersion,
    /// As in `ApplyPolicy`.
    #[serde(default)]
    pub base: Option<PolicyVersion>,
    /// For the history; empty: which version it is back to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Check and test against the fleet, and change nothing.
    #[serde(default, skip_serializing_if = "is_not_set")]
    pub dry_run: bool,
}

/// An earlier coordinator is not asked for what it does not know.
fn is_not_set(flag: &bool) -> bool {
    !flag
}

/// The answer to both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AppliedPolicy {
    /// The new version; the one in force when nothing changed.
    pub version: PolicyVersion,
    /// A new version was made: the content differs and it was no dry run.
    pub changed: bool,
    /// What deserves a look.
    pub diagnostics: Vec<DiagnosticView>,
    /// Tests that passed.
    pub tests_passed: usize,
}

/// One thing that is wrong with a policy, or deserves a look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiagnosticView {
    /// `error` or `warning`
    pub severity: String,
    /// Relative to the directory.
    pub file: String,
    /// From 1; 0: the whole file.
    pub line: u32,
    /// From 1; 0: the whole line.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What to try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// One row of `GET /v1/policy/versions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyVersionView {
    /// From 1.
    pub version: PolicyVersion,
    /// Unix seconds.
    pub created_secs: u64,
    /// Who applied it.
    pub author: String,
    /// What they said.
    pub message: String,
    /// SHA-256 over its content, hex.
    pub content_digest: String,
    /// It is in force.
    pub current: bool,
}

/// `GET /v1/policy/versions/N`, and `GET /v1/policy` for the one in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyContent {
    /// Its row.
    #[serde(flatten)]
    pub view: PolicyVersionView,
    /// The directory as it was applied.
    pub files: Vec<PolicyFile>,
}

/// `GET /v1/policy/rollout`: where the current version is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rollout {
    /// The version.
    pub version: PolicyVersion,
    /// Members of the fleet.
    pub hosts: usize,
    /// Hosts that enforce it.
    pub in_force: usize,
    /// Online hosts that do not yet.
    pub pending: Vec<Name>,
    /// Hosts without a stream.
    pub offline: Vec<Name>,
    /// Hosts that could not apply it, and why.
    pub failed: Vec<RolloutFailure>,
}

/// A host that could not apply a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RolloutFailure {
    /// The host.
    pub host: Name,
    /// As it says.
    pub error: String,
}

/// `POST /v1/why`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhyRequest {
    /// A host.
    pub from: String,
    /// A host or a service.
    pub to: String,
    /// `tcp udp icmp`; empty: the service's own, and of a host TCP.
    #[serde(default)]
    pub protocol: String,
    /// Destination port; `None` for ICMP, and for a service: its own.
    #[serde(default)]
    pub port: Option<u16>,
    /// What is known of the call.
    #[serde(default, skip_serializing_if = "CallFacts::is_empty")]
    pub call: CallFacts,
}

/// The answer: what the policy says, and what each end says that it enforces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WhyReport {
    /// Who was asked about.
    pub from: Name,
    /// The host or endpoint that was asked about.
    pub to: Name,
    /// Its overlay addresses.
    pub addresses: Vec<IpAddr>,
    /// `tcp udp icmp`
    pub protocol: String,
    /// Destination port, 0 for ICMP.
    pub port: u16,
    /// The service that was asked about; `to` is one of its endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Name>,
    /// By the version in force at the coordinator.
    pub policy: Decision,
    /// What the source host says.
    pub source: EndAnswer,
    /// What the destination host says.
    pub destination: EndAnswer,
}

/// How a flow is decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Decision {
    /// Whether all calls that are asked about may pass.
    pub allowed: bool,
    /// Whether some may, where not everything is known of them; `None`: an older program answered of
    /// packets alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// What it is up to, for people: `the method`, `the header x-debug`, `which workload calls`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    /// The rule that decided; `None`: no rule allows it, or it depends.
    pub rule: Option<String>,
    /// `file:line` of the rule.
    pub rule_source: Option<String>,
    /// The version that decided.
    pub version: PolicyVersion,
    /// Near misses and more, for people.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// How one end decides, and what it knows of the way to the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EndReport {
    /// By what is in force there.
    #[serde(flatten)]
    pub decision: Decision,
    /// The way to the other end; `None`: it does not know the other end.
    pub pair: Option<PairFacts>,
}

/// What one end says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndAnswer {
    /// It answered.
    Answered(Box<EndReport>),
    /// It has no stream to the coordinator.
    Offline,
    /// It did not answer in time.
    Silent,
}
