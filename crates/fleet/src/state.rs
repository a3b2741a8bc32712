//! What is durable, as this coordinator knows it: the store's content up to a revision, decoded,
//! verified and indexed. Read everywhere, changed only in `apply`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::address::HostAddresses;
use model::control::{Refusal, RefusalCode};
use model::ids::{Digest, HostId, PolicyVersion, Revision, TokenId};
use model::key::WireguardKey;
use model::map::PolicySlice;
use model::name::Name;
use model::record::{BundleHead, HostRecord, Signed, TrustStatement};
use model::rule::Bundle;
use model::store::{Expect, Key, KeyValue, StoreRevision};
use trust::{BundleTree, TrustAnchors};

use crate::audit::{Chain, Stamp};
use crate::config::LoadError;
use crate::interest::{Interest, Seat, Traits};
use crate::keys::Place;
use crate::stored::{
    StoredAddress, StoredAdmin, StoredFormer, StoredName, StoredPolicy, StoredRecovery,
    StoredToken, StoredUse,
};

/// Everything durable.
#[derive(Debug)]
pub(crate) struct State {
    /// All changes up to this one are in here, and none after it.
    pub(crate) revision: StoreRevision,
    /// When each key was last put: what transactions compare.
    pub(crate) modified: BTreeMap<Key, StoreRevision>,
    pub(crate) anchors: Arc<TrustAnchors>,
    pub(crate) trust: Signed,
    pub(crate) statement: TrustStatement,
    /// When that statement was stored.
    pub(crate) trust_changed: StoreRevision,
    /// Those before it, by epoch and serial, and when each was followed by another.
    pub(crate) statements: BTreeMap<(u64, u64), (StoreRevision, Signed)>,
    /// Hosts that have moved to the newest root of a statement, by its epoch and serial.
    pub(crate) believers: BTreeMap<HostId, (u64, u64)>,

    pub(crate) hosts: BTreeMap<HostId, Host>,
    /// When a host came, went or changed last: a record that was signed again says what it said.
    pub(crate) members_changed: StoreRevision,
    /// By the revision of the last change, also of their signatures alone.
    pub(crate) hosts_by_revision: BTreeSet<(StoreRevision, HostId)>,
    /// Those of them whose record is not their first.
    pub(crate) rewritten_hosts: BTreeSet<(StoreRevision, HostId)>,
    pub(crate) names: BTreeMap<Name, StoredName>,
    pub(crate) wireguard_keys: BTreeMap<WireguardKey, HostId>,
    pub(crate) tls_keys: BTreeMap<Digest, HostId>,
    /// By the id of their machine, where they say it.
    pub(crate) machines: BTreeSet<(String, HostId)>,
    pub(crate) addresses: BTreeMap<u32, StoredAddress>,
    /// The index that was given to a host last, and when.
    pub(crate) last_given: Option<(StoreRevision, u32)>,

    pub(crate) tombstones: BTreeMap<HostId, Gone>,
    pub(crate) tombstones_by_revision: BTreeSet<(StoreRevision, HostId)>,
    pub(crate) gone_tls_keys: BTreeMap<Digest, HostId>,
    pub(crate) revoked_keys: BTreeMap<WireguardKey, HostId>,
    /// Tombstones up to this revision may be missing.
    pub(crate) pruned_through: StoreRevision,
    /// The highest that a missing one said of itself: whoever is not known here, and was signed no
    /// later, may have had it. `None`: none is missing.
    pub(crate) pruned: Option<Revision>,
    /// This store is behind its hosts, and they are being asked.
    pub(crate) recovery: Option<StoredRecovery>,
    /// The statement that hosts remember and that is stored with it, if it is later than the last one
    /// here: verified when it came.
    pub(crate) recalled: Option<Recalled>,
    /// When this epoch was stored; `None`: it is the first.
    pub(crate) epoch_began: Option<StoreRevision>,

    pub(crate) tokens: BTreeMap<TokenId, StoredToken>,
    pub(crate) uses: BTreeMap<TokenId, BTreeMap<u32, StoredUse>>,
    /// Compressed, all but the one in force.
    pub(crate) policies: BTreeMap<PolicyVersion, KeptPolicy>,
    pub(crate) policy: CurrentPolicy,
    /// The members in the sets of that policy.
    pub(crate) interest: Interest,
    pub(crate) admins: BTreeMap<Name, StoredAdmin>,
    pub(crate) audit: Chain,
}

/// A member of the fleet.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) record: HostRecord,
    pub(crate) signed: Signed,
    /// Of its first record.
    pub(crate) created: StoreRevision,
    /// Of its record.
    pub(crate) revision: StoreRevision,
    pub(crate) address_index: u32,
    pub(crate) token: TokenId,
    pub(crate) machine_id: String,
    pub(crate) joined: Stamp,
    /// The last change of what its record says.
    pub(crate) changed: Stamp,
}

