//! Hints where hosts may be reached, on their way from those who tell them to those who may need them.
//! They are cheap to tell and dear to pass on, to all peers of a host: so each host has its share of
//! what it may tell of others, and peers are told of one host now and then only, of all at once.

use std::collections::BTreeMap;
use std::time::Duration;

use model::ids::HostId;
use model::time::Now;

use crate::allowance::Rate;
use crate::fleet::Fleet;

/// How often the peers of a host are told where it may be reached. What changes in between they are
/// told with the next; who connects meanwhile is told at once.
const PASSED_ON: Rate = Rate {
    burst: 8,
    pause: Duration::from_secs(5),
};

/// How often a host may tell where it sees others; what it tells beyond that is forgotten.
pub(crate) const OBSERVATIONS: Rate = Rate {
    burst: 256,
    pause: Duration::from_secs(1),
};

/// How soon hints are passed on; a storm of them goes together.
const PASS_ON_AFTER: Duration = Duration::from_millis(200);

/// Hosts that may be reached elsewhere, as not all of their peers know yet.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    /// Each with the number of its last hint.
    waiting: BTreeMap<HostId, u64>,
    last: u64,
}

impl Hints {
    /// Returns the number of the last hint.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }
}

impl Fleet {
    /// Notes that a host may be reached elsewhere.
    pub(crate) fn note_hint(&mut self, host: HostId, now: Now) {
        self.hints.last += 1;
        if self.hints.waiting.insert(host, self.hints.last).is_none() {
            self.publish_within(PASS_ON_AFTER, now);
        }
    }

    /// Notes for their peers where hosts may be reached, of those whose turn it is.
    pub(crate) fn pass_hints_on(&mut self, now: Now) {
        let mut next = None::<Duration>;
        for (host, hint) in std::mem::take(&mut self.hints.waiting) {
            if !self.state.hosts.contains_key(&host) {
                continue;
            }
            let allowance = &mut self.presences.entry(host).passed_on;
            match allowance.spend(PASSED_ON, now.monotonic) {
                Ok(()) => self.pass_on(host, hint),
                Err(wait) => {
                    self.hints.waiting.insert(host, hint);
                    next = Some(next.map_or(wait, |sooner| sooner.min(wait)));
                }
            }
        }
        if let Some(wait) = next {
            self.publish_within(wait.max(PASS_ON_AFTER), now);
        }
    }

    fn pass_on(&mut self, host: HostId, hint: u64) {
        for peer in self.state.interest.peers_of(host) {
            if let Some(news) = self.sessions.news_for_hint(peer, hint) {
                news.hints.insert(host);
            }
        }
    }
}
