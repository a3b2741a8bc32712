//! What peers cost that say nothing: memory, and the time of their timers.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use dataplane::{Command, DataCipher, Path, PeerKind};
use model::address::HostAddresses;
use model::key::WireguardKey;
use model::map::PeerIndex;
use model::time::Now;
use wireguard::{KeyPair, PrivateKey, sealed_len};

use crate::measure::{Each, grouped, once};
use crate::pair::{Host, now};
use crate::tunnels::End;

const PEERS: u32 = 10_000;
/// Long enough that nothing of a session is left (WireGuard whitepaper 6.1: three times 180 s).
const IDLE: Duration = Duration::from_secs(600);
const CIPHER: DataCipher = DataCipher::ChaCha20Poly1305;

/// Prints the table.
pub(crate) fn measure() {
    println!("## {} idle peers, one shard\n", grouped(PEERS.into()));
    println!("| | |");
    println!("|---|--:|");
    let mut now = now();
    let mut host = Host::new(1, now);
    let identity = host.identity();
    let Host { shard, burst, .. } = &mut host;
    shard.handle_commands(vec![identity], now, burst);
    let known = allocation_counter::measure(|| {
        let commands = (0..PEERS).flat_map(introduction).collect();
        host.shard.handle_commands(commands, now, &mut host.burst);
    });
    let talked = allocation_counter::measure(|| {
        let ends = (0..PEERS).map(|number| shake_hands(&mut host, number, &mut now));
        ends.for_each(drop);
    });
    let bytes = |total: i64| grouped(total as f64 / f64::from(PEERS));
    println!(
        "| memory of a peer | {} bytes |",
        bytes(known.bytes_current)
    );
    println!(
        "| more with a session | {} bytes |",
        bytes(talked.bytes_current)
    );
    for (what, time) in [("first", IDLE), ("next", IDLE)] {
        let (wakes, took) = once(|| pass(&mut host, &mut now, time));
        let second = Each::new(took, usize::try_from(time.as_secs()).expect("minutes"));
        let minutes = time.as_secs() / 60;
        println!(
            "| timers, {what} {minutes} minutes: {} wake-ups, a second's time | {} |",
            grouped(f64::from(wakes)),
            second.shown()
        );
    }
}

fn introduction(number: u32) -> [Command; 2] {
    let index = PeerIndex(number);
    let keys = KeyPair::new(&PrivateKey::from_bytes(private(number)));
    let peer = Command::SetPeer {
        index,
        kind: PeerKind::Mesh,
        key: WireguardKey::from_bytes(*keys.public().as_bytes()),
        addresses: HostAddresses {
            v4: Ipv4Addr::from(0x6440_1000 + number),
            v6: Ipv6Addr::from(0xfd00_u128 << 112 | u128::from(number + 0x1000)),
        },
        preshared: None,
        keepalive: None,
        cipher: CIPHER,
    };
    let path = Path {
        remote: underlay(number),
        source: None,
    };
    [peer, Command::SetPath { index, path }]
}

/// A peer begins a session, and says no more.
fn shake_hands(host: &mut Host, number: u32, now: &mut Now) {
    // No more of them in a second than go without cookies.
    pass(host, now, Duration::from_millis(10));
    let from = Path {
        remote: underlay(number),
        source: None,
    };
    let victim = KeyPair::new(&PrivateKey::from_bytes(host.private()));
    let mut peer = End::new(private(number), victim.public(), CIPHER);
    let time = now.monotonic.since_start();
    let mut initiation = peer.initiate(now.unix.since_epoch().as_secs(), time);
    host.burst.sent();
    host.shard
        .handle_datagram(from, 0, &mut initiation, *now, &mut host.burst);
    host.run_jobs(*now);
    let answer = host.burst.datagrams.last().expect("it answers").clone();
    peer.complete(&host.burst.memory[answer], time);
    let mut keepalive = vec![0; sealed_len(0, 0)];
    peer.tunnel
        .seal_into(&[], 0, &mut keepalive, time)
        .expect("there is a session");
    host.shard
        .handle_datagram(from, 0, &mut keepalive, *now, &mut host.burst);
    host.run_jobs(*now);
    host.burst.sent();
}

/// Lets time pass, with every timer in between; returns how many went off.
fn pass(host: &mut Host, now: &mut Now, time: Duration) -> u32 {
    let end = now.monotonic + time;
    let mut wakes = 0;
    while let Some((at, _)) = host.shard.poll_timeout().filter(|(at, _)| *at <= end) {
        move_clock(now, at.max(now.monotonic));
        host.shard.handle_timeout(*now, &mut host.burst);
        host.run_jobs(*now);
        host.burst.sent();
        wakes += 1;
    }
    move_clock(now, end);
    wakes
}

fn move_clock(now: &mut Now, monotonic: model::time::Instant) {
    now.unix = now.unix + (monotonic - now.monotonic);
    now.monotonic = monotonic;
}

fn private(number: u32) -> [u8; 32] {
    let mut private = [0x11; 32];
    private[..4].copy_from_slice(&number.to_be_bytes());
    private
}

fn underlay(number: u32) -> SocketAddr {
    (Ipv4Addr::from(0x0a00_0000 + number), 51820).into()
}
