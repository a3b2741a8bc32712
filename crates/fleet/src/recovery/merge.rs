//! What a host remembers becomes what the coordinator knows: a record or a tombstone that is newer
//! than the stored one, each with the claims that go with it, in one transaction.

use std::collections::{BTreeMap, BTreeSet};

use model::ids::{Digest, HostId, Revision, TokenId};
use model::record::{HostRecord, Signed, Tombstone};
use model::store::{Key, Transaction};
use model::time::Now;
use serde::Serialize;
use trust::authority::HOST_CERTIFICATE_LIFETIME;

use crate::audit::Stamp;
use crate::fleet::Fleet;
use crate::keys::Place;
use crate::removal::ADDRESS_RESTS_FOR;
use crate::state::Host;
use crate::stored::{
    StoredAddress, StoredFormer, StoredHost, StoredKeyOwner, StoredName, StoredSigned,
    StoredTombstone, encode,
};
use crate::work::Draft;

/// The TLS key of a host that is known only by its tombstone.
pub(crate) const UNKNOWN_KEY: Digest = Digest::from_bytes([0; 32]);

/// Who is said to have changed what hosts remember.
const BY: &str = "recovery";

/// Something that a host remembers and the fleet has signed.
#[derive(Clone, Debug)]
pub(crate) enum Remembered {
    Host {
        signed: Signed,
        record: HostRecord,
    },
    Gone {
        signed: Signed,
        tombstone: Tombstone,
    },
}

impl Remembered {
    pub(crate) fn host(&self) -> HostId {
        match self {
            Self::Host { record, .. } => record.host,
            Self::Gone { tombstone, .. } => tombstone.host,
        }
    }

    pub(crate) fn revision(&self) -> Revision {
        match self {
            Self::Host { record, .. } => record.revision,
            Self::Gone { tombstone, .. } => tombstone.revision,
        }
    }
}

impl Fleet {
    /// Returns whether something is not known yet.
    fn is_news(&self, remembered: &Remembered) -> bool {
        let (host, revision) = (remembered.host(), remembered.revision());
        match remembered {
            Remembered::Host { .. } => self.is_newer_record(host, revision),
            Remembered::Gone { .. } => self.is_new_tombstone(host, revision),
        }
    }

    /// Returns whether a record is newer than what is known of its host. Ids of hosts are random and
    /// never given twice: who was removed once is gone, however late a record of it was signed.
    pub(super) fn is_newer_record(&self, host: HostId, revision: Revision) -> bool {
        let is_gone = self.state.tombstones.contains_key(&host);
        let is_newer = match self.state.hosts.get(&host) {
            Some(known) => known.record.revision < revision,
            None => self.is_past_pruning(revision),
        };
        is_newer && !is_gone
    }

    /// Returns whether a tombstone is of somebody who is not known to be gone.
    pub(super) fn is_new_tombstone(&self, host: HostId, revision: Revision) -> bool {
        let is_gone = self.state.tombstones.contains_key(&host);
        let is_member = self.state.hosts.contains_key(&host);
        !is_gone && (is_member || self.is_past_pruning(revision))
    }

    /// Returns whether no tombstone that is forgotten here can be of a host that is not known here
    /// and was signed at a revision.
    fn is_past_pruning(&self, revision: Revision) -> bool {
        self.state.pruned < Some(revision)
    }

    /// Plans to store what a host remembers; `None`: it is known, something newer is, or it
    /// is believed no more.
    pub(crate) fn plan_merge(&self, remembered: &Remembered, now: Now) -> Option<Transaction> {
        if !self.is_news(remembered) || !self.is_still_believed(remembered) {
            return None;
        }
        let mut claims = Claims::default();
        match remembered {
            Remembered::Host { signed, record } => {
                self.take_up(&mut claims, signed, record, now)?
            }
            Remembered::Gone { signed, tombstone } => {
                self.bury(&mut claims, signed, tombstone, now);
            }
        }
        Some(claims.transaction(Draft::new(&self.state)))
    }

    /// Returns whether the keys that are believed now have signed something: it may have been told
    /// under keys that were retired before it could be stored, and a store that holds it could not be
    /// read again.
    fn is_still_believed(&self, remembered: &Remembered) -> bool {
        let anchors = &self.state.anchors;
        match remembered {
            Remembered::Host { signed, .. } => anchors.verify_record(signed).is_ok(),
            Remembered::Gone { signed, .. } => anchors.verify_tombstone(signed).is_ok(),
        }
    }

