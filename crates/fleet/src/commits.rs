//! Commits under way. Many are, at one time and answered in any order; three rules keep that right:
//!
//! - No two of them change or compare a key that another of them changes: the later request is
//!   parked and looked at again when the earlier one is through. So a coordinator is never in
//!   conflict with itself, and two requests for one name are decided in the order they came.
//! - What they changed is taken over in the order of the store's revisions, without gaps, whatever
//!   order the answers come in: a host that is told revision R knows everything up to R.
//! - A conflict with somebody else is tried again after a pause, a bounded number of times.

use std::collections::BTreeMap;
use std::time::Duration;

use model::store::{Committed, Key, StoreRevision, Transaction};
use model::time::Instant;

use crate::output::CommitId;
use crate::work::{Answer, Job};

/// How long a missing revision may hold up those after it until the store is listed anew. Answers
/// arrive milliseconds apart; a revision that is seconds late is one that nobody will report.
const GAP_PATIENCE: Duration = Duration::from_secs(2);

/// The pause before the first retry after a conflict; doubled each time.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug, Default)]
pub(crate) struct Commits {
    last: u64,
    in_flight: BTreeMap<CommitId, InFlight>,
    writers: BTreeMap<Key, CommitId>,
    parked: BTreeMap<CommitId, Vec<Job>>,
    parked_count: usize,
    retries: BTreeMap<(Instant, u64), Job>,
    held: BTreeMap<(StoreRevision, Option<CommitId>), Committed>,
    gap_since: Option<Instant>,
}

/// A commit that is not durable, or not taken over yet.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) job: Job,
    pub(crate) answer: Answer,
    writes: Vec<Key>,
    durable: bool,
    /// Of the `Appender`, when its entry of the audit log was planned.
    pub(crate) generation: u64,
}

impl Commits {
    /// Returns how many requests wait here.
    pub(crate) fn waiting(&self) -> usize {
        self.in_flight.len() + self.parked_count + self.retries.len()
    }

    /// Returns the commit under way that changes this key.
    pub(crate) fn writer(&self, key: &Key) -> Option<CommitId> {
        self.writers.get(key).copied()
    }

    /// Returns a commit under way that changes a key which the transaction looks at.
    pub(crate) fn blocker(&self, transaction: &Transaction) -> Option<CommitId> {
        transaction
            .compare
            .iter()
            .find_map(|compare| self.writer(&compare.key))
    }

    /// Starts a commit that changes the keys `writes`; nothing under way may block it.
    pub(crate) fn begin(
        &mut self,
        job: Job,
        answer: Answer,
        writes: Vec<Key>,
        generation: u64,
    ) -> CommitId {
        self.last += 1;
        let id = CommitId(self.last);
        self.writers
            .extend(writes.iter().map(|key| (key.clone(), id)));
        self.in_flight.insert(
            id,
            InFlight {
                job,
                answer,
                writes,
                durable: false,
                generation,
            },
        );
        id
    }

    /// Keeps a request until a commit is through.
    pub(crate) fn park(&mut self, on: CommitId, job: Job) {
        debug_assert!(
            self.in_flight.contains_key(&on),
            "nobody wakes what waits for nothing"
        );
        self.parked_count += 1;
        self.parked.entry(on).or_default().push(job);
    }

    /// Takes a commit away, with the requests that waited for it.
    pub(crate) fn end(&mut self, id: CommitId) -> Option<(InFlight, Vec<Job>)> {
        let flight = self.in_flight.remove(&id)?;
        for key in &flight.writes {
            self.writers.remove(key);
        }
        let parked = self.parked.remove(&id).unwrap_or_default();
        self.parked_count -= parked.len();
        Some((flight, parked))
    }

    /// Returns whether the outcome of this commit is awaited.
    pub(crate) fn awaits(&self, id: CommitId) -> bool {
        self.in_flight
            .get(&id)
            .is_some_and(|flight| !flight.durable)
    }

    /// Keeps what the store did until everything before it is known.
    pub(crate) fn hold(&mut self, committed: Committed, by: Option<CommitId>) {
        if let Some(flight) = by.and_then(|id| self.in_flight.get_mut(&id)) {
            flight.durable = true;
        }
        self.held.insert((committed.revision, by), committed);
    }

    /// Returns the next of the held, when everything before it up to `applied` is known.
    pub(crate) fn next_in_order(
        &mut self,
        applied: StoreRevision,
        now: Instant,
    ) -> Option<(Committed, Option<CommitId>)> {
        let (&(revision, by), _) = self.held.first_key_value()?;
        if revision > applied.next() {
            self.gap_since.get_or_insert(now);
            return None;
        }
        self.gap_since = None;
        let committed = self
            .held
            .remove(&(revision, by))
            .expect("it was the first just now");
        Some((committed, by))
    }

    /// Returns when the store has to be listed because a revision is missing.
    pub(crate) fn gap_deadline(&self) -> Option<Instant> {
        self.gap_since.map(|since| since + GAP_PATIENCE)
    }

    /// Returns once per `GAP_PATIENCE` that the store has to be listed.
    pub(crate) fn take_overdue_gap(&mut self, now: Instant) -> bool {
        let overdue = self.gap_deadline().is_some_and(|deadline| deadline <= now);
        if overdue {
            self.gap_since = Some(now);
        }
        overdue
    }

    /// Keeps a request that met a conflict for a while that grows with its conflicts.
    pub(crate) fn retry_later(&mut self, job: Job, now: Instant) {
        self.last += 1;
        let pause = RETRY_PAUSE * 2u32.saturating_pow(job.conflicts.saturating_sub(1));
        self.retries.insert((now + pause, self.last), job);
    }

    /// Returns when the next request has to be tried again.
    pub(crate) fn retry_deadline(&self) -> Option<Instant> {
        self.retries.first_key_value().map(|(&(due, _), _)| due)
    }

    /// Takes the next request whose pause is over.
    pub(crate) fn take_due_retry(&mut self, now: Instant) -> Option<Job> {
        let entry = self.retries.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }
}
