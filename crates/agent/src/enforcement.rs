//! From one map to the next as commands for the shard: only what changed, in one batch that is
//! applied whole. Owns which peer has which index.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dataplane::{Command, DataCipher, PeerKind};
use model::ids::HostId;
use model::key::WireguardKey;
use model::map::PeerIndex;
use model::record::HostRecord;
use model::rule::{Bundle, CipherDemand, Direction, Service};
use model::time::UnixTime;
use policy::Table;

use crate::at_most::widest;
use crate::keys::HostKeys;
use crate::map::{Map, Peer};
use crate::paths::Paths;

/// What the shard was told.
#[derive(Debug, Default)]
pub(crate) struct Enforcement {
    key: Option<WireguardKey>,
    spare_key: Option<WireguardKey>,
    indices: PeerIndices,
    generation: u64,
    table: Option<Arc<Table>>,
    /// What could be allowed at most, where that is more.
    widest: Option<Table>,
}

impl Enforcement {
    pub(crate) fn index(&self, peer: HostId) -> Option<PeerIndex> {
        self.indices.of.get(&peer).copied()
    }

    pub(crate) fn host(&self, index: PeerIndex) -> Option<HostId> {
        *self.indices.hosts.get(index.0 as usize)?
    }

    /// Returns whether flows to a service may be opened from here to a peer, or from a peer to here:
    /// by packets, or by some request, some process or at some hour.
    pub(crate) fn may_allow(&self, direction: Direction, peer: HostId, service: &Service) -> bool {
        let table = self.widest.as_ref().or(self.table.as_deref());
        let (Some(table), Some(index)) = (table, self.index(peer)) else {
            return false;
        };
        let protocol = service.protocol.ip_protocol();
        table
            .decide(direction, index, protocol, service.port)
            .is_allowed()
    }

    /// Returns the commands that lead from what was in force to `new`.
    pub(crate) fn change(
        &mut self,
        old: Option<&Map>,
        new: &Map,
        keys: &HostKeys,
        timestamp_floor: UnixTime,
        paths: &mut Paths,
    ) -> Vec<Command> {
        let mut commands = Vec::new();
        let is_other_key = self.key != Some(keys.wireguard_public);
        if is_other_key || old.is_none_or(|old| old.me().addresses != new.me().addresses) {
            self.key = Some(keys.wireguard_public);
            commands.push(Command::SetIdentity {
                private_key: keys.wireguard.clone(),
                addresses: new.me().addresses,
                timestamp_floor,
            });
        }
        commands.extend(self.change_spare(keys));
        self.remove_gone(old, new, paths, &mut commands);
        let chooses = |map: &Map| (map.me().offers_aes_256_gcm, map.bundle().cipher);
        let chooses_otherwise = old.is_some_and(|old| chooses(old) != chooses(new));
        for (id, peer) in &new.peers {
            let before = old.and_then(|old| old.peers.get(id));
            if before != Some(peer) || chooses_otherwise {
                self.change_peer(*id, before, peer, (old, new), paths, &mut commands);
            }
        }
        if old.is_none_or(|old| decides_otherwise(old, new)) {
            let table = self.compile(new);
            self.table = Some(Arc::clone(&table));
            commands.push(Command::SetTable(table));
        }
        commands
    }

    /// Returns the commands by which the shard answers to this host's spare key too, or to none.
    pub(crate) fn change_spare(&mut self, keys: &HostKeys) -> Vec<Command> {
        let spare = keys.spare.as_ref();
        let public = spare.map(|spare| spare.public);
        if self.spare_key == public {
            return Vec::new();
        }
        self.spare_key = public;
        let private = spare.map(|spare| spare.private.clone());
        vec![Command::AcceptKey(private)]
    }

    /// Returns the commands that leave the shard without peers and with nothing allowed.
    pub(crate) fn clear(&mut self, paths: &mut Paths) -> Vec<Command> {
        let mut commands: Vec<Command> = self
            .indices
            .of
            .values()
            .map(|&index| Command::RemovePeer { index })
            .collect();
        self.indices = PeerIndices::default();
        self.key = None;
        if self.spare_key.take().is_some() {
            commands.push(Command::AcceptKey(None));
        }
        paths.clear();
        self.generation += 1;
        self.table = None;
        self.widest = None;
        commands.push(Command::SetTable(Arc::new(Table::closed(self.generation))));
        commands
    }

    fn remove_gone(
        &mut self,
        old: Option<&Map>,
        new: &Map,
        paths: &mut Paths,
        commands: &mut Vec<Command>,
    ) {
        let Some(old) = old else { return };
        for id in old.peers.keys().filter(|id| !new.peers.contains_key(*id)) {
            paths.remove(*id);
            if let Some(index) = self.indices.free(*id) {
                commands.push(Command::RemovePeer { index });
            }
        }
    }

