//! Who called what within the last minute or so: counts are kept now and then, and what has come since
//! the oldest of them is of late.

use std::collections::{BTreeMap, VecDeque};

use model::local::{EdgeCounts, LateEdge};

/// How often counts are kept.
const KEEP_EVERY_MICROS: u64 = 10_000_000;
/// How many of them: a minute.
const KEPT: usize = 6;

/// Counts of before, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Lately(VecDeque<(u64, Vec<EdgeCounts>)>);

impl Lately {
    /// Keeps the counts if it is time for that.
    pub(super) fn keep(&mut self, at_micros: u64, counts: impl FnOnce() -> Vec<EdgeCounts>) {
        let last = self.0.back();
        if last.is_some_and(|(last, _)| at_micros < last + KEEP_EVERY_MICROS) {
            return;
        }
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back((at_micros, counts()));
    }

    /// Returns who has called since the oldest counts, or since the start where there are none yet, by
    /// what was called.
    pub(super) fn since(
        &self,
        at_micros: u64,
        now: Vec<EdgeCounts>,
    ) -> BTreeMap<String, Vec<LateEdge>> {
        let oldest = self.0.front();
        let within_micros = at_micros.saturating_sub(oldest.map_or(0, |(since, _)| *since));
        let mut callers: BTreeMap<String, Vec<LateEdge>> = BTreeMap::new();
        for now in now {
            let is_same =
                |it: &&EdgeCounts| (it.part, &it.from, &it.to) == (now.part, &now.from, &now.to);
            let before = oldest.and_then(|(_, before)| before.iter().find(is_same));
            let Some(mut late) = difference(before, &now) else {
                continue;
            };
            late.within_micros = within_micros;
            callers.entry(now.to).or_default().push(late);
        }
        callers
    }
}

/// Returns what has come since; `None`: nothing, or nobody knows of whom.
fn difference(before: Option<&EdgeCounts>, now: &EdgeCounts) -> Option<LateEdge> {
    let since = |count: fn(&EdgeCounts) -> u64| count(now).saturating_sub(before.map_or(0, count));
    let earlier = |bound| {
        let mut latencies = before.iter().flat_map(|it| &it.latencies);
        latencies.find(|(it, _)| it == bound).map_or(0, |it| it.1)
    };
    let latencies = now.latencies.iter();
    let latencies = latencies.map(|(bound, count)| (*bound, count.saturating_sub(earlier(bound))));
    let late = LateEdge {
        part: now.part?,
        from: now.from.clone(),
        within_micros: 0,
        calls: since(|it| it.calls),
        failed: since(|it| it.failed),
        denied: since(|it| it.denied),
        latencies: latencies.filter(|(_, count)| *count > 0).collect(),
    };
    (late.calls > 0).then_some(late)
}

#[cfg(test)]
mod tests {
    use model::local::CallPart;

    use super::*;

    fn edge(from: &str, to: &str, calls: u64, latencies: Vec<(u64, u64)>) -> EdgeCounts {
        EdgeCounts {
            part: Some(CallPart::Source),
            from: from.to_owned(),
            to: to.to_owned(),
            calls,
            failed: calls / 10,
            latencies,
            ..EdgeCounts::default()
        }
    }

    #[test]
    fn what_has_come_since_the_oldest_counts_is_of_late() {
        let mut lately = Lately::default();
        assert!(lately.since(5, Vec::new()).is_empty());
        for round in 0..10 {
            let calls = 100 * round;
            lately.keep(round * KEEP_EVERY_MICROS, || {
                vec![
                    edge("web", "orders", calls, vec![(80, calls)]),
                    edge("web", "other", 7, Vec::new()),
                ]
            });
            // It is not time yet.
            lately.keep(round * KEEP_EVERY_MICROS + 1, Vec::new);
        }
        let now = vec![
            edge("web", "orders", 900, vec![(80, 900)]),
            edge("web", "other", 7, Vec::new()),
            edge("batch", "orders", 50, vec![(80, 20), (160, 30)]),
        ];
        let late = |from: &str, calls, failed, latencies| LateEdge {
            part: CallPart::Source,
            from: from.to_owned(),
            within_micros: 50_000_001,
            calls,
            failed,
            denied: 0,
            latencies,
        };
        let callers = vec![
            late("web", 500, 50, vec![(80, 500)]),
            late("batch", 50, 5, vec![(80, 20), (160, 30)]),
        ];
        let at = 9 * KEEP_EVERY_MICROS + 1;
        assert_eq!(
            lately.since(at, now),
            BTreeMap::from([("orders".to_owned(), callers)])
        );
    }
}
