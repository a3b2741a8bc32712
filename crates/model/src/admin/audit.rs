//! The audit log as the admin API shows it: who changed what, from where and why, in a chain in which
//! each entry names the hash of the one before. `trust::audit` says what the hash is over.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::Digest;

/// One row of `GET /v1/audit`: something that was changed, or that somebody was not let do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditEntry {
    /// From 1, without gaps.
    pub number: u64,
    /// Unix seconds, by the coordinator's clock.
    pub at_secs: u64,
    /// An admin's name, `local:UID`, `host NAME` or `token ID`.
    pub who: String,
    /// An address, or `local socket`.
    pub from: String,
    /// What was asked, such as `host.labels`.
    pub action: String,
    /// What became of it.
    pub outcome: AuditOutcome,
    /// Why, as they said; of what was refused, why it was.
    pub reason: String,
    /// What is different afterwards.
    pub changes: Vec<AuditChange>,
    /// Hash of the entry before; zeros before the first.
    pub previous: Digest,
    /// Hash of this one, over everything above.
    pub hash: Digest,
}

/// What became of what was asked.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum AuditOutcome {
    /// It was done, with this entry in the same transaction.
    Done,
    /// It was refused. Not every refusal has an entry: their number per minute is bounded.
    Refused,
}

/// One thing that is different afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditChange {
    /// `host vm-1`, `token 7f3a…`, `policy`, `admin eve`.
    pub subject: String,
    /// What of it.
    pub field: String,
    /// What it was; absent: it did not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// What it is; absent: it is no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// `GET /v1/audit`: entries in their order.
///
/// Queries: `after=NUMBER` (only later ones), `since=UNIX_SECONDS`, `who=TEXT`, `limit=COUNT` (at most
/// [`AuditPage::LIMIT_MAX`]), `newest=true` (the last that fit, instead of the first).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditPage {
    /// Those that were asked for.
    pub entries: Vec<AuditEntry>,
    /// Number of the oldest entry that the coordinator still has; 0: there is none.
    pub first: u64,
    /// Number of the newest.
    pub last: u64,
    /// Hash of the newest.
    pub last_hash: Digest,
    /// There is more: ask again with this as `after`.
    pub next: Option<u64>,
}

impl AuditPage {
    /// Entries of one answer.
    pub const LIMIT_MAX: usize = 500;
    /// Entries of an answer when nobody says how many.
    pub const LIMIT_DEFAULT: usize = 100;
}

/// Which entries are asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuditQuery {
    /// Only those with a higher number.
    pub after: u64,
    /// Only those at or after this time, in Unix seconds.
    pub since: u64,
    /// Only those of this one.
    pub who: Option<String>,
    /// How many at most.
    pub limit: usize,
    /// The last that fit, instead of the first.
    pub newest: bool,
}

impl Default for AuditQuery {
    fn default() -> Self {
        Self {
            after: 0,
            since: 0,
            who: None,
            limit: AuditPage::LIMIT_DEFAULT,
            newest: false,
        }
    }
}
