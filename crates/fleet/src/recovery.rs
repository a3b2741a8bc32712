//! A coordinator whose store is behind its fleet, as after a restore from an old backup. It answers
//! nobody's orders until it has asked the hosts what they remember, stored what is newer than its
//! own (`merge`), and signed a new epoch (`epoch`), which beats everything from before it.
//!
//! ```text
//! a restore, or a host that proves it ──> recovering ──> every host has told, or an operator says so ──> new epoch
//!                                             │ ask each host, store what is newer, send it away for a moment
//! ```
//!
//! Hosts that come later are asked too, once: what they alone remember is stored if nothing of the
//! new epoch contradicts it. Nothing is believed that the fleet has not signed.

mod epoch;
mod merge;
mod policy;
mod recall;
mod statement;
mod testimony;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::admin::RecoveryStatus;
use model::control::RefusalCode;
use model::ids::HostId;
use model::name::Name;
use model::record::HostRecord;
use model::store::{Operation, Transaction};
use model::time::{Instant, Now};

use crate::audit::Stamp;
use crate::fleet::Fleet;
use crate::keys::Place;
use crate::output::{Rejection, Reply};
use crate::request::{AdminRequest, Caller};
use crate::stored::{StoredRecovery, encode};
use crate::work::{Answer, Draft, Job, Origin, Plan, Work};

pub(crate) use merge::{Remembered, UNKNOWN_KEY};
pub(crate) use statement::LaterStatement;
pub use testimony::{Hearsay, Testimony};

use policy::RecalledPolicy;
use recall::Recalls;

/// When what could not be stored is tried again.
const STORE_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// What hosts have told since this program started.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    recalls: Recalls,
    /// They told everything.
    heard: BTreeSet<HostId>,
    /// Newer than what is stored, and not stored yet; one for each host, the newest.
    records: BTreeMap<HostId, Remembered>,
    tombstones: BTreeMap<HostId, Remembered>,
    /// One of them is being stored.
    is_storing: bool,
    /// The epoch is being signed.
    is_finishing: bool,
    again_at: Option<Instant>,
    newest_epoch: u64,
    /// A trust statement that is later than all stored ones, and not stored yet.
    statement: Option<LaterStatement>,
    stored: usize,
    policy: RecalledPolicy,
}

impl Recovery {
    /// Returns when something has to be looked at again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let recalls = self.recalls.deadline();
        [self.again_at, recalls].into_iter().flatten().min()
    }

    pub(crate) fn pending(&self) -> usize {
        let statement = usize::from(self.statement.is_some());
        self.records.len() + self.tombstones.len() + statement + usize::from(self.is_storing)
    }

    fn take_next(&mut self) -> Option<Remembered> {
        let gone = self.tombstones.pop_first();
        gone.or_else(|| self.records.pop_first())
            .map(|(_, remembered)| remembered)
    }

    /// Returns whether this record of a host, or a later one, waits to be stored.
    fn has_record(&self, record: &HostRecord) -> bool {
        let known = self.records.get(&record.host);
        known.is_some_and(|known| known.revision() >= record.revision)
    }

    fn has_tombstone(&self, host: HostId) -> bool {
        self.tombstones.contains_key(&host)
    }

    /// Keeps the newest of what is told of a host.
    fn put(&mut self, remembered: Remembered) {
        let kept = match &remembered {
            Remembered::Host { .. } => &mut self.records,
            Remembered::Gone { .. } => &mut self.tombstones,
        };
        let host = remembered.host();
        let known = kept.get(&host).map(Remembered::revision);
        if known.is_none_or(|known| known < remembered.revision()) {
            kept.insert(host, remembered);
        }
    }
}

/// Returns what has to happen to a store that was restored, before a fleet is made of it: its
/// coordinator asks the hosts first what they remember.
pub fn restored(why: &str, now: Now) -> Transaction {
    let begun = StoredRecovery {
        why: why.to_owned(),
        began: Stamp::new("restore", now.unix),
        statement: None,
    };
    Transaction {
        compare: Vec::new(),
        operations: vec![Operation::put(Place::Recovery.key(), encode(&begun))],
    }
}

impl Fleet {
    pub(crate) fn is_recovering(&self) -> bool {
        self.state.recovery.is_some()
    }

    /// Refuses what would be built on a store that knows too little.
    pub(crate) fn check_not_recovering(&self) -> Result<(), Rejection> {
        let Some(recovery) = &self.state.recovery else {
            return Ok(());
        };
        let text = format!(
            "this coordinator takes up what its hosts remember, since {}: nothing is changed until \
             all have told it, or `meshctl recovery finish` says that the rest is not waited for \
             (`meshctl recovery` shows who is missing)",
            recovery.why
        );
        Err(Rejection::new(RefusalCode::Unavailable, text))
    }

    /// Begins to ask the hosts: this store is behind them.
    pub(crate) fn plan_recovery(
        &mut self,
        caller: &Caller,
        why: &str,
        now: Now,
    ) -> Result<Plan, Rejection> {
        if self.is_recovering() {
            return Ok(Plan::Answer(Reply::Recovery(self.recovery_status())));
        }
        let mut draft = Draft::new(&self.state);
        let begun = StoredRecovery {
            why: why.to_owned(),
            began: Stamp::new(&caller.name, now.unix),
            statement: None,
        };
        draft.put(Place::Recovery.key(), &begun);
        Ok(Plan::Commit {
            transaction: draft.finish(),
            answer: Answer::Recovery,
        })
    }

