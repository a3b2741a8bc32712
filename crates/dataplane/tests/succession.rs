//! A daemon that takes over from another while both run: no packet is lost, no flow is cut, and the
//! one before can go on when its successor fails.

mod pair;

use std::collections::BTreeSet;
use std::mem::swap;
use std::time::Duration;

use dataplane::{
    Addressee, Bequest, DropReason, Extent, HANDSHAKES_APART, Limits, Shard, ShardConfig, Shift,
};
use model::rule::{Bundle, Rule};
use model::time::{Instant, Now, UnixTime};
use pair::crowd::{Crowd, answer};
use pair::{A, B, Datagram, Pair, UNIX_START, bundle, only, packets, rule, tcp_port};

/// Host A opens flows to port 80 of anybody; nobody opens one to A.
fn only_web() -> Bundle {
    bundle(
        vec![Rule {
            from: only(A),
            ..rule("web", tcp_port(80))
        }],
        Vec::new(),
    )
}

/// How old the successor is when it hears of its host's peers.
const JUST_BEGUN: Duration = Duration::from_millis(300);

struct Succession {
    pair: Pair,
    bundle: Bundle,
    /// The one of A's two daemons that is not in the pair now.
    other: Shard,
    /// When that one's clock started.
    other_started: Duration,
    /// Answers for the successor, which waits with them until it takes over.
    held: Vec<Datagram>,
}

impl Succession {
    /// A has a successor that knows what A's map says, and nothing more.
    fn new(mut pair: Pair, bundle: Bundle) -> Self {
        let host = &pair.hosts[A];
        let config = ShardConfig {
            shift: Shift::Second,
            ..ShardConfig::default()
        };
        // It is a process of its own, that has just begun.
        let now = Now {
            monotonic: Instant::from_start(JUST_BEGUN),
            ..pair.now
        };
        let other = Shard::new(config, [99; 32], now, host.counters.clone());
        let other_started = pair.now.monotonic.since_start() - JUST_BEGUN;
        pair.network.clear();
        let mut it = Self {
            pair,
            bundle,
            other,
            other_started,
            held: Vec::new(),
        };
        it.change_places();
        let commands = vec![
            it.pair.identity(A, UnixTime::from_secs(UNIX_START + 3600)),
            it.pair.peer(A),
        ];
        it.pair.command(A, commands);
        let bundle = it.bundle.clone();
        it.pair.set_bundle_at(A, &bundle);
        it.change_places();
        it
    }

    /// The other of A's daemons is what the pair's methods act on.
    fn change_places(&mut self) {
        let host = &mut self.pair.hosts[A];
        swap(&mut host.shard, &mut self.other);
        swap(&mut host.started, &mut self.other_started);
    }

    fn left(&self, extent: Extent) -> Bequest {
        let left = self.pair.hosts[A]
            .shard
            .bequeath(extent, self.pair.now_at(A));
        Bequest::decode(&left.encode()).expect("what was just written")
    }

    /// The successor begins its handshakes, and the answers wait for it.
    fn shake_hands(&mut self) -> usize {
        let left = self.left(Extent::Peers);
        self.change_places();
        let now = self.pair.now_at(A);
        let host = &mut self.pair.hosts[A];
        host.with(|shard, wire| shard.inherit_peers(&left, now, wire));
        self.pair.command(A, Vec::new());
        let begun = self.pair.hosts[A].shard.inherited_begun();
        self.change_places();
        while let Some(datagram) = self.pair.network.pop_front() {
            if Addressee::of(&datagram.bytes) == Addressee::Initiator(Shift::Second) {
                self.held.push(datagram);
            } else {
                let to = usize::from(datagram.to == self.pair.hosts[B].underlay);
                self.pair.receive(to, datagram.from, 0, &datagram.bytes);
            }
        }
        begun
    }

    fn take_over(&mut self) -> usize {
        let left = self.left(Extent::PeersAndFlows);
        self.change_places();
        let flows = self.pair.hosts[A]
            .shard
            .inherit_flows(&left, self.pair.now_at(A));
        for datagram in std::mem::take(&mut self.held) {
            self.pair.receive(A, datagram.from, 0, &datagram.bytes);
        }
        flows
    }
}

/// A has opened a connection to B, and B's last segment is the next to come.
fn connected(bundle: &Bundle) -> Pair {
    let mut pair = Pair::with_bundle(bundle);
    for (host, flags) in [(A, SYN), (B, SYN | ACK), (A, ACK)] {
        let segment = segment(&pair, host, flags);
        pair.send(host, &segment);
        assert_eq!(pair.delivered(1 - host), [segment]);
    }
    // Peers answer twenty initiations a second at most.
    pair.pass(Duration::from_secs(1));
    pair
}

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

fn segment(pair: &Pair, host: usize, flags: u8) -> Vec<u8> {
    let (source, destination) = pair.v4(host);
    let (from, to) = if host == A { (4000, 80) } else { (80, 4000) };
    packets::tcp(source, destination, from, to, flags)
}

