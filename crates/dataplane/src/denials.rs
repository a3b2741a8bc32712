//! Which denials are told: each flow's once in a while, all together so many a second. A flood of
//! denied packets costs a lookup in a small fixed table and fills no queue.

use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::fast::FixedState;
use model::rule::Direction;
use model::time::Instant;

use crate::flows::FlowKey;
use crate::rate::Rate;

/// How long a flow's denial is not told again.
const TOLD_FOR: Duration = Duration::from_secs(10);
/// Flows that are remembered as told; a newer takes an older one's place.
const PLACES: usize = 256;

/// Decides whether a denial is told.
pub(crate) struct Denials {
    /// Empty until the first denial.
    told: Vec<Option<(FlowKey, Direction, Instant)>>,
    rate: Rate,
    hasher: FixedState,
}

impl Denials {
    pub(crate) fn new(per_sec: u32, seed: u64) -> Self {
        Self {
            told: Vec::new(),
            rate: Rate::per_sec(per_sec),
            hasher: FixedState::with_seed(seed),
        }
    }

    /// Returns whether this denial is to be told.
    pub(crate) fn may_tell(&mut self, key: FlowKey, direction: Direction, now: Instant) -> bool {
        if self.told.is_empty() {
            self.told.resize(PLACES, None);
        }
        let place = (self.hasher.hash_one(key) % PLACES as u64) as usize;
        let was_told = self.told[place].is_some_and(|(told, way, at)| {
            told == key && way == direction && now.saturating_since(at) < TOLD_FOR
        });
        if was_told || !self.rate.take(now) {
            return false;
        }
        self.told[place] = Some((key, direction, now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Upper;
    use model::map::PeerIndex;

    fn key(port: u16) -> FlowKey {
        let upper = Upper::Udp {
            source_port: 1,
            destination_port: port,
        };
        FlowKey::new(upper, 17, false, Direction::Inbound, PeerIndex(0))
    }

    #[test]
    fn a_flow_is_told_once_in_a_while_and_all_together_a_few_a_second() {
        let mut denials = Denials::new(5, 1);
        let now = Instant::START;
        assert!(denials.may_tell(key(1), Direction::Inbound, now));
        assert!(!denials.may_tell(key(1), Direction::Inbound, now));
        assert!(denials.may_tell(key(1), Direction::Inbound, now + TOLD_FOR));
        let told = (100..200)
            .filter(|port| denials.may_tell(key(*port), Direction::Inbound, now + TOLD_FOR));
        assert_eq!(told.count(), 4);
    }
}
