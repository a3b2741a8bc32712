//! Which data ciphers a host offers: it says so when it joins and with every hello, and its record
//! tells its peers. Two hosts choose by their two records, so that nobody between them can.
//!
//! What a host said last is compared with its record until both say the same: a record that cannot be
//! written now is written later. When a whole fleet changes its mind, as by an upgrade, its records
//! are written a portion at a time.

use std::collections::BTreeSet;
use std::time::Duration;

use model::control::AES_256_GCM;
use model::ids::HostId;
use model::record::HostRecord;
use model::time::{Instant, Now};

use crate::allowance::Rate;
use crate::audit::Stamp;
use crate::fleet::Fleet;
use crate::output::{Rejection, Reply};
use crate::pace::Pace;
use crate::work::{Answer, Draft, Origin, Plan, Work};

/// How often the record of a host may come to say that it offers AES-256-GCM: each change is told to
/// all of its peers. A machine that is moved to another processor, or a setting that is tried, needs
/// no more. That it offers it no more is written always: its peers would seal what it cannot open.
const CHANGES: Rate = Rate {
    burst: 4,
    pause: Duration::from_secs(600),
};

/// Records in one transaction, and the time between two: no more is told at once than while
/// everything is signed again (`signing_again`).
const PORTION: usize = 32;
const PAUSE: Duration = Duration::from_secs(3);
/// What hosts say within this time is written together.
const WRITTEN_WITHIN: Duration = Duration::from_secs(1);
/// When what could not be written is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The records that do not say yet what their hosts offer.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    /// Members whose record has to be looked at.
    differing: BTreeSet<HostId>,
    writing: Pace,
}

impl Offers {
    /// Returns when records have to be written.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.writing.deadline()
    }
}

/// Returns whether a daemon with these features offers AES-256-GCM.
pub(crate) fn offers_aes(features: &[String]) -> bool {
    features.iter().any(|feature| feature == AES_256_GCM)
}

impl Fleet {
    /// Takes over what a host offers.
    pub(crate) fn note_ciphers(&mut self, host: HostId, features: &[String], now: Now) {
        self.presences.entry(host).offers_aes = Some(offers_aes(features));
        self.compare_offer(host, now);
    }

    /// Has a record written again that says another thing than its host said last.
    fn compare_offer(&mut self, host: HostId, now: Now) {
        if self.other_offer(host).is_some() {
            self.offers.differing.insert(host);
            self.offers.writing.ask(WRITTEN_WITHIN, now);
        }
    }

    /// Returns what a member offers whose record says another thing.
    fn other_offer(&self, id: HostId) -> Option<bool> {
        let offers = self.presences.of(id)?.offers_aes?;
        let record = &self.state.hosts.get(&id)?.record;
        (record.offers_aes_256_gcm != offers).then_some(offers)
    }

    /// Writes the next portion when it is due.
    pub(crate) fn expire_offers(&mut self, now: Now) {
        if !self.offers.writing.take_due(now) {
            return;
        }
        let (portion, wait) = self.next_offers(now);
        if !portion.is_empty() {
            self.offers.writing.begin();
            self.accept(Origin::Nobody, Work::ChangeCiphers(portion), now);
        } else if let Some(wait) = wait {
            self.offers.writing.ask(wait, now);
        }
    }

    /// Takes out what may be written now; the rest may be in so long.
    fn next_offers(&mut self, now: Now) -> (Vec<HostId>, Option<Duration>) {
        let differing = std::mem::take(&mut self.offers.differing);
        let (mut portion, mut shortest) = (Vec::new(), None::<Duration>);
        for host in differing {
            let Some(offers) = self.other_offer(host) else {
                continue;
            };
            let wait = self.wait_to_offer(host, offers, now);
            if wait.is_none() && portion.len() < PORTION {
                portion.push(host);
                continue;
            }
            self.offers.differing.insert(host);
            let wait = wait.unwrap_or(PAUSE);
            shortest = Some(shortest.map_or(wait, |it| it.min(wait)));
        }
        (portion, shortest)
    }

    /// Returns how long a host has to wait that has used up its changes.
    fn wait_to_offer(&self, host: HostId, offers: bool, now: Now) -> Option<Duration> {
        let allowance = self.presences.of(host).filter(|_| offers)?.ciphers;
        allowance.wait(CHANGES, now.monotonic)
    }

    /// Plans the records of hosts that offer another thing than these say.
    pub(crate) fn plan_ciphers(&self, portion: &[HostId], now: Now) -> Result<Plan, Rejection> {
        self.check_not_recovering()?;
        let mut draft = Draft::new(&self.state);
        let mut is_empty = true;
        for id in portion {
            // It may have said another thing since the portion was chosen.
            let Some(offers) = self.other_offer(*id) else {
                continue;
            };
            let host = &self.state.hosts[id];
            let record = HostRecord {
                offers_aes_256_gcm: offers,
                revision: self.state.next_revision(),
                ..host.record.clone()
            };
            let stamp = Stamp::new(format!("host {}", record.name), now.unix);
            self.put_record(&mut draft, host, &record, stamp);
            is_empty = false;
        }
        if is_empty {
            return Ok(Plan::Answer(Reply::Noted));
        }
        Ok(Plan::Commit {
            transaction: draft.finish(),
            answer: Answer::Noted,
        })
    }

    /// Goes on after a portion: who said another thing meanwhile, or could not be written, is next.
    pub(crate) fn after_changing_ciphers(
        &mut self,
        portion: &[HostId],
        has_failed: bool,
        now: Now,
    ) {
        for &host in portion {
            let known = self.state.hosts.get(&host);
            if !has_failed && known.is_some_and(|it| it.record.offers_aes_256_gcm) {
                let allowance = &mut self.presences.entry(host).ciphers;
                // Whether it may was asked before: what cannot be stored uses up nothing.
                let _ = allowance.spend(CHANGES, now.monotonic);
            }
            if self.other_offer(host).is_some() {
                self.offers.differing.insert(host);
            }
        }
        let pause = if has_failed { AGAIN_AFTER } else { PAUSE };
        self.offers.writing.end(pause, now);
        if !self.offers.differing.is_empty() {
            self.offers.writing.ask(pause, now);
        }
    }
}