    pub(crate) fn recovery_status(&self) -> RecoveryStatus {
        let hosts = self.state.hosts.values();
        let heard = &self.recovery.heard;
        let mut missing: Vec<Name> = hosts
            .filter(|host| !heard.contains(&host.record.host))
            .map(|host| host.record.name.clone())
            .collect();
        missing.sort();
        let is_under_way = self.is_recovering();
        RecoveryStatus {
            under_way: is_under_way,
            why: self.state.recovery.as_ref().map(|it| it.why.clone()),
            epoch: self.state.statement.epoch,
            hosts: self.state.hosts.len(),
            heard: self.state.hosts.len() - missing.len(),
            missing: if is_under_way { missing } else { Vec::new() },
            stored: self.recovery.stored,
            pending: self.recovery.pending(),
            recalled_policy: self.recovery.policy.version(),
            disbelieving: self.disbelieving,
        }
    }

    /// Returns how many members have not told what they remember; 0 when they are not asked.
    pub(crate) fn recovery_missing(&self) -> usize {
        if !self.is_recovering() {
            return 0;
        }
        let heard = &self.recovery.heard;
        let hosts = self.state.hosts.keys();
        hosts.filter(|host| !heard.contains(host)).count()
    }

    /// Refuses to end a recovery that has learned nothing: what the hosts know may contradict it.
    fn check_heard(&self) -> Result<(), Rejection> {
        let hosts = self.state.hosts.len();
        if hosts == 0 || !self.recovery.heard.is_empty() {
            return Ok(());
        }
        let text = format!(
            "none of {hosts} hosts has told what it remembers since this coordinator started{}: wait \
             until hosts come, or sign a new epoch on what is stored here alone, with `meshctl \
             recovery finish --force`",
            self.disbelief_text()
        );
        Err(Rejection::new(RefusalCode::Conflict, text))
    }

    fn disbelief_text(&self) -> String {
        match self.disbelieving {
            0 => String::new(),
            machines => format!(
                ", and {machines} machines say that they do not believe its certificate; if they are \
                 hosts, it was restored from before the last rotation of the authority"
            ),
        }
    }

    /// The store says that the recovery began or ended.
    pub(crate) fn note_recovery(&mut self, was_recovering: bool, now: Now) {
        if was_recovering == self.is_recovering() {
            return;
        }
        if !was_recovering {
            for session in self.sessions.all() {
                let reason = "the coordinator asks its hosts what they remember; come back at once";
                self.dismiss(session, reason.to_owned(), now);
            }
            return;
        }
        // Who has told everything has nothing to tell again.
        self.recovery = Recovery {
            recalls: std::mem::take(&mut self.recovery.recalls),
            heard: std::mem::take(&mut self.recovery.heard),
            stored: self.recovery.stored,
            ..Recovery::default()
        };
        let capacity = self.state.statement.overlay.capacity();
        // Hosts that nobody remembers got the addresses that came next: those are given last.
        self.address_cursor = (self.address_cursor.saturating_add(capacity / 2)) % capacity;
    }

    /// Stores the next of what was told; ends the recovery when everybody has told everything.
    pub(crate) fn tend_recovery(&mut self, now: Now) {
        // What could not be stored waits: when too much is under way, it fails at once.
        while !self.recovery.is_storing && self.recovery.again_at.is_none() {
            if self.store_later_statement(now) {
                continue;
            }
            let Some(next) = self.recovery.take_next() else {
                return self.finish_when_told(now);
            };
            if self.plan_merge(&next, now).is_some() {
                self.recovery.is_storing = true;
                self.accept(Origin::Nobody, Work::Merge(Box::new(next)), now);
            }
        }
    }

    fn finish_when_told(&mut self, now: Now) {
        let has_told = |id: &HostId| self.recovery.heard.contains(id);
        let is_over = self.is_recovering()
            && !self.recovery.is_finishing
            && !self.state.hosts.is_empty()
            && self.state.hosts.keys().all(has_told);
        if is_over {
            self.recovery.is_finishing = true;
            let work = Work::Admin {
                caller: Caller::new("recovery".to_owned(), model::admin::Role::Admin),
                request: AdminRequest::FinishRecovery { force: false },
            };
            self.accept(Origin::Nobody, work, now);
        }
    }

    /// Goes on after something that nobody asked for was done, or failed.
    pub(crate) fn after_own_work(&mut self, job: &Job, has_failed: bool, now: Now) {
        match &job.work {
            Work::Merge(remembered) => {
                self.recovery.is_storing = false;
                if has_failed {
                    self.recovery.put((**remembered).clone());
                    self.recovery.again_at = Some(now.monotonic + STORE_AGAIN_AFTER);
                } else {
                    self.recovery.stored += 1;
                    // What the old keys alone have signed is signed again while two roots are believed.
                    if self.is_rotating() {
                        self.sign_again_soon(now);
                    }
                    self.tend_recovery(now);
                }
            }
            Work::KeepStatement(told) => {
                self.recovery.is_storing = false;
                if has_failed {
                    self.note_later_statement((**told).clone());
                    self.recovery.again_at = Some(now.monotonic + STORE_AGAIN_AFTER);
                } else {
                    self.tend_recovery(now);
                }
            }
            Work::Admin {
                request: AdminRequest::FinishRecovery { .. },
                ..
            } => {
                self.recovery.is_finishing = false;
                if has_failed {
                    self.recovery.again_at = Some(now.monotonic + STORE_AGAIN_AFTER);
                }
            }
            Work::ChangeCiphers(portion) => self.after_changing_ciphers(portion, has_failed, now),
            work => self.after_rotation_work(work, has_failed, now),
        }
    }

    pub(crate) fn expire_recovery(&mut self, now: Now) {
        self.expire_recalls(now);
        if self
            .recovery
            .again_at
            .is_some_and(|due| due <= now.monotonic)
        {
            self.recovery.again_at = None;
            self.tend_recovery(now);
        }
    }
}
