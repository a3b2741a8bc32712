//! Handshakes on one core, and what a flood of them costs.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use dataplane::{DataCipher, Path};
use wireguard::{CookieChecker, CookieReply, KeyPair, Load, MacVerdict, PrivateKey};

use crate::measure::{Each, each, grouped, once};
use crate::pair::{Host, now};
use crate::tunnels::{self, End};

const HANDSHAKES: u64 = 500;
const STRANGERS: u32 = 1000;

/// Prints the table.
pub(crate) fn measure() {
    println!("## Handshakes, one core\n");
    println!("| | each | a second |");
    println!("|---|--:|--:|");
    let show = |what: &str, each: Each| {
        println!(
            "| {what} | {} | {} |",
            each.shown(),
            grouped(each.per_second())
        );
    };
    let [initiator, responder] = both_ends();
    show(
        "initiator: initiation, and session from the answer",
        initiator,
    );
    show("responder: initiation read, answer, session", responder);
    let [proven, asked] = cookies();
    show("under load, cookie proven: before the work", proven);
    show("under load, no cookie: checked and answered", asked);
    show(
        "under load, a stranger's initiation through a shard",
        flood(),
    );
}

/// Medians of what each end does for a session.
fn both_ends() -> [Each; 2] {
    let cipher = DataCipher::default();
    let (mut one, mut other) = tunnels::ends(cipher);
    let mut took = [Vec::new(), Vec::new()];
    for number in 1..=HANDSHAKES {
        let time = Duration::from_secs(number * 10);
        drain(&mut one);
        drain(&mut other);
        let (initiation, began) = once(|| one.initiate(number, time));
        let (response, answered) = once(|| {
            let read = other.read(&initiation, cipher);
            other.respond(read, time)
        });
        let ((), completed) = once(|| one.complete(&response, time));
        took[0].push(began + completed);
        took[1].push(answered);
    }
    took.map(|mut all| {
        all.sort();
        Each::new(all[all.len() / 2], 1)
    })
}

/// A tunnel tells what it wants; nobody here needs to know.
fn drain(end: &mut End) {
    while end.tunnel.poll_action().is_some() {}
}

/// A responder's checks of an initiation whose sender has a cookie, and of one without.
fn cookies() -> [Each; 2] {
    let (mut one, other) = tunnels::ends(DataCipher::default());
    let source: SocketAddr = (Ipv4Addr::new(192, 0, 2, 1), 51820).into();
    let checker = CookieChecker::new(other.keys.public(), [4; 32], Duration::ZERO);
    let without = one.initiate(1, Duration::ZERO);
    let reply = checker.reply(&without, source, [6; 24]).expect("it asks");
    let reply = CookieReply::parse(&reply).expect("a cookie reply");
    one.tunnel
        .handle_cookie_reply(&reply, Duration::ZERO)
        .expect("it answers what was sent");
    let with = one.initiate(2, Duration::from_secs(10));
    let proven = each(1000, || {
        for _ in 0..1000 {
            let verdict = checker.check(&with, source, Load::Heavy);
            assert_eq!(verdict, MacVerdict::Accept);
        }
    });
    let asked = each(1000, || {
        for _ in 0..1000 {
            let verdict = checker.check(&without, source, Load::Heavy);
            assert_eq!(verdict, MacVerdict::AskForCookie);
            std::hint::black_box(checker.reply(&without, source, [6; 24]));
        }
    });
    [proven, asked]
}

/// Initiations of as many strangers at once that the shard is under load.
fn flood() -> Each {
    let now = now();
    let mut victim = Host::new(1, now);
    let identity = victim.identity();
    let Host { shard, burst, .. } = &mut victim;
    shard.handle_commands(vec![identity], now, burst);
    let keys = KeyPair::new(&PrivateKey::from_bytes([1; 32]));
    let mut stranger = End::new([0x77; 32], keys.public(), DataCipher::default());
    let initiation = stranger.initiate(1, Duration::ZERO);
    // Jobs are out and stay out: strangers must prove where they are.
    each(STRANGERS as usize, || {
        for number in 0..STRANGERS {
            let from = Path {
                remote: (Ipv4Addr::from(0x0a00_0000 + number), 51820).into(),
                source: None,
            };
            shard.handle_datagram(from, 0, &mut initiation.clone(), now, burst);
            burst.sent();
        }
    })
}
