//! Who changed what, when, from where and why: each commit of this coordinator carries an entry of
//! the audit log in the same transaction, so that nothing is done without its entry and no entry
//! tells of what was not done. Refusals that matter have entries too, a bounded number per minute.
//!
//! `chain` is the log as it is stored, `append` how an entry gets into a transaction, `deed` who asked
//! what, `describe` what a transaction changes, `refusals` which refusals
//! are noted, `pages` what readers get.

mod append;
mod chain;
mod deed;
mod describe;
mod pages;
mod refusals;

use model::time::UnixTime;
use serde::{Deserialize, Serialize};

pub(crate) use append::{Appender, first_entry};
pub(crate) use chain::Chain;
pub(crate) use deed::Deed;
pub(crate) use refusals::Refusals;

/// Who did something, and when; stands beside every stored change.
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
