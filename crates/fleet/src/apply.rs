//! The one place where durable state changes: what is loaded, what this coordinator committed and
//! what others committed all come through here, as events of the store.

use std::sync::Arc;

use data_encoding::BASE64;
use model::ids::{HostId, PolicyVersion};
use model::map::PolicySlice;
use model::record::Signed;
use model::rule::Bundle;
use model::store::{Event, Key, KeyValue, StoreRevision};
use trust::bundle::BundleTree;

use crate::config::LoadError;
use crate::interest::{Interest, Move};
use crate::keys::Place;
use crate::policies::content_digest;
use crate::recovery::UNKNOWN_KEY;
use crate::state::{CurrentPolicy, Former, Gone, Host, KeptPolicy, Recalled, State};
use crate::stored::{
    StoredAddress, StoredBeliever, StoredCurrentPolicy, StoredFleet, StoredHost, StoredKeyOwner,
    StoredPolicy, StoredPruned, StoredStatement, StoredTombstone, StoredUse, decode, from_base64,
};

/// What an event changed, as far as hosts are concerned.
#[derive(Debug)]
pub(crate) enum Change {
    /// A host is new or has a new record.
    Host(Move),
    /// A host is no more.
    Removed(Move),
    /// Another policy is in force; who was concerned by what before.
    Policy(Box<Former>),
    /// The audit log has this entry.
    Logged(u64),
    /// Nothing that a host needs to know.
    Internal,
}

impl State {
    /// Takes over one change.
    ///
    /// # Errors
    /// When the value cannot be read or is not signed by the fleet; nothing has changed then.
    pub(crate) fn apply(&mut self, event: &Event) -> Result<Change, LoadError> {
        match event {
            Event::Put(stored) => self.put(stored),
            Event::Delete { key, mod_revision } => Ok(self.delete(key, *mod_revision)),
        }
    }

    pub(crate) fn put(&mut self, stored: &KeyValue) -> Result<Change, LoadError> {
        let change = match Place::of(&stored.key) {
            Some(place) => self.put_at(place, stored).map_err(|why| LoadError::Value {
                key: stored.key.clone(),
                why,
            })?,
            None => Change::Internal,
        };
        // Entries of the log are many, and none is changed.
        if !matches!(change, Change::Logged(_)) {
            self.modified
                .insert(stored.key.clone(), stored.mod_revision);
        }
        Ok(change)
    }

    fn put_at(&mut self, place: Place, stored: &KeyValue) -> Result<Change, String> {
        let (value, revision) = (stored.value.as_slice(), stored.mod_revision);
        match place {
            Place::Fleet => {
                self.put_trust(value)?;
                self.trust_changed = revision;
            }
            Place::Statement(epoch, serial) => {
                let trust = Signed::try_from(&decode::<StoredStatement>(value)?.trust)?;
                self.statements.insert((epoch, serial), (revision, trust));
            }
            Place::Believer(host) => {
                let StoredBeliever { epoch, serial } = decode(value)?;
                self.believers.insert(host, (epoch, serial));
            }
            Place::Recovery => {
                self.recovery = Some(decode(value)?);
                self.read_recalled();
            }
            Place::Epoch => self.epoch_began = Some(revision),
            Place::Pruned => {
                let StoredPruned { through, signed } = decode(value)?;
                self.pruned_through = StoreRevision(through);
                // What is signed says no later revision than that at which it is stored.
                self.pruned = signed.or(Some(self.map_revision(self.pruned_through)));
            }
            Place::Host(id) => {
                return self.put_host(id, decode(value)?, stored.create_revision, revision);
            }
            Place::Name(name) => {
                self.names.insert(name, decode(value)?);
            }
            Place::WireguardKey(key) => {
                self.wireguard_keys
                    .insert(key, decode::<StoredKeyOwner>(value)?.host);
            }
            // Who has it stands in the host's record; this is the claim.
            Place::TlsKey(_) => {
                decode::<StoredKeyOwner>(value)?;
            }
            Place::Address(index) => {
                self.put_address(index, decode(value)?, revision);
            }
            Place::Tombstone(id) => {
                self.put_tombstone(id, decode(value)?, stored.create_revision)?;
            }
            Place::Token(id) => {
                self.tokens.insert(id, decode(value)?);
            }
            Place::Use(id, slot) => {
                self.uses
                    .entry(id)
                    .or_default()
                    .insert(slot, decode::<StoredUse>(value)?);
            }
            Place::CurrentPolicy => {
                let current = decode::<StoredCurrentPolicy>(value)?.version;
                return self.put_current_policy(current, revision);
            }
            Place::PolicyVersion(version) => {
                let stored: StoredPolicy = decode(value)?;
                let is_other = self.policy.version == version
                    && Signed::try_from(&stored.head)? != self.policy.slice.head;
                let kept = KeptPolicy {
                    content_digest: content_digest(&stored.files.open()?),
                    stored,
                };
                self.policies.insert(version, kept);
                if is_other {
                    let revision = self.policy.revision.max(revision);
                    return self.put_current_policy(version, revision);
                }
            }
            Place::Admin(name) => {
                self.admins.insert(name, decode(value)?);
            }
            Place::AuditEntry(number) => {
                self.audit.put_entry(number, value);
                return Ok(Change::Logged(number));
            }
            Place::AuditTip(hash) => self.audit.put_tip(hash, value),
        }
        Ok(Change::Internal)
    }

