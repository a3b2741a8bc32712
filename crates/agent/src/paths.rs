//! Where each peer may be reached, which of it is tried now, and what this host saw itself. The
//! shard keeps a path that works; here is what to try when none does, and what to tell others.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dataplane::{DataCipher, Path, PathMtuReport, PeerReport};
use model::address::OverlayPrefixes;
use model::control::FromHost;
use model::ids::HostId;
use model::limits::Limits;
use model::map::{Endpoint, EndpointKind};
use model::time::Instant;

use crate::output::Outputs;
use crate::timer::{Timeout, is_due};

/// The paths of every peer.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    peers: BTreeMap<HostId, PeerPaths>,
    /// Seen, and not yet told to the coordinator; the latest of each peer.
    untold: BTreeMap<HostId, SocketAddr>,
    tell_at: Option<Instant>,
}

/// The paths of one peer.
#[derive(Clone, Debug, Default)]
pub(crate) struct PeerPaths {
    candidates: Vec<Endpoint>,
    /// Which candidate is tried now.
    current: usize,
    /// From where the peer's last authenticated packets came, while it answers.
    live: Option<SocketAddr>,
    told: Option<SocketAddr>,
    pub(crate) path_mtu: Option<PathMtuReport>,
    pub(crate) cipher: Option<DataCipher>,
    pub(crate) last_handshake: Option<Instant>,
    received_bytes: u64,
    sent_bytes: u64,
    lanes: BTreeMap<u16, Lane>,
}

/// A session with a peer besides the main one.
#[derive(Clone, Copy, Debug)]
struct Lane {
    is_open: bool,
    received_bytes: u64,
    sent_bytes: u64,
}

/// News of paths wait this long, so that a burst of them is told at once.
const TELL_AFTER: Duration = Duration::from_secs(2);
/// Observations told at once; the rest waits for the next time.
const TELL_AT_ONCE_MAX: usize = 64;

impl Paths {
    pub(crate) fn get(&self, peer: HostId) -> Option<&PeerPaths> {
        self.peers.get(&peer)
    }

    /// Returns with how many peers a handshake was done since then.
    pub(crate) fn with_handshake_since(&self, since: Instant) -> usize {
        let peers = self.peers.values();
        let handshakes = peers.filter_map(|paths| paths.last_handshake);
        handshakes.filter(|at| *at >= since).count()
    }

    /// Takes what the map says of a peer; returns the path to try when it is another than before.
    pub(crate) fn set_candidates(
        &mut self,
        peer: HostId,
        endpoints: &[Endpoint],
        overlay: &OverlayPrefixes,
    ) -> Option<Path> {
        let paths = self.peers.entry(peer).or_default();
        let before = paths.tried();
        paths.candidates = candidates(endpoints, overlay);
        // What is tried and still named stays; else the best is tried first.
        let still = paths
            .candidates
            .iter()
            .position(|candidate| Some(candidate.address) == before);
        paths.current = still.unwrap_or(0);
        let after = paths.tried();
        if after == before || paths.live.is_some() {
            None
        } else {
            after.map(path)
        }
    }

    /// Forgets that a peer was ever reached: its key is another now.
    pub(crate) fn start_over(&mut self, peer: HostId) -> Option<Path> {
        let paths = self.peers.get_mut(&peer)?;
        *paths = PeerPaths {
            candidates: std::mem::take(&mut paths.candidates),
            ..<_>::default()
        };
        self.untold.remove(&peer);
        paths.tried().map(path)
    }

