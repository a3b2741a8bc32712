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
    write_at: Option<Instant>,
    is_writing: bool,
    /// The next portion is not written before.
    not_before: Option<Instant>,
}

impl Offers {
    /// Returns when records have to be written.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.write_at
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
            self.write_offers_within(WRITTEN_WITHIN, now);
        }
    }

    /// Returns what a member offers whose record says another thing.
    fn other_offer(&self, id: HostId) -> Option<bool> {
        let offers = self.presences.of(id)?.offers_aes?;
        let record = &self.state.hosts.get(&id)?.record;
        (record.offers_aes_256_gcm != offers).then_some(offers)
    }

    fn write_offers_within(&mut self, pause: Duration, now: Now) {
        if !self.offers.is_writing {
            let due = now.monotonic + pause;
            let due = self.offers.not_before.map_or(due, |it| it.max(due));
            let known = self.offers.write_at;
            self.offers.write_at = Some(known.map_or(due, |it| it.min(due)));
        }
    }

    /// Writes the next portion when it is due.
    pub(crate) fn expire_offers(&mut self, now: Now) {
        let is_due = |due: &mut Instant| *due <= now.monotonic;
        if self.offers.write_at.take_if(is_due).is_none() {
            return;
        }
        let (portion, wait) = self.next_offers(now);
        if !portion.is_empty() {
            self.offers.is_writing = true;
            self.accept(Origin::Nobody, Work::ChangeCiphers(portion), now);
        } else if let Some(wait) = wait {
            self.write_offers_within(wait, now);
        }
    }

    /// Takes out what may be written now; the rest may be in so long.
    fn next_offers(&mut self, now: Now) -> (Vec<(HostId, bool)>, Option<Duration>) {
        let differing = std::mem::take(&mut self.offers.differing);
        let (mut portion, mut shortest) = (Vec::new(), None::<Duration>);
        for host in differing {
            let Some(offers) = self.other_offer(host) else {
                continue;
            };
            let wait = self.wait_to_offer(host, offers, now);
            if wait.is_none() && portion.len() < PORTION {
                portion.push((host, offers));
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
    pub(crate) fn plan_ciphers(
        &self,
        portion: &[(HostId, bool)],
        now: Now,
    ) -> Result<Plan, Rejection> {
        self.check_not_recovering()?;
        let mut draft = Draft::new(&self.state);
        let mut is_empty = true;
        for (id, offers) in portion {
            let host = self.state.hosts.get(id);
            let differs = |offered: bool| offered != *offers;
            let Some(host) = host.filter(|it| differs(it.record.offers_aes_256_gcm)) else {
                continue;
            };
            let record = HostRecord {
                offers_aes_256_gcm: *offers,
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
        portion: &[(HostId, bool)],
        has_failed: bool,
        now: Now,
    ) {
        self.offers.is_writing = false;
        for &(host, offers) in portion {
            if offers && !has_failed && self.state.hosts.contains_key(&host) {
                let allowance = &mut self.presences.entry(host).ciphers;
                // Whether it may was asked before: what cannot be stored uses up nothing.
                let _ = allowance.spend(CHANGES, now.monotonic);
            }
            if self.other_offer(host).is_some() {
                self.offers.differing.insert(host);
            }
        }
        let pause = if has_failed { AGAIN_AFTER } else { PAUSE };
        self.offers.not_before = Some(now.monotonic + pause);
        if !self.offers.differing.is_empty() {
            self.write_offers_within(pause, now);
        }
    }
}