    /// A later statement takes the place of the one that everything was verified with so far.
    fn put_trust(&mut self, value: &[u8]) -> Result<(), String> {
        let trust = Self::decode_trust(value)?;
        let newer = self.anchors.update(&trust);
        if let Some(anchors) = newer.map_err(|error| error.to_string())? {
            self.statement = anchors.statement().clone();
            self.anchors = Arc::new(anchors);
            self.trust = trust;
            self.read_recalled();
        }
        Ok(())
    }

    /// Verifies the statement that hosts remember by the one in force; done when either is another.
    fn read_recalled(&mut self) {
        let stored = self.recovery.as_ref().and_then(|it| it.statement.as_ref());
        self.recalled = stored.and_then(|stored| {
            let signed = Signed::try_from(stored).ok()?;
            let later = self.anchors.update(&signed).ok()??;
            let statement = later.statement().clone();
            Some(Recalled { signed, statement })
        });
    }

    pub(crate) fn decode_trust(value: &[u8]) -> Result<Signed, String> {
        Signed::try_from(&decode::<StoredFleet>(value)?.trust)
    }

    fn put_host(
        &mut self,
        id: HostId,
        stored: StoredHost,
        created: StoreRevision,
        revision: StoreRevision,
    ) -> Result<Change, String> {
        let signed = Signed::try_from(&stored.record)?;
        let record = self
            .anchors
            .verify_record(&signed)
            .map_err(|error| error.to_string())?;
        if record.host != id {
            return Err(format!("it holds the record of host {}", record.host));
        }
        let known = self.hosts.get(&id);
        if known.is_none_or(|known| known.signed.payload != signed.payload) {
            self.members_changed = self.members_changed.max(revision);
        }
        self.forget_host(id);
        self.hosts_by_revision.insert((revision, id));
        if created < revision {
            self.rewritten_hosts.insert((revision, id));
        }
        let moved = self.interest.place(&record);
        self.tls_keys.insert(record.tls_key_hash, id);
        if !stored.machine_id.is_empty() {
            self.machines.insert((stored.machine_id.clone(), id));
        }
        let host = Host {
            record,
            signed,
            created,
            revision,
            address_index: stored.address_index,
            token: stored.token,
            machine_id: stored.machine_id,
            joined: stored.joined,
            changed: stored.changed,
        };
        self.hosts.insert(id, host);
        Ok(Change::Host(moved))
    }

    fn forget_host(&mut self, id: HostId) {
        let Some(host) = self.hosts.remove(&id) else {
            return;
        };
        self.hosts_by_revision.remove(&(host.revision, id));
        self.rewritten_hosts.remove(&(host.revision, id));
        self.tls_keys.remove(&host.record.tls_key_hash);
        self.machines.remove(&(host.machine_id, id));
    }

    fn put_address(&mut self, index: u32, address: StoredAddress, revision: StoreRevision) {
        if address.resting_until_secs.is_none() {
            self.last_given = self.last_given.max(Some((revision, index)));
        }
        self.addresses.insert(index, address);
    }

    /// A tombstone stands at the revision of its removal: it is put again only to be signed again.
    fn put_tombstone(
        &mut self,
        id: HostId,
        stored: StoredTombstone,
        removed_at: StoreRevision,
    ) -> Result<(), String> {
        let signed = Signed::try_from(&stored.tombstone)?;
        let tombstone = self
            .anchors
            .verify_tombstone(&signed)
            .map_err(|error| error.to_string())?;
        if tombstone.host != id {
            return Err(format!("it holds the tombstone of host {}", tombstone.host));
        }
        self.forget_tombstone(id);
        self.tombstones_by_revision.insert((removed_at, id));
        self.members_changed = self.members_changed.max(removed_at);
        if stored.tls_key_hash != UNKNOWN_KEY {
            self.gone_tls_keys.insert(stored.tls_key_hash, id);
        }
        if let Some(key) = stored.revoked_key {
            self.revoked_keys.insert(key, id);
        }
        let gone = Gone {
            name: tombstone.name,
            tombstone_revision: tombstone.revision,
            reason: tombstone.reason,
            signed,
            tls_key_hash: stored.tls_key_hash,
            revision: removed_at,
            removed: stored.removed,
            revoked_key: stored.revoked_key,
            former: stored.former,
        };
        self.tombstones.insert(id, gone);
        Ok(())
    }

