//! Which data ciphers a host offers: it says so when it joins and with every hello, and its record
//! tells its peers. Two hosts choose by their two records, so that nobody between them can.

use std::time::Duration;

use model::control::AES_256_GCM;
use model::ids::HostId;
use model::record::HostRecord;
use model::time::Now;

use crate::allowance::Rate;
use crate::audit::Stamp;
use crate::fleet::Fleet;
use crate::output::Reply;
use crate::work::{Answer, Draft, Origin, Plan, Work};

/// How often a host's offer may change: each change is told to all of its peers. A machine that is
/// moved to another processor, or a setting that is tried, needs no more.
const CHANGES: Rate = Rate {
    burst: 4,
    pause: Duration::from_secs(600),
};

/// Returns whether a daemon with these features offers AES-256-GCM.
pub(crate) fn offers_aes(features: &[String]) -> bool {
    features.iter().any(|feature| feature == AES_256_GCM)
}

impl Fleet {
    /// Takes over what a host offers. Beyond what it may, its last offer stands until its next
    /// hello; either cipher is safe, and a session has that of the host that began it.
    pub(crate) fn note_ciphers(&mut self, host: HostId, features: &[String], now: Now) {
        let offers = offers_aes(features);
        if !self.is_other_offer(host, offers) {
            return;
        }
        let allowance = &mut self.presences.entry(host).ciphers;
        if allowance.spend(CHANGES, now.monotonic).is_ok() {
            self.accept(Origin::Nobody, Work::ChangeCiphers(host, offers), now);
        }
    }

    fn is_other_offer(&self, host: HostId, offers: bool) -> bool {
        let host = self.state.hosts.get(&host);
        host.is_some_and(|host| host.record.offers_aes_256_gcm != offers)
    }

    pub(crate) fn plan_ciphers(&mut self, id: HostId, offers: bool, now: Now) -> Plan {
        let host = self.state.hosts.get(&id).cloned();
        let Some(host) = host.filter(|_| self.is_other_offer(id, offers)) else {
            return Plan::Answer(Reply::Noted);
        };
        let record = HostRecord {
            offers_aes_256_gcm: offers,
            revision: self.state.next_revision(),
            ..host.record.clone()
        };
        let stamp = Stamp::new(format!("host {}", record.name), now.unix);
        let mut draft = Draft::new(&self.state);
        self.put_record(&mut draft, &host, &record, stamp);
        Plan::Commit {
            transaction: draft.finish(),
            answer: Answer::Noted,
        }
    }
}
