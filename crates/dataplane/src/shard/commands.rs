//! Commands: who we are, who the peers are, where, and under which rules. All of one call are
//! applied before anything is sent because of one of them.

use std::time::Duration;

use model::address::HostAddresses;
use model::key::{Secret, WireguardKey};
use model::map::PeerIndex;
use model::time::{Instant, Now, UnixTime};
use rand_chacha::rand_core::Rng;
use wireguard::{DataCipher, PublicKey};

use super::{Shard, tunnel_time};
use crate::command::{Command, PeerKind};
use crate::drops::DropReason;
use crate::event::{Event, PeerReport, Report};
use crate::identity::{Identity, OwnKey};
use crate::outbox::{Outbox, Path};
use crate::path_mtu::PathMtu;
use crate::peers::{Peer, PeerParts, preshared_key};

/// What a [`Command::SetPeer`] carries.
struct Configured {
    kind: PeerKind,
    key: WireguardKey,
    addresses: HostAddresses,
    preshared: Option<Secret>,
    keepalive: Option<Duration>,
    cipher: DataCipher,
}

impl Shard {
    /// Applies all commands, then does what follows from them.
    pub fn handle_commands(&mut self, commands: Vec<Command>, now: Now, out: &mut impl Outbox) {
        let mut touched = Vec::new();
        let mut rerouted = Vec::new();
        let mut senders = Vec::new();
        for command in commands {
            match command {
                Command::SetIdentity {
                    private_key,
                    addresses,
                    timestamp_floor,
                } => {
                    self.set_identity(&private_key, addresses, timestamp_floor, now);
                    touched.extend(self.peers.indices());
                }
                Command::AcceptKey(key) => self.accept_key(key.as_ref(), now),
                Command::SetPeer {
                    index,
                    kind,
                    key,
                    addresses,
                    preshared,
                    keepalive,
                    cipher,
                } => {
                    let configured = Configured {
                        kind,
                        key,
                        addresses,
                        preshared,
                        keepalive,
                        cipher,
                    };
                    self.set_peer(index, configured, now);
                    touched.push(index);
                }
                Command::RemovePeer { index } => self.remove_peer(index),
                Command::SetPath { index, path } => {
                    if self.set_path(index, path, now) {
                        rerouted.push(index);
                    }
                    touched.push(index);
                }
                Command::SetTable(table) => self.table = Some(table),
                Command::Sender { of, workload } => senders.push((of, workload)),
                Command::Report => {
                    let report = self.report();
                    self.emit(Event::Report(report));
                }
            }
        }
        for index in rerouted {
            if self.peers.get(index).is_some() {
                self.send_initiation(index, out);
            }
        }
        for index in touched {
            self.settle(index, now, out);
        }
        for (of, workload) in senders {
            self.handle_sender(of, workload, now, out);
        }
        self.counters.set_flows(&self.flows);
    }

    fn set_identity(
        &mut self,
        private_key: &Secret,
        addresses: HostAddresses,
        timestamp_floor: UnixTime,
        now: Now,
    ) {
        self.stamps.raise(timestamp_floor);
        let own = OwnKey::new(private_key, &self.cookie_secrets, tunnel_time(now));
        let before = self.identity.as_ref();
        if before.is_none_or(|identity| identity.addresses != addresses) {
            self.flows.clear();
            self.fragments.clear();
            for index in self.peers.indices() {
                self.forget_claims(index);
            }
        }
        if let Some(identity) = &mut self.identity
            && identity.prefer(&own)
        {
            identity.addresses = addresses;
            self.peers
                .iter_mut()
                .for_each(|(_, peer)| peer.tries_spare = false);
            return;
        }
        let incarnation = self.next_incarnation();
        self.identity = Some(Identity::new(incarnation, own, addresses));
        for index in self.peers.indices() {
            self.reset_tunnel(index, now);
        }
    }

    fn accept_key(&mut self, key: Option<&Secret>, now: Now) {
        let spare = key.map(|key| OwnKey::new(key, &self.cookie_secrets, tunnel_time(now)));
        if let Some(identity) = &mut self.identity {
            identity.set_spare(spare);
        }
    }

    fn reset_tunnel(&mut self, index: PeerIndex, now: Now) {
        self.indices.release_peer(index);
        let incarnation = self.next_incarnation();
        let jitter_seed = self.dice.next_u64();
        let peer = self
            .peers
            .get_mut(index)
            .expect("the caller found the peer");
        peer.reset_tunnel(incarnation, jitter_seed, tunnel_time(now));
        let is_waiting = peer.pending.len() > 0;
        if is_waiting {
            peer.tunnel.request_handshake(tunnel_time(now));
        }
        if let Some(end) = &mut peer.lane {
            (end.is_ended, end.is_wanted) = (true, false);
            self.wake_at(index, tunnel_time(now));
        }
        self.forget_lanes(index, now);
    }

    fn set_peer(&mut self, index: PeerIndex, configured: Configured, now: Now) {
        if index.0 as usize >= self.config.limits.peers {
            return;
        }
        if !self.config.place.has(index) {
            self.set_peer_elsewhere(index, configured.key, configured.addresses);
            return self.change_lane_end(index, configured, now);
        }
        match self.peers.get(index).map(|peer| peer.key) {
            Some(key) if key == configured.key => self.change_peer(index, configured, now),
            Some(former) => {
                self.rekey_peer(index, former, configured.key, now);
                self.change_peer(index, configured, now);
            }
            None => self.add_peer(index, configured, now),
        }
    }