    fn forget_tombstone(&mut self, id: HostId) {
        let Some(gone) = self.tombstones.remove(&id) else {
            return;
        };
        self.tombstones_by_revision.remove(&(gone.revision, id));
        if self.gone_tls_keys.get(&gone.tls_key_hash) == Some(&id) {
            self.gone_tls_keys.remove(&gone.tls_key_hash);
        }
        if let Some(key) = gone.revoked_key {
            self.revoked_keys.remove(&key);
        }
    }

    /// The version may be named before its content comes: keys are loaded in any order.
    fn put_current_policy(
        &mut self,
        version: PolicyVersion,
        revision: StoreRevision,
    ) -> Result<Change, String> {
        let policy = match self.policies.get(&version) {
            Some(kept) => self.open_policy(version, &kept.stored, revision)?,
            None => CurrentPolicy {
                version,
                revision,
                ..CurrentPolicy::default()
            },
        };
        let records = self.hosts.values().map(|host| &host.record);
        let interest = Interest::new(&policy.bundle, records);
        Ok(Change::Policy(Box::new(Former {
            interest: std::mem::replace(&mut self.interest, interest),
            policy: std::mem::replace(&mut self.policy, policy),
        })))
    }

    fn open_policy(
        &self,
        version: PolicyVersion,
        stored: &StoredPolicy,
        revision: StoreRevision,
    ) -> Result<CurrentPolicy, String> {
        let head = Signed::try_from(&stored.head)?;
        // In the order in which they were signed: it is not always the bundle's.
        let leaves: Result<Vec<_>, String> = stored
            .leaves
            .open()?
            .iter()
            .map(|it| from_base64(it))
            .collect();
        let leaves = leaves?;
        if leaves.is_empty() {
            return Err("it has no denies".to_owned());
        }
        let tree = BundleTree::from_leaves(leaves);
        let slice = PolicySlice {
            head,
            leaves: tree.prove_all(),
        };
        let (head, bundle) = self
            .anchors
            .verify_slice(&slice)
            .map_err(|error| error.to_string())?;
        Ok(CurrentPolicy {
            version,
            revision,
            head: Some(head),
            positions: tree.positions(&bundle),
            bundle,
            slice,
            tree,
        })
    }

    fn delete(&mut self, key: &Key, revision: StoreRevision) -> Change {
        self.modified.remove(key);
        match Place::of(key) {
            Some(Place::Host(id)) => {
                self.forget_host(id);
                self.members_changed = self.members_changed.max(revision);
                return Change::Removed(self.interest.remove(id));
            }
            Some(Place::Name(name)) => {
                self.names.remove(&name);
            }
            Some(Place::WireguardKey(key)) => {
                self.wireguard_keys.remove(&key);
            }
            Some(Place::Address(index)) => {
                self.addresses.remove(&index);
            }
            Some(Place::Statement(epoch, serial)) => {
                self.statements.remove(&(epoch, serial));
            }
            Some(Place::Believer(id)) => {
                self.believers.remove(&id);
            }
            Some(Place::Tombstone(id)) => self.forget_tombstone(id),
            Some(Place::Token(id)) => {
                self.tokens.remove(&id);
            }
            Some(Place::Use(id, slot)) => self.forget_use(id, slot),
            Some(Place::PolicyVersion(version)) => {
                self.policies.remove(&version);
            }
            Some(Place::Admin(name)) => {
                self.admins.remove(&name);
            }
            Some(Place::AuditEntry(number)) => self.audit.remove_entry(number),
            Some(Place::AuditTip(hash)) => self.audit.remove_tip(&hash),
            Some(Place::Recovery) => {
                self.recovery = None;
                self.recalled = None;
            }
            Some(Place::TlsKey(_)) => {}
            Some(Place::Fleet | Place::Pruned | Place::Epoch | Place::CurrentPolicy) | None => {}
        }
        Change::Internal
    }

    fn forget_use(&mut self, id: model::ids::TokenId, slot: u32) {
        if let Some(uses) = self.uses.get_mut(&id) {
            uses.remove(&slot);
            if uses.is_empty() {
                self.uses.remove(&id);
            }
        }
    }
}

/// Reads the bundle that was signed: its leaves, as they were.
pub(crate) fn decode_bundle(stored: &StoredPolicy) -> Result<Bundle, String> {
    let texts = stored.leaves.open()?;
    let mut leaves = Vec::with_capacity(texts.len());
    for text in &texts {
        let leaf = from_base64(text)?;
        leaves.push(model::wire::decode_leaf(&leaf).map_err(|error| error.to_string())?);
    }
    Ok(Bundle::from_leaves(leaves))
}

/// Writes the leaves of a tree as they are signed.
pub(crate) fn encode_leaves(tree: &BundleTree) -> Vec<String> {
    let leaves = tree.leaves().iter();
    leaves.map(|leaf| BASE64.encode(leaf)).collect()
}
