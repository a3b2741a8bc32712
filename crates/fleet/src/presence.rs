//! What hosts and their peers report, which is nowhere stored: where a host may be reached, what is
//! in force there, when it was seen. After a restart of the coordinator the hosts say it again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

use model::address::OverlayPrefixes;
use model::control::{Applied, EndpointReport, HeldTrust};
use model::ids::HostId;
use model::limits::Limits;
use model::map::{Endpoint, EndpointKind};
use model::time::{Instant, UnixTime};

use crate::allowance::Allowance;
use crate::config::FleetLimits;
use crate::twins::Struggle;

/// All presences.
#[derive(Debug, Default)]
pub(crate) struct Presences {
    by_host: BTreeMap<HostId, Presence>,
    /// Those with endpoints.
    reachable: BTreeSet<HostId>,
}

/// What is reported of one host.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    pub(crate) applied: Option<Applied>,
    pub(crate) last_seen: Option<UnixTime>,
    /// What it has of the authority on its disk.
    pub(crate) held_trust: Option<HeldTrust>,
    pub(crate) software_version: Option<String>,
    /// What its daemon can enforce.
    pub(crate) features: Option<BTreeSet<String>>,
    /// The last time that two streams of the host fought for its place.
    pub(crate) struggle: Option<Struggle>,
    /// The last time that it changed its WireGuard key.
    pub(crate) key_changed: Option<Instant>,
    reported: Vec<Endpoint>,
    listen_port: u16,
    stream_port: Option<u16>,
    observed: Option<IpAddr>,
    /// The last that each of some peers said, the newest first.
    seen_by_peers: VecDeque<(HostId, SocketAddr)>,
    endpoints: Vec<Endpoint>,
    /// Streams that it may open.
    pub(crate) streams: Allowance,
    /// How often it may be asked what it remembers.
    pub(crate) recalls: Allowance,
    /// Messages that it may send.
    pub(crate) messages: Allowance,
    /// Whole maps that it may be told.
    pub(crate) whole_maps: Allowance,
    /// What it may tell of where others are seen.
    pub(crate) observations: Allowance,
    /// Whether it offers AES-256-GCM, as it said last.
    pub(crate) offers_aes: Option<bool>,
    /// How often its record may come to say that it does.
    pub(crate) ciphers: Allowance,
    /// How often peers may be told where it may be reached.
    pub(crate) passed_on: Allowance,
}

impl Presences {
    pub(crate) fn of(&self, host: HostId) -> Option<&Presence> {
        self.by_host.get(&host)
    }

    /// Returns what is reported of a host, for what no peer is told.
    pub(crate) fn entry(&mut self, host: HostId) -> &mut Presence {
        self.by_host.entry(host).or_default()
    }

    /// Takes over where a host says that it may be reached; returns whether peers have to be told.
    pub(crate) fn report(
        &mut self,
        host: HostId,
        report: EndpointReport,
        overlay: &OverlayPrefixes,
    ) -> bool {
        let presence = self.entry(host);
        presence.reported = report.endpoints;
        presence.listen_port = report.listen_port;
        let has_moved = presence.stream_port != report.stream_port;
        presence.stream_port = report.stream_port;
        self.refresh(host, overlay) || has_moved
    }

    /// Takes over where this coordinator sees a host; returns whether peers have to be told.
    pub(crate) fn observe(
        &mut self,
        host: HostId,
        observed: Option<IpAddr>,
        overlay: &OverlayPrefixes,
    ) -> bool {
        self.entry(host).observed = observed;
        self.refresh(host, overlay)
    }

    /// Takes over where a peer sees a host; returns whether others have to be told. Each peer has one
    /// place: one that lies does not take away what others saw.
    pub(crate) fn observe_by_peer(
        &mut self,
        host: HostId,
        peer: HostId,
        address: SocketAddr,
        overlay: &OverlayPrefixes,
    ) -> bool {
        let seen = &mut self.entry(host).seen_by_peers;
        if seen.contains(&(peer, address)) {
            return false;
        }
        seen.retain(|(observer, _)| *observer != peer);
        seen.truncate(FleetLimits::OBSERVATIONS_PER_HOST - 1);
        seen.push_front((peer, address));
        self.refresh(host, overlay)
    }

    pub(crate) fn forget(&mut self, host: HostId) {
        self.by_host.remove(&host);
        self.reachable.remove(&host);
    }

    /// Returns the hosts that may be reached somewhere.
    pub(crate) fn reachable(&self) -> &BTreeSet<HostId> {
        &self.reachable
    }

    fn refresh(&mut self, host: HostId, overlay: &OverlayPrefixes) -> bool {
        let presence = self.by_host.entry(host).or_default();
        let endpoints = presence.merged(overlay);
        if endpoints == presence.endpoints {
            return false;
        }
        match endpoints.is_empty() {
            true => self.reachable.remove(&host),
            false => self.reachable.insert(host),
        };
        presence.endpoints = endpoints;
        true
    }
}

impl Presence {
    /// Returns where the host may be reached, the most trustworthy first.
    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Returns the TCP port that it takes the streams of services at, if it has told.
    pub(crate) fn stream_port(&self) -> Option<u16> {
        self.stream_port
    }

