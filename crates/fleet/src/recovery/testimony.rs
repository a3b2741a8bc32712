//! What a host tells and the store does not know, before and after it is verified. What a hostile host
//! makes up costs a signature each, so it is verified beside the brain: that only sifts what would be
//! new, at the cost of reading it, and takes up what holds.

use std::sync::Arc;

use model::map::PolicySlice;
use model::memory::Memory;
use model::record::{HostRecord, Signed};
use model::wire;
use trust::TrustAnchors;

use super::policy::ToldPolicy;
use super::{LaterStatement, Remembered};
use crate::fleet::Fleet;

/// What a part of a host's memory says, as far as it would be new. Nothing of it is believed.
#[derive(Debug)]
pub struct Hearsay {
    anchors: Arc<TrustAnchors>,
    own: Signed,
    trust: Option<Signed>,
    records: Vec<Signed>,
    tombstones: Vec<Signed>,
    policy: Option<PolicySlice>,
    last: bool,
}

/// What of it the fleet has signed.
#[derive(Debug)]
pub struct Testimony {
    /// By whose keys.
    pub(super) anchors: Arc<TrustAnchors>,
    /// Who tells; or why its own record does not hold.
    pub(super) own: Result<HostRecord, String>,
    /// A later trust statement.
    pub(super) trust: Option<Box<LaterStatement>>,
    pub(super) remembered: Vec<Remembered>,
    pub(super) policy: Option<ToldPolicy>,
    pub(super) last: bool,
}

impl Hearsay {
    /// Returns how many signatures have to be verified: the cost of `verify`.
    pub fn signatures(&self) -> usize {
        1 + usize::from(self.trust.is_some())
            + self.records.len()
            + self.tombstones.len()
            + usize::from(self.policy.is_some())
    }

    /// Verifies all of it; for a thread that has the time.
    pub fn verify(self) -> Testimony {
        let anchors = &self.anchors;
        let own = anchors.verify_record(&self.own);
        let own = own.map_err(|error| format!("its own record does not hold: {error}"));
        if own.is_err() {
            return Testimony {
                own,
                trust: None,
                remembered: Vec::new(),
                policy: None,
                last: self.last,
                anchors: self.anchors,
            };
        }
        let trust = self.trust.and_then(|signed| {
            let later = anchors.update(&signed).ok()??;
            let statement = later.statement().clone();
            Some(Box::new(LaterStatement { signed, statement }))
        });
        let records = self.records.into_iter().filter_map(|signed| {
            let record = anchors.verify_record(&signed).ok()?;
            Some(Remembered::Host { signed, record })
        });
        let tombstones = self.tombstones.into_iter().filter_map(|signed| {
            let tombstone = anchors.verify_tombstone(&signed).ok()?;
            Some(Remembered::Gone { signed, tombstone })
        });
        let policy = self.policy.as_ref();
        Testimony {
            own,
            trust,
            remembered: records.chain(tombstones).collect(),
            policy: policy.and_then(|slice| ToldPolicy::verified(slice, anchors).ok()),
            last: self.last,
            anchors: self.anchors,
        }
    }
}

impl Fleet {
    /// Keeps of what a host tells only what would be new if it held.
    pub(super) fn sift(&self, part: Memory) -> Hearsay {
        let (state, recovery) = (&self.state, &self.recovery);
        let own = part.record.clone();
        let records = std::iter::once(part.record).chain(part.records);
        let records = records.filter(|signed| {
            let record = wire::decode_host_record(&signed.payload);
            record.is_ok_and(|it| {
                self.is_newer_record(it.host, it.revision) && !recovery.has_record(&it)
            })
        });
        let tombstones = part.tombstones.into_iter().filter(|signed| {
            let tombstone = wire::decode_tombstone(&signed.payload);
            tombstone.is_ok_and(|it| {
                self.is_new_tombstone(it.host, it.revision) && !recovery.has_tombstone(it.host)
            })
        });
        Hearsay {
            anchors: state.anchors.clone(),
            own,
            trust: Some(part.trust).filter(|it| !self.is_known_statement(it)),
            records: records.collect(),
            tombstones: tombstones.collect(),
            policy: part.policy.filter(|it| self.is_newer_policy(it)),
            last: part.last,
        }
    }

    fn is_newer_policy(&self, slice: &PolicySlice) -> bool {
        let head = wire::decode_bundle_head(&slice.head.payload);
        head.is_ok_and(|head| (head.epoch, head.version) > self.stored_policy())
    }
}