/// A host that is no more.
#[derive(Clone, Debug)]
pub(crate) struct Gone {
    pub(crate) name: Name,
    pub(crate) signed: Signed,
    pub(crate) tls_key_hash: Digest,
    /// Of the removal, also when other keys have signed it again since.
    pub(crate) revision: StoreRevision,
    /// As the tombstone says, these two.
    pub(crate) tombstone_revision: Revision,
    pub(crate) reason: String,
    pub(crate) removed: Stamp,
    /// Neither this nor its TLS key is let in again.
    pub(crate) revoked_key: Option<WireguardKey>,
    /// As it was; `None`: an earlier version removed it.
    pub(crate) former: Option<StoredFormer>,
}

/// A statement that hosts remember and that is not in force here.
#[derive(Clone, Debug)]
pub(crate) struct Recalled {
    pub(crate) signed: Signed,
    pub(crate) statement: TrustStatement,
}

/// A version of the policy, compressed as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct KeptPolicy {
    pub(crate) stored: StoredPolicy,
    /// Over its files.
    pub(crate) content_digest: Digest,
}

/// The policy in force. Version 0 is before the first one was read, and denies everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct CurrentPolicy {
    pub(crate) version: PolicyVersion,
    /// When it came into force.
    pub(crate) revision: StoreRevision,
    pub(crate) head: Option<BundleHead>,
    pub(crate) bundle: Bundle,
    /// All leaves with their proofs.
    pub(crate) slice: PolicySlice,
    pub(crate) tree: BundleTree,
    /// Where in the tree each leaf of the bundle stands.
    pub(crate) positions: Vec<u32>,
}

/// The policy that was in force before another, and who was concerned by what.
#[derive(Debug)]
pub(crate) struct Former {
    pub(crate) interest: Interest,
    pub(crate) policy: CurrentPolicy,
}

impl CurrentPolicy {
    /// Returns where in the tree the leaves for a seat stand, ascending.
    pub(crate) fn leaves_for(&self, interest: &Interest, seat: &Seat) -> Vec<u32> {
        let leaves = interest.leaves_for(seat);
        let place = |leaf: &u32| self.positions.get(*leaf as usize).copied();
        let mut places: Vec<u32> = leaves.iter().filter_map(place).collect();
        places.sort_unstable();
        places
    }
}

impl State {
    /// Reads everything that is stored. `pins` are those of the roots whose keys are here, the oldest
    /// first.
    pub(crate) fn load(
        pins: &[Digest],
        loaded: &[KeyValue],
        revision: StoreRevision,
    ) -> Result<Self, LoadError> {
        let fleet_key = Place::Fleet.key();
        let fleet = loaded
            .iter()
            .find(|stored| stored.key == fleet_key)
            .ok_or(LoadError::Empty)?;
        let trust = Self::decode_trust(&fleet.value).map_err(|why| LoadError::Value {
            key: fleet_key.clone(),
            why,
        })?;
        let (anchors, statement) = believed(pins, &trust)?;
        let mut state = Self::empty(revision, anchors, trust, statement);
        for stored in loaded {
            state.put(stored)?;
        }
        Ok(state)
    }

    fn empty(
        revision: StoreRevision,
        anchors: TrustAnchors,
        trust: Signed,
        statement: TrustStatement,
    ) -> Self {
        Self {
            revision,
            modified: BTreeMap::new(),
            anchors: Arc::new(anchors),
            trust,
            statement,
            trust_changed: StoreRevision::ZERO,
            statements: BTreeMap::new(),
            believers: BTreeMap::new(),
            hosts: BTreeMap::new(),
            members_changed: StoreRevision::ZERO,
            hosts_by_revision: BTreeSet::new(),
            rewritten_hosts: BTreeSet::new(),
            names: BTreeMap::new(),
            wireguard_keys: BTreeMap::new(),
            tls_keys: BTreeMap::new(),
            machines: BTreeSet::new(),
            addresses: BTreeMap::new(),
            last_given: None,
            tombstones: BTreeMap::new(),
            tombstones_by_revision: BTreeSet::new(),
            gone_tls_keys: BTreeMap::new(),
            revoked_keys: BTreeMap::new(),
            pruned_through: StoreRevision::ZERO,
            pruned: None,
            recovery: None,
            recalled: None,
            epoch_began: None,
            tokens: BTreeMap::new(),
            uses: BTreeMap::new(),
            policies: BTreeMap::new(),
            policy: CurrentPolicy::default(),
            interest: Interest::default(),
            admins: BTreeMap::new(),
            audit: Chain::default(),
        }
    }

