//! What `wg` has set so far, and the commands that make a shard follow.
//!
//! A peer of a mesh has exactly one address of each family, so a device that routes prefixes to a
//! peer cannot be had here. Everything is allowed between peers: the policy is not what is tested.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dataplane::{Command, DataCipher, Path, PeerKind};
use ipnet::IpNet;
use model::address::HostAddresses;
use model::ids::{Digest, FleetId, HostId, PolicyVersion, Revision};
use model::key::{Secret, WireguardKey};
use model::map::PeerIndex;
use model::name::Labels;
use model::record::HostRecord;
use model::rule::{Bundle, Rule, Selector, Source, Traffic};
use model::time::UnixTime;
use policy::Table;

use crate::request::{Change, PeerChange};

/// The device as it was configured.
#[derive(Clone, Debug)]
pub(crate) struct Configuration {
    own: HostAddresses,
    listen_port: u16,
    cipher: DataCipher,
    private_key: Option<Secret>,
    peers: BTreeMap<WireguardKey, Peer>,
    generation: u64,
}

/// A peer as it was configured.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) index: PeerIndex,
    pub(crate) preshared: Option<Secret>,
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) keepalive: Option<Duration>,
    pub(crate) addresses: Vec<IpNet>,
}

/// Changes that this device cannot follow.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unsupported {
    #[error("the port is {0}, as given on the command line, and stays so")]
    ListenPort(u16),
    #[error("peer {0} needs exactly one IPv4 /32 and one IPv6 /128 as its allowed addresses")]
    Addresses(WireguardKey),
}

impl Configuration {
    pub(crate) fn new(own: HostAddresses, listen_port: u16, cipher: DataCipher) -> Self {
        Self {
            own,
            listen_port,
            cipher,
            private_key: None,
            peers: BTreeMap::new(),
            generation: 0,
        }
    }

    pub(crate) fn listen_port(&self) -> u16 {
        self.listen_port
    }

