//! From a delta to a new map: every signature, every revision, every clash is checked before
//! anything is believed. A delta gives a whole new map or a reason why not.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use model::ids::{Digest, HostId, PolicyVersion, Revision};
use model::key::WireguardKey;
use model::limits::Limits;
use model::map::{Endpoint, EndpointKind, MapDelta, PeerEntry, PolicySlice, PolicyStep};
use model::name::Name;
use model::record::{BundleHead, HostRecord, Signed, Tombstone};
use model::wire::stored::{StoredHighWater, StoredMap};
use trust::bundle::carry_over;
use trust::{TrustAnchors, sha256};

use crate::bygone::{FormerPeers, Tombstones};
use crate::map::{Known, Map, Peer, Policy, Trusted};

/// What this host knows of itself, whatever a coordinator says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SelfKnowledge {
    pub(crate) host: HostId,
    pub(crate) wireguard_key: WireguardKey,
    /// The key after or before that one, while it changes.
    pub(crate) spare_key: Option<WireguardKey>,
    pub(crate) tls_key_hash: Digest,
}

impl SelfKnowledge {
    fn has(&self, wireguard_key: WireguardKey) -> bool {
        wireguard_key == self.wireguard_key || Some(wireguard_key) == self.spare_key
    }
}

/// What has to hold for a delta to be believed.
pub(crate) struct Verifier<'a> {
    pub(crate) anchors: &'a TrustAnchors,
    pub(crate) trust: &'a Arc<Trusted>,
    pub(crate) me: SelfKnowledge,
    pub(crate) high_water: &'a StoredHighWater,
}

/// What a delta means.
#[derive(Debug)]
pub(crate) enum Step {
    /// The host has this already.
    Old,
    /// A new map.
    New(Box<Map>),
    /// The same map, with other hints where peers may be.
    Hint(Box<Map>),
    /// The fleet signed that this host is no member any more.
    Removed(Tombstone),
}

/// Why a delta is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SyncError {
    /// A delta between is missing: ask for a whole map.
    #[error("it builds on {base}, but this host has {}", shown(*have))]
    Gap {
        have: Option<Revision>,
        base: Revision,
    },
    /// Keys that are no longer believed signed what this host has: ask for a whole map.
    #[error("{what} is signed by keys that are no longer believed")]
    Outdated { what: String },
    /// It does not hold.
    #[error("{0}")]
    Refused(String),
}