#[test]
fn a_successor_takes_over_between_two_packets() {
    let bundle = only_web();
    let mut it = Succession::new(connected(&bundle), bundle);
    assert_eq!(it.shake_hands(), 1);
    assert_eq!(it.held.len(), 1);
    // The one before goes on meanwhile, in both directions.
    for host in [A, B] {
        let segment = segment(&it.pair, host, ACK);
        it.pair.send(host, &segment);
        assert_eq!(it.pair.delivered(1 - host), [segment]);
    }
    let under_way = segment(&it.pair, B, ACK);
    it.pair.offer(B, &under_way);
    assert_eq!(it.take_over(), 1);
    // What was sealed before is for the one before, who may still open it.
    let old = it.pair.network.pop_front().unwrap();
    assert_eq!(Addressee::of(&old.bytes), Addressee::Session(Shift::First));
    it.change_places();
    it.pair.receive(A, old.from, 0, &old.bytes);
    it.change_places();
    assert_eq!(it.pair.delivered(A), [under_way]);
    it.pair.run();
    // From here on the peer seals for the successor. Its reply passes as part of the flow.
    let reply = segment(&it.pair, B, ACK);
    it.pair.offer(B, &reply);
    let new = it.pair.network.front().unwrap();
    assert_eq!(Addressee::of(&new.bytes), Addressee::Session(Shift::Second));
    it.pair.run();
    assert_eq!(it.pair.delivered(A), [reply]);
    let request = segment(&it.pair, A, ACK);
    it.pair.send(A, &request);
    assert_eq!(it.pair.delivered(B), [request]);
}

#[test]
fn the_successor_s_own_rules_decide_about_flows_it_takes_over() {
    let bundle_before = only_web();
    let mut it = Succession::new(connected(&bundle_before), bundle(Vec::new(), Vec::new()));
    it.shake_hands();
    assert_eq!(it.take_over(), 1);
    it.pair.run();
    let reply = segment(&it.pair, B, ACK);
    it.pair.send(B, &reply);
    assert!(it.pair.delivered(A).is_empty());
    let dropped = |reason| it.pair.hosts[A].counters.dropped(reason);
    assert_eq!(dropped(DropReason::DeniedInbound), 1);
}

#[test]
fn a_flow_idles_out_as_if_there_had_been_one_daemon() {
    let mut pair = Pair::with_bundle(&only_web());
    let opening = segment(&pair, A, SYN);
    pair.send(A, &opening);
    // RFC 5382: four minutes for a connection that is not established; three and a half pass before.
    pair.pass(Duration::from_secs(210));
    let mut it = Succession::new(pair, only_web());
    it.shake_hands();
    assert_eq!(it.take_over(), 1);
    it.pair.run();
    it.pair.pass(Duration::from_secs(20));
    let flows = |it: &Succession| it.left(Extent::PeersAndFlows).flow_count();
    assert_eq!(flows(&it), 1);
    it.pair.pass(Duration::from_secs(20));
    assert_eq!(flows(&it), 0);
}

#[test]
fn flows_of_other_addresses_are_not_taken() {
    let bundle = only_web();
    let mut it = Succession::new(connected(&bundle), bundle);
    let mut left = it.left(Extent::PeersAndFlows);
    assert_eq!(left.flow_count(), 1);
    it.change_places();
    let now = it.pair.now_at(A);
    left.peers[0].addresses.v4 = [100, 64, 9, 9].into();
    assert_eq!(it.pair.hosts[A].shard.inherit_flows(&left, now), 0);
    left.peers[0].addresses = it.pair.hosts[B].overlay;
    left.own = Some(it.pair.hosts[B].overlay);
    assert_eq!(it.pair.hosts[A].shard.inherit_flows(&left, now), 0);
    left.own = Some(it.pair.hosts[A].overlay);
    assert_eq!(it.pair.hosts[A].shard.inherit_flows(&left, now), 1);
}

#[test]
fn the_one_before_goes_on_when_its_successor_fails() {
    let bundle = only_web();
    let mut it = Succession::new(connected(&bundle), bundle);
    it.shake_hands();
    it.take_over();
    it.pair.run();
    // The peer seals for the successor now, which dies.
    it.change_places();
    it.pair.pass(Duration::from_secs(6));
    let now = it.pair.now_at(A);
    it.pair.hosts[A].with(|shard, wire| shard.reclaim(now, wire));
    it.pair.command(A, Vec::new());
    it.pair.run();
    for host in [A, B] {
        let segment = segment(&it.pair, host, ACK);
        it.pair.send(host, &segment);
        assert_eq!(it.pair.delivered(1 - host), [segment], "host {host}");
    }
}

