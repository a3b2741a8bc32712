//! Who did something, and when. Stands beside every stored change; the audit log will gather it.

use model::time::UnixTime;
use serde::{Deserialize, Serialize};

/// Who did something, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    /// An admin's name, `host NAME` or `token ID`.
    pub(crate) by: String,
    /// Unix seconds.
    pub(crate) at_secs: u64,
}

impl Stamp {
    pub(crate) fn new(by: impl Into<String>, at: UnixTime) -> Self {
        Self {
            by: by.into(),
            at_secs: at.as_secs(),
        }
    }
}