impl Verifier<'_> {
    /// Makes the map that `current` becomes by `delta`, which a coordinator sent.
    ///
    /// # Errors
    /// Says what does not hold; `current` stays what it is.
    pub(crate) fn step(&self, current: Option<&Map>, delta: &MapDelta) -> Result<Step, SyncError> {
        let step = self.follow(current, delta)?;
        if matches!(step, Step::New(_)) {
            self.check_head(delta)?;
        }
        Ok(step)
    }

    /// Makes the map of what this host wrote down itself.
    ///
    /// # Errors
    /// Says what does not hold.
    pub(crate) fn restore(&self, stored: &StoredMap) -> Result<Step, SyncError> {
        let mut step = self.follow(None, &stored.map)?;
        if let Step::New(map) = &mut step {
            map.former = FormerPeers::of(&stored.former);
        }
        Ok(step)
    }

    fn follow(&self, current: Option<&Map>, delta: &MapDelta) -> Result<Step, SyncError> {
        let have = current.map(|map| map.revision);
        if let Some(base) = delta.base {
            if have.is_some_and(|have| delta.revision <= have && base < have) {
                return Ok(Step::Old);
            }
            if have != Some(base) {
                return Err(SyncError::Gap { have, base });
            }
        }
        self.check_revision(have, delta.revision)?;
        let mut draft = Draft::new(current, delta.base.is_some());
        if let Some(tombstone) = self.bury(&mut draft, &delta.tombstones)? {
            return Ok(Step::Removed(tombstone));
        }
        for id in &delta.forgotten {
            draft.forget(*id);
        }
        for entry in &delta.peers {
            self.add_peer(&mut draft, current, entry)?;
        }
        if delta.base.is_none() {
            draft.forget_absent(current);
        }
        if let Some(signed) = &delta.record {
            draft.own = Some(self.own_record(current, signed)?);
        }
        if let Some(slice) = &delta.policy {
            draft.policy = Some(self.policy(current, slice)?);
        }
        if let Some(step) = &delta.policy_step {
            let slice = self.carried_over(current, step)?;
            draft.policy = Some(self.policy(current, &slice)?);
        }
        if current.is_some_and(|map| self.has_dropped_keys_of(map)) {
            self.keep_what_holds(&mut draft)?;
        }
        let map = draft.finish(self.trust, delta.revision)?;
        check_consistent(&map)?;
        match current.filter(|_| delta.base == Some(delta.revision)) {
            None => Ok(Step::New(Box::new(map))),
            Some(current) => {
                check_hint(current, delta, &map)?;
                Ok(Step::Hint(Box::new(map)))
            }
        }
    }

    /// Checks that the trust statement is not older than one that was believed before.
    ///
    /// # Errors
    /// It is.
    pub(crate) fn check_trust(&self) -> Result<(), SyncError> {
        let found = (self.trust.statement.epoch, self.trust.statement.serial);
        let highest = (self.high_water.trust_epoch, self.high_water.trust_serial);
        if found < highest {
            return Err(refused(format!(
                "the trust statement is {}.{}, older than {}.{} which was believed here",
                found.0, found.1, highest.0, highest.1
            )));
        }
        Ok(())
    }

    fn has_dropped_keys_of(&self, map: &Map) -> bool {
        let believed = &self.trust.statement.record_keys;
        let mut keys = map.statement().record_keys.iter();
        keys.any(|key| !believed.contains(key))
    }

    /// Looks anew at everything that was believed by keys that are no longer. A tombstone may go:
    /// the records that it stopped were signed by those keys too.
    fn keep_what_holds(&self, draft: &mut Draft) -> Result<(), SyncError> {
        draft
            .tombstones
            .retain(|signed| self.anchors.verify_tombstone(signed).is_ok());
        let peers = draft.peers.values().map(|peer| &peer.known);
        for known in peers.chain(draft.own.as_deref()) {
            if self.anchors.verify_record(&known.signed).is_err() {
                let what = format!("the record of {}", known.record.name);
                return Err(SyncError::Outdated { what });
            }
        }
        let head = draft.policy.as_ref().map(|policy| &policy.slice.head);
        match head.map(|head| self.anchors.verify_head(head)) {
            Some(Err(_)) => Err(SyncError::Outdated {
                what: "the policy".to_owned(),
            }),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    fn check_revision(&self, have: Option<Revision>, offered: Revision) -> Result<(), SyncError> {
        let highest = have.max(Some(self.high_water.revision));
        if Some(offered) < highest {
            return Err(refused(format!(
                "it is at revision {offered}, older than {} which was in force here; was the \
                 coordinator restored from a backup without a new epoch?",
                shown(highest)
            )));
        }
        Ok(())
    }

    /// Checks that the fleet has reached the revision, since this host will never go back behind it.
    fn check_head(&self, delta: &MapDelta) -> Result<(), SyncError> {
        let Some(signed) = &delta.head else {
            return Err(refused("its revision is not signed".to_owned()));
        };
        let head = self
            .anchors
            .verify_map_head(signed)
            .map_err(|error| invalid("its revision", error))?;
        if head.revision != delta.revision {
            return Err(refused(format!(
                "it says revision {}, but {} is signed",
                delta.revision, head.revision
            )));
        }
        Ok(())
    }

    /// Takes the tombstones in; returns the one of this host, if there is one.
    fn bury(
        &self,
        draft: &mut Draft,
        tombstones: &[Signed],
    ) -> Result<Option<Tombstone>, SyncError> {
        for signed in tombstones {
            let tombstone = self
                .anchors
                .verify_tombstone(signed)
                .map_err(|error| invalid("a tombstone", error))?;
            if tombstone.host == self.me.host {
                return Ok(Some(tombstone));
            }
            draft.bury(signed, &tombstone);
        }
        draft.tombstones.limit();
        Ok(None)
    }

    fn add_peer(
        &self,
        draft: &mut Draft,
        current: Option<&Map>,
        entry: &PeerEntry,
    ) -> Result<(), SyncError> {
        let known = self.record("a peer's record", &entry.record)?;
        let record = &known.record;
        if record.host == self.me.host {
            return Err(refused("it has this host among its own peers".to_owned()));
        }
        if draft.tombstones.has(record.host) {
            // The tombstone beats every record, whoever sent which when.
            return Ok(());
        }
        match current.and_then(|map| map.peers.get(&record.host)) {
            Some(peer) => check_not_older(&peer.known, &known)?,
            None if draft.former.is_newer_than(record) => {
                // A restored coordinator may know no better: the map holds without this host.
                draft.left_out.push(record.name.clone());
                return Ok(());
            }
            None => {}
        }
        draft.former.remove(record.host);
        let before = current.and_then(|map| map.peers.get(&record.host));
        let endpoints = match before {
            Some(before) => told_endpoints(&before.endpoints, &entry.endpoints),
            None => entry.endpoints.clone(),
        };
        // A coordinator that started a moment ago may not have heard it yet.
        let stream_port = entry
            .stream_port
            .or_else(|| before.and_then(|before| before.stream_port));
        let peer = Peer {
            known,
            endpoints,
            stream_port,
        };
        draft.peers.insert(peer.known.record.host, Arc::new(peer));
        Ok(())
    }

    fn own_record(&self, current: Option<&Map>, signed: &Signed) -> Result<Arc<Known>, SyncError> {
        let known = self.record("this host's record", signed)?;
        let record = &known.record;
        if record.host != self.me.host {
            return Err(refused(format!(
                "the record of this host is that of {} ({})",
                record.name, record.host
            )));
        }
        if !self.me.has(record.wireguard_key) || record.tls_key_hash != self.me.tls_key_hash {
            return Err(refused(
                "the record of this host has keys that this host does not have; was its state \
                 directory restored from an old copy, or the machine cloned? `meshctl leave`, \
                 then join with a new token"
                    .to_owned(),
            ));
        }
        if let Some(map) = current {
            check_not_older(&map.own, &known)?;
        }
        Ok(Arc::new(known))
    }

    fn record(&self, what: &'static str, signed: &Signed) -> Result<Known, SyncError> {
        let record = self
            .anchors
            .verify_record(signed)
            .map_err(|error| invalid(what, error))?;
        let overlay = self.trust.statement.overlay;
        let HostRecord {
            addresses, name, ..
        } = &record;
        if !overlay.contains(addresses.v4.into()) || !overlay.contains(addresses.v6.into()) {
            return Err(refused(format!(
                "{name} has an address outside of the overlay"
            )));
        }
        Ok(Known {
            signed: signed.clone(),
            record,
        })
    }

    fn policy(&self, current: Option<&Map>, slice: &PolicySlice) -> Result<Arc<Policy>, SyncError> {
        let (head, bundle) = self
            .anchors
            .verify_slice(slice)
            .map_err(|error| invalid("the policy", error))?;
        let digest = sha256(&slice.head.payload);
        self.last_policy(current).check_next(&head, digest)?;
        Ok(Arc::new(Policy {
            slice: slice.clone(),
            head,
            digest,
            bundle,
        }))
    }

    /// Makes the slice that a step leads to from the one in force. It is no more believed than one
    /// that came whole.
    fn carried_over(
        &self,
        current: Option<&Map>,
        step: &PolicyStep,
    ) -> Result<PolicySlice, SyncError> {
        let head = self
            .anchors
            .verify_head(&step.head)
            .map_err(|error| invalid("the policy", error))?;
        let Some(map) = current else {
            return Err(refused(
                "it changes a policy, and none is in force".to_owned(),
            ));
        };
        let before = map.policy.head.leaf_count;
        carry_over(&map.policy.slice, before, step, head.leaf_count)
            .map_err(|error| invalid("the policy", error))
    }

    /// Returns the latest policy that was believed here.
    fn last_policy(&self, current: Option<&Map>) -> LastPolicy {
        let marks = LastPolicy {
            epoch: self.high_water.policy_epoch,
            version: self.high_water.policy,
            digest: self.high_water.policy_digest,
        };
        let in_map = current.map(|map| LastPolicy {
            epoch: map.policy.head.epoch,
            version: map.policy.head.version,
            digest: Some(map.policy.digest),
        });
        // Of equals the one whose digest is known.
        in_map
            .filter(|it| it.number() >= marks.number())
            .unwrap_or(marks)
    }
}

/// The latest policy that was believed: no other may follow than the one that names it.
struct LastPolicy {
    epoch: u64,
    version: PolicyVersion,
    /// `None`: the marks are older than this check.
    digest: Option<Digest>,
}

impl LastPolicy {
    fn number(&self) -> (u64, PolicyVersion) {
        (self.epoch, self.version)
    }

    fn check_next(&self, head: &BundleHead, digest: Digest) -> Result<(), SyncError> {
        let (last, offered) = (self.version, head.version);
        if (head.epoch, offered) < self.number() {
            return Err(refused(format!(
                "it has policy version {offered}, older than version {last} which was in force here"
            )));
        }
        if head.epoch != self.epoch || self.digest.is_none() {
            return Ok(());
        }
        if offered == last && self.digest != Some(digest) {
            return Err(refused(format!(
                "it has another policy version {offered} than the one that was in force here; was \
                 the coordinator restored from a backup without a new epoch?"
            )));
        }
        let is_next = offered.0.checked_sub(1) == Some(last.0);
        if is_next && self.digest != head.previous {
            return Err(refused(format!(
                "its policy version {offered} was made after another version {last} than the one \
                 that was in force here; was the coordinator restored from a backup without a new \
                 epoch?"
            )));
        }
        Ok(())
    }
}

/// A map in the making.
#[derive(Default)]
struct Draft {
    own: Option<Arc<Known>>,
    peers: BTreeMap<HostId, Arc<Peer>>,
    tombstones: Tombstones,
    former: FormerPeers,
    left_out: Vec<Name>,
    policy: Option<Arc<Policy>>,
}

impl Draft {
    /// A whole map may leave out old tombstones: what was once known of the gone stays known.
    fn new(current: Option<&Map>, is_change: bool) -> Self {
        let Some(map) = current else {
            return Self::default();
        };
        let gone = Self {
            tombstones: map.tombstones.clone(),
            former: map.former.clone(),
            ..Self::default()
        };
        if !is_change {
            return gone;
        }
        Self {
            own: Some(map.own.clone()),
            peers: map.peers.clone(),
            policy: Some(map.policy.clone()),
            ..gone
        }
    }

    fn forget(&mut self, id: HostId) {
        if let Some(peer) = self.peers.remove(&id) {
            self.former.insert(&peer.known.record);
        }
    }

    /// Forgets the peers that a whole map leaves out.
    fn forget_absent(&mut self, current: Option<&Map>) {
        let before = current.into_iter().flat_map(Map::peer_records);
        for record in before {
            if !self.peers.contains_key(&record.host) && !self.tombstones.has(record.host) {
                self.former.insert(record);
            }
        }
    }

    fn bury(&mut self, signed: &Signed, tombstone: &Tombstone) {
        self.tombstones.bury(signed, tombstone);
        self.peers.remove(&tombstone.host);
    }

    fn finish(mut self, trust: &Arc<Trusted>, revision: Revision) -> Result<Map, SyncError> {
        // Many changes may add up to more than the disk's copy may have, and be read back as.
        if self.peers.len() > Limits::HOSTS {
            return Err(refused(format!(
                "it makes more than {} peers",
                Limits::HOSTS
            )));
        }
        self.former.limit();
        Ok(Map {
            trust: trust.clone(),
            revision,
            own: self
                .own
                .ok_or_else(|| refused("it lacks this host's own record".to_owned()))?,
            peers: self.peers,
            tombstones: self.tombstones,
            former: self.former,
            left_out: self.left_out,
            policy: self
                .policy
                .ok_or_else(|| refused("it lacks the policy".to_owned()))?,
        })
    }
}

/// Returns where a peer may be, of which more was known before. A coordinator that started a moment
/// ago may not have heard from the peer itself: what others saw of it, perhaps long ago, is added to
/// what the peer said, and takes the place of nothing.
fn told_endpoints(before: &[Endpoint], told: &[Endpoint]) -> Vec<Endpoint> {
    let is_own =
        |it: &Endpoint| matches!(it.kind, EndpointKind::Configured | EndpointKind::Interface);
    if told.iter().any(is_own) {
        return told.to_vec();
    }
    let own = before.iter().filter(|it| is_own(it));
    let mut endpoints: Vec<Endpoint> = own.copied().collect();
    let is_new = |it: &&Endpoint| endpoints.iter().all(|own| own.address != it.address);
    let seen: Vec<Endpoint> = told.iter().filter(is_new).copied().collect();
    endpoints.extend(seen);
    endpoints.truncate(Limits::ENDPOINTS_PER_PEER);
    endpoints
}

/// Where peers may be reached changes without a new revision; nothing else does.
fn check_hint(current: &Map, delta: &MapDelta, map: &Map) -> Result<(), SyncError> {
    let changes_more = delta.record.is_some()
        || delta.policy.is_some()
        || delta.policy_step.is_some()
        || !delta.tombstones.is_empty()
        || !map.peer_records().eq(current.peer_records());
    if changes_more {
        return Err(refused(format!(
            "it changes more than where peers may be, but not the revision {}",
            delta.revision
        )));
    }
    Ok(())
}

/// Of one host's records the later holds, and one revision has one record.
fn check_not_older(have: &Known, offered: &Known) -> Result<(), SyncError> {
    let (old, new) = (have.record.revision, offered.record.revision);
    if new < old || (new == old && offered.record != have.record) {
        return Err(refused(format!(
            "its record of {} is at revision {new}, but this host has another at {old}",
            offered.record.name
        )));
    }
    Ok(())
}

/// No two hosts share a name, a key or an address.
fn check_consistent(map: &Map) -> Result<(), SyncError> {
    let (mut names, mut keys) = (BTreeMap::new(), BTreeMap::new());
    let (mut v4, mut v6) = (BTreeMap::new(), BTreeMap::new());
    for host in map.hosts() {
        let clash = names
            .insert(&host.name, host)
            .or(keys.insert(host.wireguard_key, host))
            .or(v4.insert(host.addresses.v4, host))
            .or(v6.insert(host.addresses.v6, host));
        if let Some(other) = clash {
            return Err(refused(format!(
                "{} ({}) and {} ({}) share a name, a key or an address",
                other.name, other.host, host.name, host.host
            )));
        }
    }
    Ok(())
}

fn invalid(what: &str, error: impl Display) -> SyncError {
    refused(format!("{what} does not hold: {error}"))
}

fn refused(why: String) -> SyncError {
    SyncError::Refused(why)
}

fn shown(revision: Option<Revision>) -> String {
    revision.map_or_else(|| "nothing".to_owned(), |revision| revision.to_string())
}