    fn change_peer(
        &mut self,
        id: HostId,
        before: Option<&Arc<Peer>>,
        peer: &Peer,
        (old, new): (Option<&Map>, &Map),
        paths: &mut Paths,
        commands: &mut Vec<Command>,
    ) {
        let index = self.indices.take(id);
        let record = &peer.known.record;
        let before = before.map(|before| &before.known.record);
        let tunnel = tunnel_of(new, record);
        let tunnel_before = old.zip(before).map(|(old, before)| tunnel_of(old, before));
        if tunnel_before != Some(tunnel) {
            commands.push(Command::SetPeer {
                index,
                // Nobody else enrols.
                kind: PeerKind::Mesh,
                key: record.wireguard_key,
                addresses: record.addresses,
                preshared: None,
                keepalive: None,
                cipher: chosen_cipher(new, record),
            });
        }
        let mut path = paths.set_candidates(id, &peer.endpoints, &new.statement().overlay);
        if before.is_some_and(|before| before.wireguard_key != record.wireguard_key) {
            path = paths.start_over(id);
        }
        if let Some(path) = path {
            commands.push(Command::SetPath { index, path });
        }
    }

    fn compile(&mut self, map: &Map) -> Arc<Table> {
        self.generation += 1;
        self.widest = widest(map.bundle()).map(|bundle| self.table_of(&bundle, map));
        Arc::new(self.table_of(map.bundle(), map))
    }

    fn table_of(&self, bundle: &Bundle, map: &Map) -> Table {
        let peers: Vec<(PeerIndex, &HostRecord)> = map
            .peer_records()
            .map(|record| {
                let index = self
                    .index(record.host)
                    .expect("every peer of the map has an index");
                (index, record)
            })
            .collect();
        Table::compile(
            map.me(),
            &peers,
            bundle,
            map.policy_version(),
            self.generation,
        )
    }
}

/// What the shard knows of a peer, apart from its path.
fn tunnel_of(map: &Map, peer: &HostRecord) -> impl PartialEq + use<> {
    let cipher = chosen_cipher(map, peer);
    (peer.wireguard_key, peer.addresses, cipher)
}

/// Returns what the sessions that this host begins with a peer are sealed with: the policy and their
/// two records say it and nothing else, so that nobody on the way can talk them into another.
fn chosen_cipher(map: &Map, peer: &HostRecord) -> DataCipher {
    match map.bundle().cipher {
        CipherDemand::AsOffered if map.me().offers_aes_256_gcm && peer.offers_aes_256_gcm => {
            DataCipher::Aes256Gcm
        }
        CipherDemand::AsOffered | CipherDemand::Standard => DataCipher::ChaCha20Poly1305,
    }
}

/// What of a record rules can mean.
fn meant(record: &HostRecord) -> impl PartialEq + '_ {
    (record.host, &record.name, &record.labels, record.addresses)
}

/// Returns whether the compiled table of two maps may differ.
fn decides_otherwise(old: &Map, new: &Map) -> bool {
    old.policy != new.policy
        || meant(old.me()) != meant(new.me())
        || !old
            .peer_records()
            .map(meant)
            .eq(new.peer_records().map(meant))
}

/// Dense numbers of peers, used again.
#[derive(Debug, Default)]
struct PeerIndices {
    of: BTreeMap<HostId, PeerIndex>,
    hosts: Vec<Option<HostId>>,
    free: BTreeSet<u32>,
}

impl PeerIndices {
    /// Returns the peer's index, the lowest free one when it has none.
    fn take(&mut self, host: HostId) -> PeerIndex {
        if let Some(index) = self.of.get(&host) {
            return *index;
        }
        let index = self.free.pop_first().unwrap_or_else(|| {
            self.hosts.push(None);
            u32::try_from(self.hosts.len() - 1).expect("Limits::HOSTS bounds the peers")
        });
        self.hosts[index as usize] = Some(host);
        self.of.insert(host, PeerIndex(index));
        PeerIndex(index)
    }

    fn free(&mut self, host: HostId) -> Option<PeerIndex> {
        let index = self.of.remove(&host)?;
        self.hosts[index.0 as usize] = None;
        self.free.insert(index.0);
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_stay_dense() {
        let mut indices = PeerIndices::default();
        let host = |number| HostId::from_bytes([number; 16]);
        for number in 0..4 {
            assert_eq!(indices.take(host(number)), PeerIndex(u32::from(number)));
        }
        assert_eq!(
            indices.take(host(2)),
            PeerIndex(2),
            "a peer keeps its index"
        );
        assert_eq!(indices.free(host(1)), Some(PeerIndex(1)));
        assert_eq!(indices.free(host(1)), None);
        assert_eq!(indices.take(host(9)), PeerIndex(1));
        assert_eq!(indices.take(host(8)), PeerIndex(4));
    }
}
