//! Drop reasons over time: since when each occurred, how often within the last minute, what it
//! means and what to try.

mod advice;
mod kernel;
mod socket;

pub(crate) use advice::{OVERLAY_QUEUE_FULL, UNDERLAY_ABOVE_SHARE, UNDERLAY_QUEUE_FULL};
pub use kernel::KernelDrops;
pub(crate) use kernel::dropped_by_interface;
pub(crate) use socket::SocketDrops;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use model::local::{DropCount, DropView, DropsView};
use model::time::{Instant, Now, UnixTime};

/// What "within the last minute" is.
const WINDOW: Duration = Duration::from_secs(60);
/// Looks that are closer together than this are one.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// What has been seen of the counters.
#[derive(Debug)]
pub struct DropLedger {
    since: UnixTime,
    rows: BTreeMap<String, Row>,
}

#[derive(Debug)]
struct Row {
    packets: u64,
    first: UnixTime,
    last: UnixTime,
    /// Counts of the last minute, and the one before it.
    samples: VecDeque<(Instant, u64)>,
}

impl DropLedger {
    /// Begins, with counters at nothing.
    pub fn new(now: Now) -> Self {
        Self {
            since: now.unix,
            rows: BTreeMap::new(),
        }
    }

    /// Takes the counters of the reasons that occurred, every few seconds: since this daemon began, and
    /// none falls.
    pub fn observe(&mut self, counts: &[DropCount], now: Now) {
        for count in counts {
            match self.rows.get_mut(&count.reason) {
                Some(row) => row.observe(count.packets, now),
                None => {
                    let row = Row::new(count.packets, now);
                    self.rows.insert(count.reason.clone(), row);
                }
            }
        }
    }

    /// Returns what is known, the reason that occurred last first.
    pub fn view(&self) -> DropsView {
        let mut rows: Vec<(&String, &Row)> = self.rows.iter().collect();
        rows.sort_by_key(|(_, row)| std::cmp::Reverse((row.last, row.packets)));
        DropsView {
            since_secs: self.since.as_secs(),
            reasons: rows
                .into_iter()
                .map(|(reason, row)| DropView {
                    reason: reason.clone(),
                    packets: row.packets,
                    last_minute: row.last_minute(),
                    first_secs: row.first.as_secs(),
                    last_secs: row.last.as_secs(),
                    meaning: advice::meaning(reason).to_owned(),
                    advice: advice::advice(reason).to_owned(),
                })
                .collect(),
        }
    }
}

impl Row {
    fn new(packets: u64, now: Now) -> Self {
        Self {
            packets,
            first: now.unix,
            last: now.unix,
            samples: VecDeque::from([(now.monotonic, 0), (now.monotonic, packets)]),
        }
    }

    fn observe(&mut self, packets: u64, now: Now) {
        if packets > self.packets {
            self.packets = packets;
            self.last = now.unix;
        }
        let is_same_look = |at: Instant| now.monotonic.saturating_since(at) < SAMPLE_INTERVAL;
        match self.samples.back_mut() {
            Some((at, count)) if is_same_look(*at) => *count = packets,
            _ => self.samples.push_back((now.monotonic, packets)),
        }
        while self
            .samples
            .get(1)
            .is_some_and(|(at, _)| now.monotonic.saturating_since(*at) >= WINDOW)
        {
            self.samples.pop_front();
        }
    }

    fn last_minute(&self) -> u64 {
        let before = self.samples.front().map_or(0, |(_, packets)| *packets);
        self.packets.saturating_sub(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Now {
        Now {
            monotonic: Instant::from_start(Duration::from_secs(secs)),
            unix: UnixTime::from_secs(1_000_000 + secs),
        }
    }

    fn count(reason: &str, packets: u64) -> DropCount {
        DropCount {
            reason: reason.into(),
            packets,
        }
    }

    #[test]
    fn a_reason_tells_since_when_how_many_and_how_fast() {
        let mut ledger = DropLedger::new(at(0));
        ledger.observe(&[count("forged", 7)], at(10));
        for secs in (12..200).step_by(2) {
            ledger.observe(&[count("forged", 7 + secs / 10)], at(secs));
        }
        let view = ledger.view();
        assert_eq!(view.since_secs, 1_000_000);
        let row = &view.reasons[0];
        assert_eq!((row.reason.as_str(), row.packets), ("forged", 26));
        assert_eq!((row.first_secs, row.last_secs), (1_000_010, 1_000_190));
        assert_eq!(row.last_minute, 6, "one in ten seconds");
        assert!(row.meaning.starts_with("Not sealed by the peer"));
    }

    #[test]
    fn what_no_longer_occurs_has_no_rate_and_goes_to_the_end() {
        let mut ledger = DropLedger::new(at(0));
        ledger.observe(&[count("replayed", 900)], at(2));
        assert_eq!(ledger.view().reasons[0].last_minute, 900);
        ledger.observe(&[count("replayed", 900), count("too_big", 1)], at(90));
        ledger.observe(&[count("replayed", 900), count("too_big", 1)], at(150));
        let view = ledger.view();
        let order: Vec<&str> = view.reasons.iter().map(|it| it.reason.as_str()).collect();
        assert_eq!(order, ["too_big", "replayed"]);
        assert_eq!(view.reasons[1].last_minute, 0);
    }

    #[test]
    fn what_the_kernel_dropped_is_explained() {
        let mut ledger = DropLedger::new(at(0));
        let counts = [count(OVERLAY_QUEUE_FULL, 3), count(UNDERLAY_QUEUE_FULL, 4)];
        ledger.observe(&counts, at(2));
        for row in ledger.view().reasons {
            assert!(row.meaning.contains("kernel"), "{row:?}");
            assert!(row.advice.contains("shards"), "{row:?}");
        }
    }

    #[test]
    fn looking_often_costs_no_memory() {
        let mut ledger = DropLedger::new(at(0));
        for look in 0..1000 {
            ledger.observe(&[count("forged", look)], at(5));
        }
        assert!(ledger.rows["forged"].samples.len() <= 3);
    }
}
