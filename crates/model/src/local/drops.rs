//! Packets that went no further: why, how many, since when, and what that means.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Packets dropped for one reason, as `meshctl status` shows them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DropCount {
    /// The reason, as in the metrics.
    pub reason: String,
    /// Packets since the start.
    pub packets: u64,
}

/// `GET /v1/drops`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DropsView {
    /// Unix seconds when the daemon began to count.
    pub since_secs: u64,
    /// The reasons that occurred; the one that occurred last comes first.
    pub reasons: Vec<DropView>,
}

/// Packets dropped for one reason, with what it means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DropView {
    /// The reason, as in the metrics.
    pub reason: String,
    /// Packets since `DropsView::since_secs`.
    pub packets: u64,
    /// Packets within the last minute.
    pub last_minute: u64,
    /// Unix seconds of the first, to a few seconds.
    pub first_secs: u64,
    /// Unix seconds of the last, to a few seconds.
    pub last_secs: u64,
    /// What it is, a sentence.
    pub meaning: String,
    /// What to try, or why there is nothing to do.
    pub advice: String,
}