    /// Returns the revision that a host has who knows everything up to `stored`.
    pub(crate) fn map_revision(&self, stored: StoreRevision) -> Revision {
        Revision::new(self.statement.epoch, stored.0)
    }

    /// Returns the revision for a record or tombstone that is signed now.
    ///
    /// The commit's own revision is not known before the commit, so what is signed carries the one
    /// after the last that this coordinator has seen. This is sound without a counter of its own:
    /// the commit compares the host's key with what was seen, so it happens only if nobody else
    /// changed the host since; the record before it was then signed at or below a revision that has
    /// been seen, hence below this one. And a commit's revision is never below what it carries, so
    /// a host at map revision R knows no record above R.
    pub(crate) fn next_revision(&self) -> Revision {
        self.map_revision(self.revision.next())
    }

    /// Returns what a transaction must compare to change a key only if it is as known here.
    pub(crate) fn expectation(&self, key: &Key) -> Expect {
        match self.modified.get(key) {
            Some(revision) => Expect::ModRevision(*revision),
            None => Expect::Absent,
        }
    }

    /// Returns the member that has this name.
    pub(crate) fn host_named(&self, name: &Name) -> Option<&Host> {
        let owner = self.names.get(name)?;
        self.hosts
            .get(&owner.host)
            .filter(|host| host.record.name == *name)
    }

    /// Returns a member that says that it is this machine.
    pub(crate) fn host_on(&self, machine_id: &str) -> Option<&Host> {
        let first = (machine_id.to_owned(), HostId::from_bytes([0; 16]));
        let (found, host) = self.machines.range(first..).next()?;
        (found == machine_id).then(|| &self.hosts[host])
    }

    /// Returns the member that has this name, or says that there is none.
    pub(crate) fn known_host(&self, name: &Name) -> Result<&Host, Refusal> {
        self.host_named(name).ok_or_else(|| {
            let renamed = self.names.get(name).and_then(|it| self.hosts.get(&it.host));
            let services = &self.policy.bundle.services;
            let hint = match renamed {
                Some(host) => format!("; it is called {} now", host.record.name),
                None if services.iter().any(|it| it.name == *name) => {
                    "; that is a service".to_owned()
                }
                None => "; `meshctl hosts list` shows all".to_owned(),
            };
            Refusal::new(
                RefusalCode::NotFound,
                format!("there is no host {name}{hint}"),
            )
        })
    }

    /// Returns where a host that is no more would sit if it had stayed as it was last.
    pub(crate) fn last_seat(&self, gone: HostId) -> Option<Seat> {
        let tombstone = self.tombstones.get(&gone)?;
        let former = tombstone.former.as_ref()?;
        Some(self.interest.seat_for(&Traits {
            host: gone,
            name: &tombstone.name,
            labels: &former.labels,
        }))
    }

    /// Returns the records of all members, in the order of their ids.
    pub(crate) fn inventory(&self) -> Vec<HostRecord> {
        self.hosts
            .values()
            .map(|host| host.record.clone())
            .collect()
    }

    /// Returns how many hosts have joined with a token. Uses that are not remembered any more are
    /// those of the slots before the first one that is.
    pub(crate) fn uses_of(&self, token: &TokenId) -> u32 {
        let Some(uses) = self.uses.get(token) else {
            return 0;
        };
        let is_limited = self.tokens.get(token).is_some_and(|it| it.uses.is_some());
        let first = uses.first_key_value().map_or(0, |(slot, _)| *slot);
        let forgotten = if is_limited { 0 } else { first };
        let kept = u32::try_from(uses.len()).unwrap_or(u32::MAX);
        forgotten.saturating_add(kept)
    }

    /// Returns the overlay addresses at an index of the plan.
    pub(crate) fn nth_addresses(&self, index: u32) -> Option<HostAddresses> {
        self.statement.overlay.nth_host(index)
    }
}

/// Believes the store's trust statement by the roots whose keys are here; the key of the newest has
/// to be among them, since nobody would believe what another one signs for long.
fn believed(pins: &[Digest], trust: &Signed) -> Result<(TrustAnchors, TrustStatement), LoadError> {
    let given = *pins.last().expect("an authority has a root");
    let other = |why: String| LoadError::OtherAuthority { given, why };
    let newest_first = pins.iter().rev();
    let found = newest_first.map(|pin| TrustAnchors::from_statement(trust, pin));
    let found = found.reduce(|best, next| if best.is_ok() { best } else { next });
    let (anchors, statement) = found
        .expect("an authority has a root")
        .map_err(|error| other(error.to_string()))?;
    let newest = anchors.newest_root();
    if !pins.contains(&newest) {
        return Err(other(format!(
            "the fleet's newest root is {newest}, and its key is not in the authority's file: that \
             is older than the last rotation"
        )));
    }
    Ok((anchors, statement))
}