    /// Puts what everybody says into one list, each address once, the best source first.
    fn merged(&self, overlay: &OverlayPrefixes) -> Vec<Endpoint> {
        // What peers and the coordinator see is theirs to say.
        let reported = self.reported.iter().copied().filter(|endpoint| {
            matches!(
                endpoint.kind,
                EndpointKind::Configured | EndpointKind::Interface
            )
        });
        let by_peers = self.seen_by_peers.iter().map(|&(_, address)| Endpoint {
            address,
            kind: EndpointKind::Peer,
        });
        let by_us = self
            .observed
            .filter(|_| self.listen_port != 0)
            .map(|ip| Endpoint {
                address: SocketAddr::new(ip, self.listen_port),
                kind: EndpointKind::Coordinator,
            });
        let mut endpoints: Vec<Endpoint> = reported.chain(by_peers).chain(by_us).collect();
        // Stable: the host's own order stays within a kind.
        endpoints.sort_by_key(|endpoint| endpoint.kind);
        let mut merged: Vec<Endpoint> = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            let is_known = merged.iter().any(|it| it.address == endpoint.address);
            if !is_known && is_useful(endpoint, overlay) {
                merged.push(endpoint);
            }
        }
        merged.truncate(Limits::ENDPOINTS_PER_PEER);
        merged
    }
}

/// An address that no other machine can send to is no hint, and one in the overlay is a loop.
fn is_useful(endpoint: Endpoint, overlay: &OverlayPrefixes) -> bool {
    let ip = endpoint.address.ip();
    let is_plain = !(ip.is_unspecified() || ip.is_multicast() || ip.is_loopback());
    endpoint.address.port() != 0 && is_plain && !overlay.contains(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay() -> OverlayPrefixes {
        OverlayPrefixes {
            v4: "100.64.0.0/16".parse().unwrap(),
            v6: "fd00::/48".parse().unwrap(),
        }
    }

    fn endpoint(address: &str, kind: EndpointKind) -> Endpoint {
        Endpoint {
            address: address.parse().unwrap(),
            kind,
        }
    }

    const HOST: HostId = HostId::from_bytes([1; 16]);

    const fn peer(number: u8) -> HostId {
        HostId::from_bytes([100 + number; 16])
    }

    fn ports_seen(presences: &Presences) -> Vec<u16> {
        let endpoints = presences.of(HOST).unwrap().endpoints();
        endpoints.iter().map(|it| it.address.port()).collect()
    }

    #[test]
    fn endpoints_are_ordered_by_who_says_so_and_each_is_there_once() {
        let mut presences = Presences::default();
        let endpoints = vec![
            endpoint("10.0.0.1:51820", EndpointKind::Interface),
            endpoint("198.51.100.1:51820", EndpointKind::Configured),
        ];
        presences.report(
            HOST,
            EndpointReport {
                endpoints,
                listen_port: 51820,
                stream_port: None,
            },
            &overlay(),
        );
        presences.observe(HOST, Some("10.0.0.1".parse().unwrap()), &overlay());
        presences.observe_by_peer(HOST, peer(1), "192.0.2.1:4000".parse().unwrap(), &overlay());
        let expected = [
            endpoint("198.51.100.1:51820", EndpointKind::Configured),
            endpoint("10.0.0.1:51820", EndpointKind::Interface),
            endpoint("192.0.2.1:4000", EndpointKind::Peer),
        ];
        assert_eq!(presences.of(HOST).unwrap().endpoints(), expected);
    }

    #[test]
    fn a_host_speaks_neither_for_peers_nor_of_useless_addresses() {
        let mut presences = Presences::default();
        let endpoints = vec![
            endpoint("192.0.2.7:1", EndpointKind::Peer),
            endpoint("127.0.0.1:51820", EndpointKind::Interface),
            endpoint("0.0.0.0:51820", EndpointKind::Interface),
            endpoint("192.0.2.7:0", EndpointKind::Interface),
            endpoint("100.64.0.16:51820", EndpointKind::Interface),
        ];
        let report = EndpointReport {
            endpoints,
            listen_port: 51820,
            stream_port: None,
        };
        assert!(!presences.report(HOST, report, &overlay()));
        assert!(presences.of(HOST).unwrap().endpoints().is_empty());
    }

    #[test]
    fn only_changes_are_told() {
        let mut presences = Presences::default();
        let address = "192.0.2.1:4000".parse().unwrap();
        assert!(presences.observe_by_peer(HOST, peer(1), address, &overlay()));
        assert!(!presences.observe_by_peer(HOST, peer(1), address, &overlay()));
        assert!(!presences.observe_by_peer(HOST, peer(2), address, &overlay()));
        assert!(!presences.observe(HOST, None, &overlay()));
    }

    #[test]
    fn another_port_for_streams_is_told() {
        let mut presences = Presences::default();
        let report = |stream_port| EndpointReport {
            endpoints: vec![endpoint("192.0.2.1:51820", EndpointKind::Interface)],
            listen_port: 51820,
            stream_port,
        };
        assert!(presences.report(HOST, report(None), &overlay()));
        assert!(presences.report(HOST, report(Some(7444)), &overlay()));
        assert!(!presences.report(HOST, report(Some(7444)), &overlay()));
        assert_eq!(presences.of(HOST).unwrap().stream_port(), Some(7444));
    }

    #[test]
    fn observations_are_bounded_and_the_newest_stay() {
        let mut presences = Presences::default();
        for number in 1..=100 {
            let address = SocketAddr::new("192.0.2.1".parse().unwrap(), number.into());
            presences.observe_by_peer(HOST, peer(number), address, &overlay());
        }
        assert_eq!(ports_seen(&presences), [100, 99, 98, 97]);
    }

    #[test]
    fn one_peer_that_lies_takes_nothing_away() {
        let mut presences = Presences::default();
        let ip = "192.0.2.1".parse().unwrap();
        for number in 1..=3 {
            let address = SocketAddr::new(ip, number.into());
            presences.observe_by_peer(HOST, peer(number), address, &overlay());
        }
        for port in 1000..2000 {
            presences.observe_by_peer(HOST, peer(9), SocketAddr::new(ip, port), &overlay());
        }
        assert_eq!(ports_seen(&presences), [1999, 3, 2, 1]);
    }
}
