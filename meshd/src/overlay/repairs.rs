//! How often the daemon makes again what somebody else changed, before it leaves it alone: two
//! programs that undo each other's work for ever help nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

/// Repairs of one thing within `PERIOD`.
const REPAIRS_MAX: usize = 3;
/// How long a repair counts.
const PERIOD: Duration = Duration::from_secs(60 * 60);

/// A thing that the daemon owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The TUN device itself, its state and size.
    Device,
    /// The host's overlay addresses.
    Addresses,
    /// The routes of the overlay.
    Routes,
    /// The nftables table.
    Firewall,
    /// The host's resolver.
    Resolver,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 5] = [
        Self::Device,
        Self::Addresses,
        Self::Routes,
        Self::Firewall,
        Self::Resolver,
    ];

    /// Returns whether packets could leave in the clear, or come in as a peer's, without it. It is
    /// made again for as long as the overlay stands, whoever takes it away.
    fn is_a_guard(self) -> bool {
        matches!(self, Self::Routes | Self::Firewall)
    }
}

/// Something that is not as the daemon left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where.
    pub part: Part,
    /// What, for people.
    pub what: String,
    /// Whether the daemon may make it again.
    pub may_repair: bool,
}

/// What is done about a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// It is made again.
    Repair,
    /// It was made again too often, or may not be.
    LeaveAlone,
}

/// The repairs so far, and what is told about them.
#[derive(Debug, Default)]
pub struct Repairs {
    done: BTreeMap<Part, Vec<Instant>>,
    told: BTreeMap<Part, String>,
    left_alone: BTreeSet<Part>,
}

impl Repairs {
    /// Takes a difference and decides. The second is whether anybody was told before.
    pub fn handle_difference(&mut self, difference: &Difference, now: Instant) -> (Remedy, bool) {
        let done = self.done.entry(difference.part).or_default();
        done.retain(|at| now.duration_since(*at) < PERIOD);
        let is_often = done.len() >= REPAIRS_MAX;
        let remedy = if difference.may_repair && (!is_often || difference.part.is_a_guard()) {
            if is_often {
                done.remove(0);
            }
            done.push(now);
            Remedy::Repair
        } else {
            Remedy::LeaveAlone
        };
        match remedy {
            Remedy::Repair => self.left_alone.remove(&difference.part),
            Remedy::LeaveAlone => self.left_alone.insert(difference.part),
        };
        let alarm = match remedy {
            Remedy::Repair if difference.part.is_a_guard() => format!(
                "{}; meshd made it again, as it will each time: without it overlay packets could leave this host in the clear. Find the other program",
                difference.what
            ),
            Remedy::Repair => format!(
                "{}; meshd made it again, as it will up to {REPAIRS_MAX} times an hour",
                difference.what
            ),
            Remedy::LeaveAlone if difference.may_repair => format!(
                "{}; it was made again {REPAIRS_MAX} times within an hour and is left alone for now: find the other program, then reload meshd",
                difference.what
            ),
            Remedy::LeaveAlone => format!(
                "{}; meshd does not fight about it: find the other program, then reload meshd",
                difference.what
            ),
        };
        let is_rare = remedy == Remedy::Repair && !is_often;
        let is_news = self.told.get(&difference.part) != Some(&alarm) || is_rare;
        self.told.insert(difference.part, alarm);
        (remedy, is_news)
    }

    /// Takes that a part is as the daemon left it. What was repaired stays an alarm for as long as
    /// it counts.
    pub fn handle_calm(&mut self, part: Part, now: Instant) {
        self.left_alone.remove(&part);
        let counts = |at: &Instant| now.duration_since(*at) < PERIOD;
        if !self
            .done
            .get(&part)
            .is_some_and(|done| done.iter().any(counts))
        {
            self.told.remove(&part);
        }
    }

    /// Forgets everything, as when everything is made anew on an operator's word.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Returns what is told of a part without which no packet passes, and that stays as it is.
    pub fn alarm_of_what_is_left_alone(&self) -> Option<&String> {
        let mut vital = self.left_alone.iter().filter(|it| **it != Part::Resolver);
        self.told.get(vital.next()?)
    }

    /// Returns what is told of a part.
    pub fn alarm_of(&self, part: Part) -> Option<&String> {
        self.told.get(&part)
    }

    /// Returns what an operator should look at.
    pub fn alarms(&self) -> impl Iterator<Item = &String> {
        self.told.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flushed(may_repair: bool) -> Difference {
        Difference {
            part: Part::Addresses,
            what: "the address is gone".into(),
            may_repair,
        }
    }

    fn alarms(repairs: &Repairs) -> String {
        repairs.alarms().cloned().collect::<Vec<_>>().join("\n")
    }

    #[tokio::test]
    async fn a_thing_is_made_again_a_few_times_and_then_left() {
        let (mut repairs, now) = (Repairs::default(), Instant::now());
        for _ in 0..REPAIRS_MAX {
            let done = repairs.handle_difference(&flushed(true), now);
            assert_eq!(done, (Remedy::Repair, true));
        }
        let left = repairs.handle_difference(&flushed(true), now);
        assert_eq!(left, (Remedy::LeaveAlone, true));
        assert!(alarms(&repairs).contains("left alone for now"));
        assert!(repairs.alarm_of_what_is_left_alone().is_some());
        let again = repairs.handle_difference(&flushed(true), now);
        assert_eq!(again, (Remedy::LeaveAlone, false), "it is told once");
        // Somebody who flushes now and then is repaired each time.
        let later = now + PERIOD;
        let done = repairs.handle_difference(&flushed(true), later);
        assert_eq!(done, (Remedy::Repair, true));
        assert_eq!(repairs.alarm_of_what_is_left_alone(), None);
    }

    #[tokio::test]
    async fn a_guard_is_made_again_each_time() {
        let (mut repairs, now) = (Repairs::default(), Instant::now());
        let flushed = Difference {
            part: Part::Firewall,
            ..flushed(true)
        };
        for time in 0..3 * REPAIRS_MAX {
            let done = repairs.handle_difference(&flushed, now);
            assert_eq!(
                done,
                (Remedy::Repair, time < REPAIRS_MAX),
                "told a few times"
            );
        }
        assert!(alarms(&repairs).contains("each time"));
    }

    #[tokio::test]
    async fn a_repair_is_an_alarm_until_it_is_long_ago() {
        let (mut repairs, now) = (Repairs::default(), Instant::now());
        repairs.handle_difference(&flushed(true), now);
        repairs.handle_calm(Part::Addresses, now);
        assert!(alarms(&repairs).contains("made it again"));
        repairs.handle_calm(Part::Addresses, now + PERIOD);
        assert_eq!(alarms(&repairs), "");
    }

    #[tokio::test]
    async fn what_may_not_be_repaired_is_told_for_as_long_as_it_differs() {
        let (mut repairs, now) = (Repairs::default(), Instant::now());
        let left = repairs.handle_difference(&flushed(false), now);
        assert_eq!(left, (Remedy::LeaveAlone, true));
        assert!(alarms(&repairs).contains("does not fight"));
        repairs.handle_calm(Part::Addresses, now);
        assert_eq!(alarms(&repairs), "");
    }
}
