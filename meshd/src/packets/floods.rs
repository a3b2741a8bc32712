//! When more comes into a queue of the kernel's than a packet thread takes, as it is seen and ended in
//! either direction: [`super::admission`] for what comes, [`super::departures`] for what leaves
//! ([decision](docs/decisions/peers-have-fair-shares.md)).

use std::time::Duration;

/// How often to look.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// What was dropped in a longer time than this says nothing of now.
pub(super) const LOOK_INTERVAL_MAX: Duration = Duration::from_millis(200);
/// Looks without too much until all is as before.
pub(super) const CALM_LOOKS: u32 = 20;
/// Fewer drops than this between two looks are a burst.
pub(super) const DROPS_MIN: u64 = 64;
/// One in so many is what senders that heed losses cause, and needs nobody's help.
const DROPPED_PART: u64 = 20;
/// Nobody has less than this of what is asked for, so that whoever ends a flood is heard.
pub(super) const PART_MIN: f64 = 1.0 / 1024.0;
/// What is left of a claim from one look to the next when nothing is asked for.
pub(super) const REMEMBERED_PART: f64 = 0.8;
/// Between two looks: nothing waited longer than a part of that time.
pub(super) const EMPTIED_OFTEN: u32 = 4;

/// Returns whether the kernel dropped too much beside what was taken between two looks.
pub(super) const fn is_flood(dropped: u64, taken: u64) -> bool {
    dropped >= DROPS_MIN && dropped * DROPPED_PART >= taken + dropped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_and_what_is_lost_by_the_way_are_no_flood() {
        assert!(!is_flood(DROPS_MIN - 1, 0));
        assert!(is_flood(DROPS_MIN, 0));
        assert!(is_flood(100, 1900));
        assert!(!is_flood(100, 1901));
    }
}
