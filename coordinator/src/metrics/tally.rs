//! What the coordinator counts beside its brain: what came of requests, what hosts were sent, how long
//! the store took. Written where it happens, read by whoever asks, without a lock.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use fleet::{CommitError, Rejection, Unwelcome};
use model::admin::AuditOutcome;
use model::control::{RefusalCode, ToHost};
use runtime::metrics::Histogram;

/// Who is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// A host that wants to join.
    Joining,
    /// An operator.
    Operator,
}

/// What a host is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Welcome,
    Map,
    Certificate { granted: bool },
    Goodbye { comes_back: bool },
    Other,
}

impl Sent {
    /// Returns what a message is.
    pub(crate) fn of(message: &ToHost) -> Self {
        match message {
            ToHost::Welcome(_) => Self::Welcome,
            ToHost::Map(_) => Self::Map,
            ToHost::Certificate(renewed) => Self::Certificate {
                granted: renewed.is_ok(),
            },
            ToHost::Goodbye(goodbye) => Self::Goodbye {
                comes_back: goodbye.tombstone.is_none() && !goodbye.retry_after.is_zero(),
            },
            _ => Self::Other,
        }
    }
}

/// What came of a request, at its place.
pub(super) const OUTCOMES: [&str; 7] = [
    "done",
    "invalid",
    "denied",
    "not_found",
    "conflict",
    "exhausted",
    "unavailable",
];
/// What hosts are sent, at its place.
pub(super) const KINDS: [&str; 5] = ["welcome", "map", "certificate", "goodbye", "other"];

/// Counts at the places of their names.
#[derive(Debug)]
pub(super) struct Counts<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Counts<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl<const N: usize> Counts<N> {
    fn add(&self, place: usize, amount: u64) {
        self.0[place].fetch_add(amount, Ordering::Relaxed);
    }

    /// Returns each count with its name.
    pub(super) fn named(
        &self,
        names: [&'static str; N],
    ) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        names.into_iter().zip(counts)
    }
}

/// All counts.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(super) enrolments: Counts<7>,
    pub(super) requests: Counts<7>,
    pub(super) request_time: Histogram,
    /// Granted, refused.
    pub(super) renewals: Counts<2>,
    pub(super) sent: Counts<5>,
    pub(super) sent_bytes: Counts<5>,
    /// Hosts, operators.
    pub(super) retry_after: Counts<2>,
    /// Unknown, expired.
    pub(super) unwelcome: Counts<2>,
    /// Done, refused.
    pub(super) audited: Counts<2>,
    pub(super) turn_time: Histogram,
    /// Done, conflict, failed.
    pub(super) commits: Counts<3>,
    pub(super) commit_time: Histogram,
    pub(super) commit_bytes: AtomicU64,
    unread_bytes: AtomicUsize,
}

impl Tally {
    /// Somebody was answered.
    pub(crate) fn answered<T>(
        &self,
        asker: Asker,
        result: &Result<T, Rejection>,
        waited: Duration,
    ) {
        let rejection = result.as_ref().err();
        let place = rejection.map_or(0, |it| place_of(it.refusal.code));
        match asker {
            Asker::Joining => self.enrolments.add(place, 1),
            Asker::Operator => {
                self.requests.add(place, 1);
                self.request_time.observe(waited);
            }
        }
        if rejection.is_some_and(|it| it.retry_after.is_some()) {
            self.retry_after
                .add(usize::from(asker == Asker::Operator), 1);
        }
    }

    /// A host took a message of so many bytes.
    pub(crate) fn sent(&self, sent: Sent, bytes: usize) {
        let kind = match sent {
            Sent::Welcome => 0,
            Sent::Map => 1,
            Sent::Certificate { granted } => {
                self.renewals.add(usize::from(!granted), 1);
                2
            }
            Sent::Goodbye { comes_back } => {
                self.retry_after.add(0, comes_back.into());
                3
            }
            Sent::Other => 4,
        };
        self.sent.add(kind, 1);
        self.sent_bytes.add(kind, bytes as u64);
    }

    /// So many bytes wait for hosts.
    pub(crate) fn set_unread(&self, bytes: usize) {
        self.unread_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn unread(&self) -> usize {
        self.unread_bytes.load(Ordering::Relaxed)
    }

    /// Somebody showed a credential that opens nothing.
    pub(crate) fn unwelcome(&self, why: &Unwelcome) {
        let place = matches!(why, Unwelcome::Expired { .. });
        self.unwelcome.add(place.into(), 1);
    }

    /// The audit log has a new entry.
    pub(crate) fn audited(&self, outcome: AuditOutcome) {
        let place = matches!(outcome, AuditOutcome::Refused);
        self.audited.add(place.into(), 1);
    }

    /// The brain took a turn.
    pub(crate) fn turned(&self, took: Duration) {
        self.turn_time.observe(took);
    }

    /// The store carried out a change of so many bytes, or not.
    pub(crate) fn committed<T>(
        &self,
        outcome: &Result<T, CommitError>,
        bytes: usize,
        took: Duration,
    ) {
        let place = match outcome {
            Ok(_) => {
                self.commit_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                0
            }
            Err(CommitError::Conflict) => 1,
            Err(CommitError::Failed(_)) => 2,
        };
        self.commits.add(place, 1);
        self.commit_time.observe(took);
    }
}

const fn place_of(code: RefusalCode) -> usize {
    match code {
        RefusalCode::Invalid => 1,
        RefusalCode::Denied => 2,
        RefusalCode::NotFound => 3,
        RefusalCode::Conflict => 4,
        RefusalCode::Exhausted => 5,
        RefusalCode::Unavailable => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count<const N: usize>(counts: &Counts<N>, names: [&'static str; N], name: &str) -> u64 {
        let found = counts.named(names).find(|(its, _)| *its == name);
        found.unwrap().1
    }

    #[test]
    fn a_refusal_counts_under_its_code_and_for_who_is_told_to_come_back() {
        let tally = Tally::default();
        let refused = |retry_after| Rejection {
            retry_after,
            ..Rejection::new(RefusalCode::Unavailable, "busy")
        };
        let waited = Duration::from_millis(1);
        tally.answered(Asker::Operator, &Ok(()), waited);
        tally.answered::<()>(Asker::Operator, &Err(refused(Some(waited))), waited);
        tally.answered::<()>(Asker::Joining, &Err(refused(None)), waited);
        assert_eq!(count(&tally.requests, OUTCOMES, "done"), 1);
        assert_eq!(count(&tally.requests, OUTCOMES, "unavailable"), 1);
        assert_eq!(count(&tally.enrolments, OUTCOMES, "unavailable"), 1);
        let told = ["host", "operator"];
        assert_eq!(count(&tally.retry_after, told, "operator"), 1);
        assert_eq!(count(&tally.retry_after, told, "host"), 0);
    }

    #[test]
    fn only_what_was_stored_counts_as_written() {
        let tally = Tally::default();
        let took = Duration::from_millis(1);
        tally.committed(&Ok(()), 10, took);
        tally.committed::<()>(&Err(CommitError::Conflict), 100, took);
        tally.committed::<()>(&Err(CommitError::Failed("disk".into())), 100, took);
        assert_eq!(tally.commit_bytes.load(Ordering::Relaxed), 10);
        let names = ["done", "conflict", "failed"];
        assert!(tally.commits.named(names).all(|(_, count)| count == 1));
    }
}
