//! When leases end, by the time that the store is told. That they exist, and which keys live by
//! them, is in the tables.

use std::collections::BTreeMap;
use std::time::Duration;

use model::store::LeaseId;
use model::time::Instant;

use super::{StoreError, StoreLimits};

/// The leases of a store and their time.
#[derive(Debug)]
pub(super) struct LeaseClock {
    leases: BTreeMap<LeaseId, Lease>,
    last_id: LeaseId,
}

#[derive(Debug)]
struct Lease {
    ttl: Duration,
    ends: Ends,
}

#[derive(Debug, PartialEq, Eq)]
enum Ends {
    /// `ttl` after the next time that the store is told.
    Counted,
    /// Then, unless it is kept alive.
    At(Instant),
    /// It is being ended.
    Now,
}

impl LeaseClock {
    /// Starts with stored leases, all of them counted anew; `last_id` is the last one ever granted.
    pub(super) fn new(
        stored: impl IntoIterator<Item = (LeaseId, Duration)>,
        last_id: LeaseId,
    ) -> Self {
        let counted = |(id, ttl)| {
            (
                id,
                Lease {
                    ttl,
                    ends: Ends::Counted,
                },
            )
        };
        Self {
            leases: stored.into_iter().map(counted).collect(),
            last_id,
        }
    }

    /// Picks the id of a new lease, if there is room for one.
    pub(super) fn next_id(&mut self) -> Result<LeaseId, StoreError> {
        let max = StoreLimits::LEASES_MAX;
        if self.leases.len() >= max {
            return Err(StoreError::Full {
                what: "leases",
                max,
            });
        }
        self.last_id = LeaseId(self.last_id.0 + 1);
        Ok(self.last_id)
    }

    /// Adds a lease that is now stored.
    pub(super) fn add(&mut self, lease: LeaseId, ttl: Duration) {
        self.leases.insert(
            lease,
            Lease {
                ttl,
                ends: Ends::Counted,
            },
        );
    }

    /// Removes a lease that is no longer stored.
    pub(super) fn remove(&mut self, lease: LeaseId) {
        self.leases.remove(&lease);
    }

    /// Counts a lease anew.
    pub(super) fn keep_alive(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        match self.leases.get_mut(&lease) {
            Some(known) if known.ends != Ends::Now => {
                known.ends = Ends::Counted;
                Ok(())
            }
            _ => Err(StoreError::UnknownLease(lease)),
        }
    }

    /// Returns the leases that are over at `now`; they can no longer be kept alive.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<LeaseId> {
        let mut over = Vec::new();
        for (id, lease) in &mut self.leases {
            match lease.ends {
                Ends::Counted => lease.ends = Ends::At(now + lease.ttl),
                Ends::At(end) if end <= now => lease.ends = Ends::Now,
                Ends::At(_) | Ends::Now => {}
            }
            if lease.ends == Ends::Now {
                over.push(*id);
            }
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    fn at(secs: u64) -> Instant {
        Instant::from_start(Duration::from_secs(secs))
    }

    #[test]
    fn lease_is_counted_from_the_first_time_told() {
        let mut clock = LeaseClock::new([(LeaseId(7), TTL)], LeaseId(7));
        assert_eq!(clock.expire(at(1000)), []);
        assert_eq!(clock.expire(at(1009)), []);
        assert_eq!(clock.expire(at(1010)), [LeaseId(7)]);
    }

    #[test]
    fn lease_that_is_over_cannot_be_kept_alive_and_stays_over_until_removed() {
        let mut clock = LeaseClock::new([(LeaseId(7), TTL)], LeaseId(7));
        clock.expire(at(0));
        clock.expire(at(10));
        assert_eq!(
            clock.keep_alive(LeaseId(7)),
            Err(StoreError::UnknownLease(LeaseId(7)))
        );
        assert_eq!(clock.expire(at(11)), [LeaseId(7)]);
        clock.remove(LeaseId(7));
        assert_eq!(clock.expire(at(12)), []);
    }

    #[test]
    fn ids_go_on_after_the_last_one_ever_granted() {
        let mut clock = LeaseClock::new([(LeaseId(3), TTL)], LeaseId(9));
        assert_eq!(clock.next_id(), Ok(LeaseId(10)));
        assert_eq!(clock.next_id(), Ok(LeaseId(11)));
    }

    #[test]
    fn leases_are_bounded() {
        let stored = (1..=16_384).map(|id| (LeaseId(id), TTL));
        let mut clock = LeaseClock::new(stored, LeaseId(16_384));
        assert!(matches!(clock.next_id(), Err(StoreError::Full { .. })));
    }
}