    pub(crate) fn private_key(&self) -> Option<&Secret> {
        self.private_key.as_ref()
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = (&WireguardKey, &Peer)> {
        self.peers.iter()
    }

    /// Applies all changes and returns what the shard is to be told, or changes nothing.
    pub(crate) fn apply(&mut self, changes: Vec<Change>) -> Result<Vec<Command>, Unsupported> {
        let mut next = self.clone();
        let mut commands = Vec::new();
        for change in changes {
            match change {
                Change::PrivateKey(key) => next.set_private_key(key, &mut commands),
                Change::ListenPort(port) if port == next.listen_port => {}
                Change::ListenPort(_) => return Err(Unsupported::ListenPort(next.listen_port)),
                Change::ReplacePeers => next.remove_all(&mut commands),
                Change::Peer(change) => next.change_peer(change, &mut commands)?,
            }
        }
        next.generation += 1;
        commands.push(Command::SetTable(Arc::new(next.table()?)));
        *self = next;
        Ok(commands)
    }

    fn set_private_key(&mut self, key: Secret, commands: &mut Vec<Command>) {
        commands.push(Command::SetIdentity {
            private_key: key.clone(),
            addresses: self.own,
            timestamp_floor: UnixTime::default(),
        });
        self.private_key = Some(key);
    }

    fn remove_all(&mut self, commands: &mut Vec<Command>) {
        let removed = std::mem::take(&mut self.peers).into_values();
        commands.extend(removed.map(|peer| Command::RemovePeer { index: peer.index }));
    }

    fn change_peer(
        &mut self,
        change: PeerChange,
        commands: &mut Vec<Command>,
    ) -> Result<(), Unsupported> {
        let key = change.key;
        if change.remove {
            let removed = self.peers.remove(&key);
            commands.extend(removed.map(|peer| Command::RemovePeer { index: peer.index }));
            return Ok(());
        }
        if change.update_only && !self.peers.contains_key(&key) {
            return Ok(());
        }
        let index = self.free_index();
        let peer = self.peers.entry(key).or_insert_with(|| Peer::new(index));
        peer.change(change);
        let index = peer.index;
        commands.push(Command::SetPeer {
            index,
            kind: PeerKind::Standard,
            key,
            addresses: peer.host_addresses().ok_or(Unsupported::Addresses(key))?,
            preshared: peer.preshared.clone(),
            keepalive: peer.keepalive,
            cipher: self.cipher,
        });
        commands.extend(peer.endpoint.map(|remote| Command::SetPath {
            index,
            path: Path {
                remote,
                source: None,
            },
        }));
        Ok(())
    }

    fn free_index(&self) -> PeerIndex {
        let taken = |index| self.peers.values().any(|peer| peer.index == index);
        (0..)
            .map(PeerIndex)
            .find(|index| !taken(*index))
            .expect("there are fewer peers than numbers")
    }

    /// Allows everything between this host and its peers.
    fn table(&self) -> Result<Table, Unsupported> {
        let me = record(WireguardKey::from_bytes([0; 32]), self.own);
        let peers = self
            .peers
            .iter()
            .map(|(key, peer)| {
                let addresses = peer.host_addresses().ok_or(Unsupported::Addresses(*key))?;
                Ok((peer.index, record(*key, addresses)))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let peers: Vec<_> = peers
            .iter()
            .map(|(index, record)| (*index, record))
            .collect();
        let version = PolicyVersion(1);
        Ok(Table::compile(
            &me,
            &peers,
            &allow_all(),
            version,
            self.generation,
        ))
    }
}

impl Peer {
    fn new(index: PeerIndex) -> Self {
        Self {
            index,
            preshared: None,
            endpoint: None,
            keepalive: None,
            addresses: Vec::new(),
        }
    }

    fn change(&mut self, change: PeerChange) {
        if let Some(preshared) = change.preshared {
            self.preshared = preshared;
        }
        if let Some(keepalive) = change.keepalive {
            self.keepalive = keepalive;
        }
        self.endpoint = change.endpoint.or(self.endpoint);
        if change.replace_addresses {
            self.addresses.clear();
        }
        self.addresses.extend(change.addresses);
    }

    fn host_addresses(&self) -> Option<HostAddresses> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in &self.addresses {
            match network {
                IpNet::V4(network) if network.prefix_len() == 32 => v4.push(network.addr()),
                IpNet::V6(network) if network.prefix_len() == 128 => v6.push(network.addr()),
                _ => return None,
            }
        }
        let (&[v4], &[v6]) = (v4.as_slice(), v6.as_slice()) else {
            return None;
        };
        Some(HostAddresses { v4, v6 })
    }
}

fn allow_all() -> Bundle {
    let rule = Rule {
        id: "everything".parse().expect("a valid rule id"),
        from: vec![Selector::Any],
        to: vec![Selector::Any],
        traffic: Traffic::All,
        http: Vec::new(),
        when: None,
        source: Source::default(),
    };
    Bundle {
        allow: vec![rule],
        ..Bundle::default()
    }
}

/// The record that a coordinator would have signed for a host.
fn record(key: WireguardKey, addresses: HostAddresses) -> HostRecord {
    let id = key.as_bytes().first_chunk().expect("16 is less than 32");
    HostRecord {
        fleet: FleetId::from_bytes([0; 16]),
        host: HostId::from_bytes(*id),
        name: "peer".parse().expect("a valid name"),
        labels: Labels::new(),
        wireguard_key: key,
        tls_key_hash: Digest::from_bytes([0; 32]),
        addresses,
        offers_aes_256_gcm: false,
        revision: Revision::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;

    fn configuration() -> Configuration {
        let own = HostAddresses {
            v4: "100.64.0.16".parse().unwrap(),
            v6: "fd64::10".parse().unwrap(),
        };
        Configuration::new(own, 51820, DataCipher::default())
    }

    fn set(configuration: &mut Configuration, text: &str) -> Result<Vec<Command>, Unsupported> {
        match Request::parse(&format!("set=1\n{text}")).unwrap() {
            Request::Set(changes) => configuration.apply(changes),
            Request::Get => unreachable!("the text begins with set"),
        }
    }

    fn peer(byte: &str, number: u8) -> String {
        format!(
            "public_key={}\nallowed_ip=100.64.0.{number}/32\nallowed_ip=fd64::{number}/128\n",
            byte.repeat(32)
        )
    }

    #[test]
    fn a_removed_peers_index_is_used_again() {
        let mut configuration = configuration();
        set(&mut configuration, &(peer("07", 17) + &peer("08", 18))).unwrap();
        let gone = format!("public_key={}\nremove=true\n", "07".repeat(32));
        let commands = set(&mut configuration, &gone).unwrap();
        assert!(matches!(
            commands[0],
            Command::RemovePeer {
                index: PeerIndex(0)
            }
        ));
        let commands = set(&mut configuration, &peer("09", 19)).unwrap();
        assert!(matches!(
            commands[0],
            Command::SetPeer {
                index: PeerIndex(0),
                ..
            }
        ));
    }

    #[test]
    fn what_cannot_be_followed_changes_nothing() {
        let mut configuration = configuration();
        set(&mut configuration, &peer("07", 17)).unwrap();
        let wide = format!("public_key={}\nallowed_ip=10.0.0.0/8\n", "08".repeat(32));
        assert!(matches!(
            set(&mut configuration, &wide),
            Err(Unsupported::Addresses(_))
        ));
        let other_port = set(&mut configuration, "replace_peers=true\nlisten_port=9\n");
        assert_eq!(other_port.unwrap_err(), Unsupported::ListenPort(51820));
        assert_eq!(configuration.peers().count(), 1);
    }
}
