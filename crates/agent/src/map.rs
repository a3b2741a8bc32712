//! The verified state of what this host knows: its own record, its peers, the dead, the rules, at
//! one revision. `sync` makes a new one from a delta; nothing in here was not verified.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::ids::{Digest, HostId, PolicyVersion, Revision};
use model::map::{Endpoint, MapDelta, PeerEntry, PolicySlice};
use model::name::Name;
use model::record::{BundleHead, HostRecord, Signed, TrustStatement};
use model::rule::Bundle;
use model::wire::stored::StoredMap;

use crate::bygone::{FormerPeers, Tombstones};

/// What one host knows, verified.
#[derive(Clone, Debug)]
pub(crate) struct Map {
    pub(crate) trust: Arc<Trusted>,
    pub(crate) revision: Revision,
    pub(crate) own: Arc<Known>,
    pub(crate) peers: BTreeMap<HostId, Arc<Peer>>,
    pub(crate) tombstones: Tombstones,
    pub(crate) former: FormerPeers,
    /// Hosts that the last change offered, with older records than those that were forgotten here.
    pub(crate) left_out: Vec<Name>,
    pub(crate) policy: Arc<Policy>,
}

/// A trust statement that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trusted {
    pub(crate) signed: Signed,
    pub(crate) statement: TrustStatement,
    /// Those that lead to it from one that lists the root that this host was given, the oldest
    /// first; none, when it lists that itself.
    pub(crate) earlier: Vec<Signed>,
}

impl Trusted {
    /// Returns the SHA-256 of the root that issues certificates now.
    pub(crate) fn newest_root(&self) -> Digest {
        let roots = &self.statement.root_certificates;
        trust::sha256(roots.last().expect("a statement lists a root"))
    }
}

/// A host record that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) signed: Signed,
    pub(crate) record: HostRecord,
}

/// A peer's record, and hints where it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) known: Known,
    pub(crate) endpoints: Vec<Endpoint>,
    /// Where it takes the streams of services, if anybody told.
    pub(crate) stream_port: Option<u16>,
}

/// A tombstone that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dead {
    pub(crate) signed: Signed,
    pub(crate) revision: Revision,
}

/// A slice of the policy that holds, and the bundle of its leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) slice: PolicySlice,
    pub(crate) head: BundleHead,
    /// SHA-256 of the head's payload: the next head names it.
    pub(crate) digest: Digest,
    pub(crate) bundle: Bundle,
}

impl Map {
    pub(crate) fn statement(&self) -> &TrustStatement {
        &self.trust.statement
    }

    pub(crate) fn me(&self) -> &HostRecord {
        &self.own.record
    }

    pub(crate) fn bundle(&self) -> &Bundle {
        &self.policy.bundle
    }

    pub(crate) fn policy_version(&self) -> PolicyVersion {
        self.policy.head.version
    }

    /// Returns this host, then its peers in the order of their ids.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = &HostRecord> {
        std::iter::once(self.me()).chain(self.peer_records())
    }

    pub(crate) fn peer_records(&self) -> impl Iterator<Item = &HostRecord> {
        self.peers.values().map(|peer| &peer.known.record)
    }

    pub(crate) fn host(&self, id: HostId) -> Option<&HostRecord> {
        if id == self.me().host {
            return Some(self.me());
        }
        self.peers.get(&id).map(|peer| &peer.known.record)
    }

    pub(crate) fn host_named(&self, name: &Name) -> Option<&HostRecord> {
        self.hosts().find(|host| host.name == *name)
    }

    /// Returns the map as it goes to disk: whole, with everything that is needed to verify it.
    pub(crate) fn to_stored(&self) -> StoredMap {
        StoredMap {
            earlier: self.trust.earlier.clone(),
            trust: self.trust.signed.clone(),
            map: MapDelta {
                trust: Vec::new(),
                base: None,
                revision: self.revision,
                head: None,
                record: Some(self.own.signed.clone()),
                peers: self.peers.values().map(|peer| peer.to_entry()).collect(),
                tombstones: self.tombstones.signed().cloned().collect(),
                forgotten: Vec::new(),
                policy: Some(self.policy.slice.clone()),
                policy_step: None,
            },
            former: self.former.to_stored(),
        }
    }
}

impl Peer {
    fn to_entry(&self) -> PeerEntry {
        PeerEntry {
            record: self.known.signed.clone(),
            endpoints: self.endpoints.clone(),
            stream_port: self.stream_port,
        }
    }
}