    /// A host as it is remembered, in the place of how it is stored.
    fn take_up(
        &self,
        claims: &mut Claims,
        signed: &Signed,
        record: &HostRecord,
        now: Now,
    ) -> Option<()> {
        let index = self.state.statement.overlay.index_of(record.addresses)?;
        let known = self.state.hosts.get(&record.host);
        if let Some(known) = known {
            self.release(claims, known, now);
        }
        for rival in self.rivals(record, index) {
            // Who has the later record has what both claim; the other had given it up.
            if rival.record.revision > record.revision {
                return None;
            }
            claims.delete(Place::Host(rival.record.host));
            claims.delete(Place::Name(rival.record.name.clone()));
            claims.delete(Place::WireguardKey(rival.record.wireguard_key));
            claims.delete(Place::TlsKey(rival.record.tls_key_hash));
            claims.delete(Place::Address(rival.address_index));
        }
        let host = record.host;
        let changed = Stamp::new(BY, now.unix);
        let stored = StoredHost {
            record: StoredSigned::from(signed),
            address_index: index,
            token: known.map_or(TokenId::from_bytes([0; 8]), |it| it.token),
            machine_id: known.map_or_else(String::new, |it| it.machine_id.clone()),
            joined: known.map_or_else(|| changed.clone(), |it| it.joined.clone()),
            changed,
        };
        let name = StoredName {
            host,
            reserved_until_secs: None,
            machine_id: String::new(),
        };
        let address = StoredAddress {
            host,
            resting_until_secs: None,
        };
        claims.put(Place::Host(host), &stored);
        claims.put(Place::Name(record.name.clone()), &name);
        claims.put(
            Place::WireguardKey(record.wireguard_key),
            &StoredKeyOwner { host },
        );
        claims.put(Place::TlsKey(record.tls_key_hash), &StoredKeyOwner { host });
        claims.put(Place::Address(index), &address);
        Some(())
    }

    /// Returns the other members that have a name, a key or an address that a record claims.
    fn rivals(&self, record: &HostRecord, index: u32) -> Vec<&Host> {
        let state = &self.state;
        let owners = [
            state.names.get(&record.name).map(|it| it.host),
            state.wireguard_keys.get(&record.wireguard_key).copied(),
            state.tls_keys.get(&record.tls_key_hash).copied(),
            state.addresses.get(&index).map(|it| it.host),
        ];
        let owners: BTreeSet<HostId> = owners.into_iter().flatten().collect();
        let others = owners.into_iter().filter(|id| *id != record.host);
        others.filter_map(|id| state.hosts.get(&id)).collect()
    }

    /// Keeps from others for a while what a host had.
    fn release(&self, claims: &mut Claims, host: &Host, now: Now) {
        let id = host.record.host;
        let name = StoredName {
            host: id,
            reserved_until_secs: Some((now.unix + HOST_CERTIFICATE_LIFETIME).as_secs()),
            machine_id: String::new(),
        };
        let address = StoredAddress {
            host: id,
            resting_until_secs: Some((now.unix + ADDRESS_RESTS_FOR).as_secs()),
        };
        claims.put(Place::Name(host.record.name.clone()), &name);
        claims.put(Place::Address(host.address_index), &address);
        claims.delete(Place::WireguardKey(host.record.wireguard_key));
        claims.delete(Place::TlsKey(host.record.tls_key_hash));
    }

    /// A host that is remembered to be gone. Why is not known well enough to let its keys in again.
    fn bury(&self, claims: &mut Claims, signed: &Signed, tombstone: &Tombstone, now: Now) {
        let known = self.state.hosts.get(&tombstone.host);
        if let Some(known) = known {
            self.release(claims, known, now);
            claims.delete(Place::Host(tombstone.host));
        }
        let stored = StoredTombstone {
            tombstone: StoredSigned::from(signed),
            tls_key_hash: known.map_or(UNKNOWN_KEY, |it| it.record.tls_key_hash),
            removed: Stamp::new(BY, now.unix),
            former: known.map(|it| StoredFormer {
                labels: it.record.labels.clone(),
                created: it.created.0,
                changed: it.revision.0,
            }),
            revoked_key: known.map(|it| it.record.wireguard_key),
        };
        claims.put(Place::Tombstone(tombstone.host), &stored);
    }
}

/// What a transaction changes, each key once: a later claim takes the place of an earlier one.
#[derive(Default)]
struct Claims(BTreeMap<Key, Option<Vec<u8>>>);

impl Claims {
    fn put<T: Serialize>(&mut self, place: Place, value: &T) {
        self.0.insert(place.key(), Some(encode(value)));
    }

    fn delete(&mut self, place: Place) {
        self.0.insert(place.key(), None);
    }

    fn transaction(self, mut draft: Draft<'_>) -> Transaction {
        for (key, value) in self.0 {
            match value {
                Some(value) => draft.put_encoded(key, value),
                None => draft.delete(key),
            }
        }
        draft.finish()
    }
}