    fn add_peer(&mut self, index: PeerIndex, configured: Configured, now: Now) {
        let Configured {
            kind,
            key,
            addresses,
            preshared,
            keepalive,
            cipher,
        } = configured;
        let parts = PeerParts {
            incarnation: self.next_incarnation(),
            kind,
            key,
            addresses,
            preshared,
            keepalive,
            cipher,
            path_mtu: PathMtu::new(
                self.config.mtu,
                self.config.assumed_mtu,
                kind == PeerKind::Mesh,
            ),
            rejections_per_sec: self.config.limits.rejections_per_peer_per_sec,
            misses_per_sec: self.config.limits.misses_per_peer_per_sec,
            greetings_per_sec: self.config.limits.greetings_per_peer_per_sec,
            jitter_seed: self.dice.next_u64(),
        };
        self.keys.insert(key, index);
        self.routes.insert(addresses, index);
        self.peers.insert(index, Peer::new(parts, tunnel_time(now)));
    }

    /// The host has another key: what is open lives on until the handshake with that is done. It
    /// begins at once, since the host may have forgotten what was open with the former.
    fn rekey_peer(&mut self, index: PeerIndex, former: WireguardKey, key: WireguardKey, now: Now) {
        let peer = self
            .peers
            .get_mut(index)
            .expect("the caller found the peer");
        peer.key = key;
        peer.tunnel.set_peer(PublicKey::from_bytes(*key.as_bytes()));
        if peer.tunnel.has_session(tunnel_time(now)) {
            peer.tunnel.request_handshake(tunnel_time(now));
        }
        if self.keys.get(&former) == Some(&index) {
            self.keys.remove(&former);
        }
        self.keys.insert(key, index);
    }

    /// A lane to the peer lives on, as its main session does.
    fn change_lane_end(&mut self, index: PeerIndex, configured: Configured, now: Now) {
        let Some(peer) = self.peers.get_mut(index) else {
            return;
        };
        if let Some(end) = &mut peer.lane
            && configured.kind != PeerKind::Mesh
        {
            (end.is_ended, end.is_wanted) = (true, false);
            self.wake_at(index, tunnel_time(now));
            return;
        }
        let former = peer.key;
        if former != configured.key {
            self.rekey_peer(index, former, configured.key, now);
        }
        let keepalive = None;
        let configured = Configured {
            keepalive,
            ..configured
        };
        self.change_peer(index, configured, now);
    }

    /// The key is the same, so the session lives on.
    fn change_peer(&mut self, index: PeerIndex, configured: Configured, now: Now) {
        let Configured {
            kind,
            addresses,
            preshared,
            keepalive,
            cipher,
            ..
        } = configured;
        let peer = self
            .peers
            .get_mut(index)
            .expect("the caller found the peer");
        peer.kind = kind;
        peer.path_mtu.set_mesh(kind == PeerKind::Mesh);
        if peer.preshared != preshared {
            peer.tunnel
                .set_preshared_key(preshared_key(preshared.as_ref()));
            peer.preshared = preshared;
        }
        if peer.keepalive != keepalive {
            peer.tunnel
                .set_persistent_keepalive(keepalive, tunnel_time(now));
            peer.keepalive = keepalive;
        }
        peer.cipher = cipher;
        peer.tunnel.set_cipher(cipher);
        let before = std::mem::replace(&mut peer.addresses, addresses);
        if before != addresses {
            self.drop_pending(index, DropReason::UnknownDestination);
            self.flows.remove_peer(index.0);
            self.forget_claims(index);
            self.fragments.clear();
            self.routes.remove(before, index);
        }
        self.routes.insert(addresses, index);
    }

    /// Forgets a peer; dropping its tunnel wipes its keys.
    fn remove_peer(&mut self, index: PeerIndex) {
        self.remove_peer_elsewhere(index);
        self.flows.remove_peer(index.0);
        self.forget_claims(index);
        self.drop_pending(index, DropReason::PeerRemoved);
        let Some(peer) = self.peers.remove(index) else {
            return;
        };
        if self.keys.get(&peer.key) == Some(&index) {
            self.keys.remove(&peer.key);
        }
        self.routes.remove(peer.addresses, index);
        self.indices.release_peer(index);
        self.fragments.clear();
    }

    /// Returns whether the initiation that waits for its answer should be sent to the new path.
    fn set_path(&mut self, index: PeerIndex, path: Path, now: Now) -> bool {
        let time = tunnel_time(now);
        let Some(peer) = self.peers.get_mut(index) else {
            return false;
        };
        if peer.is_path_proven && peer.tunnel.has_session(time) {
            return false;
        }
        let is_new = peer.path != Some(path);
        peer.set_path(path);
        if is_new {
            peer.is_path_proven = false;
        }
        if peer.pending.len() > 0 {
            peer.tunnel.request_handshake(time);
        }
        is_new
    }

    fn report(&self) -> Report {
        let peers = self.peers.iter().map(|(index, peer)| PeerReport {
            peer: index,
            lane: peer.lane.as_ref().map_or(0, |end| end.number),
            path: peer.path,
            path_mtu: peer.path_mtu.report(),
            cipher: peer.tunnel.cipher().filter(|_| is_used(peer)),
            last_handshake: peer.tunnel.last_handshake_at().map(Instant::from_start),
            received_bytes: peer.received_bytes,
            sent_bytes: peer.sent_bytes,
        });
        let mut peers: Vec<PeerReport> = peers.collect();
        let past = (0..).zip(&self.elsewhere).filter_map(|(index, known)| {
            let known = known.as_ref()?;
            Some(known.past.as_ref()?.report(PeerIndex(index)))
        });
        peers.extend(past);
        peers.sort_by_key(|report| report.peer);
        Report { peers }
    }
}

/// Returns whether packets are sealed for the peer here: a lane may only be open for what comes.
fn is_used(peer: &Peer) -> bool {
    peer.lane.as_ref().is_none_or(|end| end.is_open)
}