#[test]
fn a_peer_that_missed_the_handshake_is_reached_before_the_one_before_ends() {
    let bundle = only_web();
    let mut it = Succession::new(connected(&bundle), bundle);
    it.shake_hands();
    it.held.clear();
    it.take_over();
    it.pair.pass(Duration::from_secs(6));
    let segment = segment(&it.pair, B, ACK);
    it.pair.offer(B, &segment);
    let (now, from) = (it.pair.now_at(A), it.pair.hosts[B].underlay);
    let from = dataplane::Path {
        remote: from,
        source: None,
    };
    it.pair.hosts[A].with(|shard, wire| shard.handle_former(from, now, wire));
    it.pair.command(A, Vec::new());
    it.pair.network.pop_front();
    it.pair.run();
    it.pair.send(B, &segment);
    assert_eq!(it.pair.delivered(A), [segment]);
}

#[test]
fn a_successor_agrees_with_three_hundred_peers_at_once() {
    const PEERS: usize = 300;
    let limits = Limits::default();
    assert!(
        PEERS > limits.handshake_jobs_loaded && PEERS > limits.handshakes_per_sec_loaded as usize
    );
    let mut crowd = Crowd::new(PEERS);
    let most = crowd.inherit();
    assert_eq!(crowd.shard.inherited_begun(), PEERS);
    assert!(most <= limits.handshake_jobs_loaded, "{most} jobs at once");
    let initiations = crowd.wire.take_datagrams();
    let reached: BTreeSet<_> = initiations.iter().map(|(to, _)| *to).collect();
    assert_eq!(reached.len(), PEERS, "one for each");
    let answers: Vec<_> = initiations
        .iter()
        .map(|sent| answer(&mut crowd, sent))
        .collect();
    // The answers waited, and come all before any work on them is done.
    for (from, datagram) in &answers {
        crowd.receive(*from, datagram);
    }
    assert_eq!(crowd.shard.handshake_jobs(), PEERS);
    // Only the first to each is let through: whoever repeats them must prove its address.
    for (from, datagram) in &answers {
        crowd.receive(*from, datagram);
    }
    assert_eq!(crowd.shard.handshake_jobs(), PEERS);
    let dropped = |reason| crowd.counters.dropped(reason);
    assert_eq!(dropped(DropReason::HandshakeNeedsCookie), PEERS as u64);
    crowd.run_jobs();
    assert_eq!(crowd.counters.handshakes_completed(), PEERS as u64);
    assert!(crowd.counters.balance().holds());
}

#[test]
fn what_waits_for_a_session_makes_the_successor_begin_one() {
    let mut pair = Pair::with_bundle(&only_web());
    let opening = segment(&pair, A, SYN);
    // The predecessor's own handshake is under way when it rests.
    pair.offer(A, &opening);
    assert_eq!(pair.network.len(), 1);
    pair.network.clear();
    pair.pass(Duration::from_secs(1));
    let mut it = Succession::new(pair, only_web());
    assert_eq!(it.shake_hands(), 1);
    assert_eq!(it.held.len(), 1);
    it.pair.hosts[A].shard.abandon_pending();
    let counters = it.pair.hosts[A].counters.clone();
    assert_eq!(counters.dropped(DropReason::HandedOver), 1);
    assert_eq!(counters.queued(), 0);
    assert!(counters.balance().holds());
    it.take_over();
    it.pair.run();
    it.pair.send(A, &opening);
    assert_eq!(it.pair.delivered(B), [opening]);
}

#[test]
fn a_handshake_right_before_the_rest_does_not_cost_the_successor_its_own() {
    for (rested, answered) in [(Duration::ZERO, 0), (HANDSHAKES_APART, 1)] {
        let mut pair = Pair::with_bundle(&only_web());
        let opening = segment(&pair, A, SYN);
        pair.offer(A, &opening);
        let initiation = pair.network.pop_front().unwrap();
        pair.receive(B, initiation.from, 0, &initiation.bytes);
        // B's answer comes when A's daemon rests, and is nobody's.
        pair.network.clear();
        pair.pass(rested);
        let mut it = Succession::new(pair, only_web());
        assert_eq!(it.shake_hands(), 1);
        assert_eq!(it.held.len(), answered, "after {rested:?}");
    }
}

#[test]
fn what_came_to_wait_while_the_one_before_rested_is_begun_when_it_has_left() {
    let mut it = Succession::new(Pair::with_bundle(&only_web()), only_web());
    assert_eq!(it.shake_hands(), 0);
    let opening = segment(&it.pair, A, SYN);
    it.pair.offer(A, &opening);
    it.pair.network.clear();
    let left = it.left(Extent::PeersAndFlows);
    it.pair.hosts[A].shard.abandon_pending();
    it.take_over();
    let now = it.pair.now_at(A);
    for _ in 0..2 {
        it.pair.hosts[A].with(|shard, wire| shard.inherit_wishes(&left, now, wire));
    }
    it.pair.command(A, Vec::new());
    assert_eq!(it.pair.hosts[A].shard.inherited_begun(), 1, "and not twice");
    it.pair.run();
    it.pair.send(A, &opening);
    assert_eq!(it.pair.delivered(B), [opening]);
}
