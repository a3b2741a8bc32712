//! What a host has in force, read from the bytes that it put on its disk, and what the plain reading
//! of that policy says of a packet. Shares no code with the agent, the shard or the compiled table.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dataplane::packet::{Headers, Upper};
use model::address::HostAddresses;
use model::ids::{HostId, PolicyVersion, Revision};
use model::name::Name;
use model::record::HostRecord;
use model::rule::{Bundle, Selector, Service, ip_protocol};
use model::wire;
use model::wire::stored::decode_map;
use policy::reference::decide;

use crate::packet::Side;

/// A map as a host stored it. Signatures are not looked at: that is what is being tested.
#[derive(Clone, Debug)]
pub(crate) struct KnownMap {
    pub(crate) revision: Revision,
    pub(crate) version: PolicyVersion,
    pub(crate) me: HostRecord,
    pub(crate) peers: BTreeMap<HostId, HostRecord>,
    pub(crate) bundle: Bundle,
}

impl KnownMap {
    /// Reads what a host wrote.
    ///
    /// # Errors
    /// Names the part that cannot be read, or that two hosts share.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        let stored = decode_map(bytes).map_err(|error| error.to_string())?;
        let map = stored.map;
        let record = |signed: &model::record::Signed| {
            wire::decode_host_record(&signed.payload).map_err(|error| error.to_string())
        };
        let slice = map.policy.ok_or("a stored map without a policy")?;
        let head =
            wire::decode_bundle_head(&slice.head.payload).map_err(|error| error.to_string())?;
        let leaves: Result<Vec<_>, _> = slice
            .leaves
            .iter()
            .map(|proven| wire::decode_leaf(&proven.leaf))
            .collect();
        let peers: Result<BTreeMap<_, _>, String> = map
            .peers
            .iter()
            .map(|peer| record(&peer.record).map(|record| (record.host, record)))
            .collect();
        let known = Self {
            revision: map.revision,
            version: head.version,
            me: record(&map.record.ok_or("a stored map without its own record")?)?,
            peers: peers?,
            bundle: Bundle::from_leaves(leaves.map_err(|error| error.to_string())?),
        };
        known.check_distinct()?;
        Ok(known)
    }

    pub(crate) fn hosts(&self) -> impl Iterator<Item = &HostRecord> {
        std::iter::once(&self.me).chain(self.peers.values())
    }

    /// Returns a peer that no allow of its own part of the policy connects it with.
    pub(crate) fn stranger(&self) -> Option<&Name> {
        let mut peers = self.peers.values();
        let stranger = peers.find(|peer| !links(&self.bundle, &self.me, peer));
        stranger.map(|peer| &peer.name)
    }

    fn check_distinct(&self) -> Result<(), String> {
        let (mut names, mut addresses) = (BTreeMap::new(), BTreeMap::new());
        for host in self.hosts() {
            let HostAddresses { v4, v6 } = host.addresses;
            let clash = names
                .insert(&host.name, host.host)
                .or(addresses.insert(IpAddr::V4(v4), host.host))
                .or(addresses.insert(IpAddr::V6(v6), host.host));
            if let Some(other) = clash {
                return Err(format!(
                    "{} ({}) and {other} share a name or address",
                    host.name, host.host
                ));
            }
        }
        Ok(())
    }

    /// Says why a packet should not have been delivered here; `None`: it was right.
    ///
    /// Requests must be allowed as flows that the peer opened. Replies must be allowed as flows
    /// that this host opened, or in their own right. As `dataplane` documents, a TCP segment in
    /// the middle of a connection passes when either side may have opened it, because a restart
    /// forgets flows and must not cut connections.
    pub(crate) fn objection(&self, packet: &Headers, side: Side) -> Option<String> {
        let peer = match self.peer_at(packet.source) {
            Ok(peer) => peer,
            Err(why) => return Some(why),
        };
        if !self.me.addresses.contains(packet.destination) {
            return Some(format!("{} is not this host's", packet.destination));
        }
        let (source_port, destination_port) = packet.ports();
        let as_request = self.allows(peer, &self.me, packet.ip_protocol, destination_port);
        let as_reply = self.allows(&self.me, peer, packet.ip_protocol, source_port);
        let is_allowed = match (side, packet.upper) {
            (_, Upper::Tcp { flags, .. }) if !flags.syn() => as_request || as_reply,
            (Side::Opener, _) => as_request,
            (Side::Answerer, Upper::EchoReply { .. }) => as_reply,
            (Side::Answerer, _) => as_reply || as_request,
        };
        (!is_allowed).then(|| {
            format!(
                "policy {} denies it: {} -> {}, protocol {}, ports {source_port} -> {destination_port}, {side:?}",
                self.version, peer.name, self.me.name, packet.ip_protocol
            )
        })
    }

    /// Says why an ICMP error about a packet that this host sent should not have been delivered.
    pub(crate) fn objection_to_error(&self, quoted: &Headers) -> Option<String> {
        let peer = match self.peer_at(quoted.destination) {
            Ok(peer) => peer,
            Err(why) => return Some(why),
        };
        let (_, port) = quoted.ports();
        let is_allowed = self.allows(&self.me, peer, quoted.ip_protocol, port);
        (!is_allowed).then(|| format!("an error about a flow that policy {} denies", self.version))
    }

    /// Returns whether `from` may open a flow to `to`.
    pub(crate) fn allows(
        &self,
        from: &HostRecord,
        to: &HostRecord,
        ip_protocol: u8,
        port: u16,
    ) -> bool {
        let port = match ip_protocol {
            ip_protocol::TCP | ip_protocol::UDP => port,
            _ => 0,
        };
        decide(&self.bundle, from, to, ip_protocol, port).allowed
    }

    /// Returns what every name should resolve to: hosts, and services at their endpoints that this
    /// host is or may reach; without any of these only when a rule names the service for this host.
    pub(crate) fn names(&self) -> BTreeMap<Name, Vec<HostAddresses>> {
        let mut names = BTreeMap::new();
        for service in &self.bundle.services {
            let mut addresses: Vec<HostAddresses> = self
                .hosts()
                .filter(|host| {
                    service
                        .endpoints
                        .iter()
                        .any(|endpoint| endpoint.selects(host))
                })
                .filter(|host| host.host == self.me.host || self.may_use(service, host))
                .map(|host| host.addresses)
                .collect();
            addresses.sort_unstable();
            if !addresses.is_empty() || self.is_named_for_me(&service.name) {
                names.insert(service.name.clone(), addresses);
            }
        }
        for host in self.hosts() {
            names.insert(host.name.clone(), vec![host.addresses]);
        }
        names
    }

    fn may_use(&self, service: &Service, at: &HostRecord) -> bool {
        self.allows(&self.me, at, service.protocol.ip_protocol(), service.port)
    }

    fn is_named_for_me(&self, name: &Name) -> bool {
        self.bundle.allow.iter().any(|rule| {
            let mut from = rule.from.iter();
            let names_it = |to: &Selector| matches!(to, Selector::Service(it) if it == name);
            rule.to.iter().any(names_it) && from.any(|from| from.matches(&self.me, &self.bundle))
        })
    }

    fn peer_at(&self, address: IpAddr) -> Result<&HostRecord, String> {
        self.peers
            .values()
            .find(|peer| peer.addresses.contains(address))
            .ok_or_else(|| format!("no peer of revision {} has {address}", self.revision))
    }
}

/// Returns whether an allow connects two hosts, either way. A deny takes flows away, and hides
/// nobody.
pub(crate) fn links(bundle: &Bundle, one: &HostRecord, other: &HostRecord) -> bool {
    let selects = |ends: &[Selector], host: &HostRecord| {
        let mut ends = ends.iter();
        ends.any(|selector| selector.matches(host, bundle))
    };
    bundle.allow.iter().any(|rule| {
        selects(&rule.from, one) && selects(&rule.to, other)
            || selects(&rule.from, other) && selects(&rule.to, one)
    })
}