    pub(crate) fn remove(&mut self, peer: HostId) {
        self.peers.remove(&peer);
        self.untold.remove(&peer);
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Goes on to the next candidate when the one that failed is the one that is tried; returns
    /// what to try now.
    pub(crate) fn handle_unanswered(&mut self, peer: HostId, failed: Option<Path>) -> Option<Path> {
        let paths = self.peers.get_mut(&peer)?;
        let failed = failed.map(|path| path.remote);
        if paths.live.is_some() && paths.live == failed {
            // It worked before: a peer that moved or restarted is looked for from the best on.
            paths.live = None;
            paths.current = 0;
        } else if failed.is_some() && failed == paths.tried() {
            paths.live = None;
            paths.current = (paths.current + 1) % paths.candidates.len().max(1);
        }
        let next = paths.tried()?;
        (Some(next) != failed).then(|| path(next))
    }

    /// Notes where a peer's authenticated packets come from.
    pub(crate) fn handle_seen(&mut self, peer: HostId, seen: Path, now: Instant) {
        let Some(paths) = self.peers.get_mut(&peer) else {
            return;
        };
        paths.live = Some(seen.remote);
        let is_known = paths
            .candidates
            .iter()
            .any(|known| known.address == seen.remote);
        if is_known || paths.told == Some(seen.remote) {
            self.untold.remove(&peer);
            return;
        }
        self.untold.insert(peer, seen.remote);
        self.tell_at.get_or_insert(now + TELL_AFTER);
    }

    /// Returns whether it is the first session of which nothing more is known.
    pub(crate) fn handle_session(&mut self, peer: HostId, now: Instant) -> bool {
        let Some(paths) = self.peers.get_mut(&peer) else {
            return false;
        };
        paths.last_handshake = Some(now);
        paths.cipher.is_none()
    }

    pub(crate) fn handle_report(&mut self, peer: HostId, report: &PeerReport) {
        let Some(paths) = self.peers.get_mut(&peer) else {
            return;
        };
        if report.lane > 0 {
            let lane = Lane {
                is_open: report.cipher.is_some(),
                received_bytes: report.received_bytes,
                sent_bytes: report.sent_bytes,
            };
            paths.lanes.insert(report.lane, lane);
        } else {
            paths.path_mtu = Some(report.path_mtu);
            paths.cipher = report.cipher;
            paths.last_handshake = report.last_handshake.or(paths.last_handshake);
            paths.received_bytes = report.received_bytes;
            paths.sent_bytes = report.sent_bytes;
        }
    }

    /// Prepares for a coordinator that may not know what another one was told.
    pub(crate) fn handle_welcome(&mut self, now: Instant) {
        for (peer, paths) in &mut self.peers {
            paths.told = None;
            let news = paths.live.filter(|live| {
                paths
                    .candidates
                    .iter()
                    .all(|candidate| candidate.address != *live)
            });
            if let Some(live) = news {
                self.untold.insert(*peer, live);
                self.tell_at.get_or_insert(now + TELL_AFTER);
            }
        }
    }

    /// Tells the coordinator what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, is_online: bool, out: &mut Outputs) {
        if !self.tell_at.is_some_and(|at| is_due(at, now)) {
            return;
        }
        self.tell_at = None;
        if !is_online {
            return;
        }
        for _ in 0..TELL_AT_ONCE_MAX {
            let Some((peer, address)) = self.untold.pop_first() else {
                return;
            };
            if let Some(paths) = self.peers.get_mut(&peer) {
                paths.told = Some(address);
            }
            out.send(FromHost::Observation { peer, address });
        }
        if !self.untold.is_empty() {
            self.tell_at = Some(now + TELL_AFTER);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Timeout {
        self.tell_at.map(|at| (at, "tell where peers were seen"))
    }
}

impl PeerPaths {
    /// Returns where packets to the peer go now, as far as is known.
    pub(crate) fn endpoint(&self) -> Option<SocketAddr> {
        self.live.or_else(|| self.tried())
    }

    pub(crate) fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// Returns how many sessions packets to the peer are spread over; without a main one, lanes of
    /// before may still carry some.
    pub(crate) fn sessions(&self) -> u16 {
        let lanes = self.lanes.values().filter(|lane| lane.is_open).count();
        u16::from(self.cipher.is_some()) + lanes as u16
    }

    /// Returns the bytes that came in all sessions.
    pub(crate) fn received_bytes(&self) -> u64 {
        let lanes = self.lanes.values().map(|lane| lane.received_bytes);
        self.received_bytes + lanes.sum::<u64>()
    }

    /// Returns the bytes that were sent in all sessions.
    pub(crate) fn sent_bytes(&self) -> u64 {
        let lanes = self.lanes.values().map(|lane| lane.sent_bytes);
        self.sent_bytes + lanes.sum::<u64>()
    }

    pub(crate) fn candidates(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.candidates.iter().map(|candidate| candidate.address)
    }

    fn tried(&self) -> Option<SocketAddr> {
        self.candidates
            .get(self.current)
            .map(|candidate| candidate.address)
    }
}

/// Keeps what can be an underlay address of another host, the best kind first, each address once.
fn candidates(endpoints: &[Endpoint], overlay: &OverlayPrefixes) -> Vec<Endpoint> {
    let mut kept: Vec<Endpoint> = Vec::new();
    let mut sorted: Vec<&Endpoint> = endpoints.iter().collect();
    sorted.sort_by_key(|endpoint| endpoint.kind);
    for endpoint in sorted {
        let is_new = kept.iter().all(|other| other.address != endpoint.address);
        if is_new && can_be_tried(endpoint, overlay) && kept.len() < Limits::ENDPOINTS_PER_PEER {
            kept.push(*endpoint);
        }
    }
    kept
}

fn can_be_tried(endpoint: &Endpoint, overlay: &OverlayPrefixes) -> bool {
    let ip = endpoint.address.ip();
    // Loopback leads to this host itself; only an operator can mean that.
    let is_elsewhere = endpoint.kind == EndpointKind::Configured || !ip.is_loopback();
    let is_broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    endpoint.address.port() != 0
        && is_elsewhere
        && !is_broadcast
        && !ip.is_unspecified()
        && !ip.is_multicast()
        && !overlay.contains(ip)
}

fn path(remote: SocketAddr) -> Path {
    Path {
        remote,
        source: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Output;
    use model::ids::FleetId;

    const PEER: HostId = HostId::from_bytes([1; 16]);

    fn overlay() -> OverlayPrefixes {
        OverlayPrefixes::derived_from(FleetId::from_bytes([0; 16]))
    }

    fn endpoint(address: &str, kind: EndpointKind) -> Endpoint {
        Endpoint {
            address: address.parse().unwrap(),
            kind,
        }
    }

    fn at(address: &str) -> Path {
        path(address.parse().unwrap())
    }

    fn two_candidates() -> Paths {
        let mut paths = Paths::default();
        let endpoints = [
            endpoint("192.0.2.9:1", EndpointKind::Coordinator),
            endpoint("192.0.2.1:1", EndpointKind::Interface),
        ];
        assert_eq!(
            paths.set_candidates(PEER, &endpoints, &overlay()),
            Some(at("192.0.2.1:1"))
        );
        paths
    }

    #[test]
    fn candidates_are_tried_in_the_order_of_their_kind_and_around() {
        let mut paths = two_candidates();
        let first = at("192.0.2.1:1");
        let second = at("192.0.2.9:1");
        assert_eq!(paths.handle_unanswered(PEER, Some(first)), Some(second));
        assert_eq!(paths.handle_unanswered(PEER, Some(second)), Some(first));
        assert_eq!(
            paths.handle_unanswered(PEER, None),
            Some(first),
            "the shard had no path"
        );
    }

    #[test]
    fn a_path_that_worked_and_fails_starts_the_search_at_the_best() {
        let mut paths = two_candidates();
        let roamed = at("198.51.100.7:9");
        paths.handle_seen(PEER, roamed, Instant::START);
        assert_eq!(paths.get(PEER).unwrap().endpoint(), Some(roamed.remote));
        let worse = [endpoint("192.0.2.9:1", EndpointKind::Coordinator)];
        assert_eq!(
            paths.set_candidates(PEER, &worse, &overlay()),
            None,
            "what works stays"
        );
        assert_eq!(
            paths.handle_unanswered(PEER, Some(roamed)),
            Some(at("192.0.2.9:1"))
        );
    }

    #[test]
    fn what_cannot_be_an_underlay_address_is_not_tried() {
        let overlay = overlay();
        let inside = SocketAddr::new(overlay.nth_host(0).unwrap().v4.into(), 51820);
        let mut endpoints = vec![Endpoint {
            address: inside,
            kind: EndpointKind::Configured,
        }];
        for bad in [
            "127.0.0.1:51820",
            "0.0.0.0:1",
            "224.0.0.1:1",
            "255.255.255.255:1",
            "10.0.0.1:0",
        ] {
            endpoints.push(endpoint(bad, EndpointKind::Coordinator));
        }
        let mut paths = Paths::default();
        assert_eq!(paths.set_candidates(PEER, &endpoints, &overlay), None);
        assert_eq!(paths.get(PEER).unwrap().candidates().count(), 0);
        assert_eq!(paths.handle_unanswered(PEER, None), None);
    }

    #[test]
    fn only_what_nobody_knew_is_told_and_once() {
        let (mut paths, mut out) = (two_candidates(), Outputs::default());
        paths.handle_seen(PEER, at("192.0.2.1:1"), Instant::START);
        assert_eq!(
            paths.poll_timeout(),
            None,
            "the coordinator named this one itself"
        );
        let roamed = at("198.51.100.7:9");
        for _ in 0..3 {
            paths.handle_seen(PEER, roamed, Instant::START);
            if let Some((when, _)) = paths.poll_timeout() {
                paths.handle_timeout(when, true, &mut out);
            }
        }
        let told: Vec<Output> = std::iter::from_fn(|| out.pop()).collect();
        let [Output::Send(FromHost::Observation { peer, address })] = &told[..] else {
            panic!("{told:?}")
        };
        assert_eq!((*peer, *address), (PEER, roamed.remote));
    }
}
