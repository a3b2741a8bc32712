//! A whole history at one shard: packets, sealed packets, damaged and repeated datagrams, time,
//! other rules, a peer that goes and comes. What must hold is `live`'s.
//!
//! ```text
//! operation 1 | length 2 (little endian) | that many bytes, or what is left | operation …
//! ```

use std::time::Duration;

use crate::Seed;
use crate::live::{Live, Rules};
use crate::packets::{self, Way};

/// More are not looked at.
const OPERATIONS_MAX: usize = 48;
/// Longer than a session lives.
const WAIT_MAX: Duration = Duration::from_secs(400);

const SEND: u8 = 0;
const SEALED: u8 = 1;
const DATAGRAM: u8 = 2;
const WAIT: u8 = 3;
const DAMAGED: u8 = 4;
const REPEATED: u8 = 5;
const RULES: u8 = 6;
const MEMBERSHIP: u8 = 7;
const CARRY: u8 = 8;
const OPERATIONS: u8 = 9;

/// Plays bytes as a history.
pub fn target(bytes: &[u8]) {
    let mut live = Live::new();
    let mut rest = bytes;
    for _ in 0..OPERATIONS_MAX {
        let Some(([operation, low, high], tail)) = rest.split_first_chunk() else {
            break;
        };
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(tail.len());
        let (payload, tail) = tail.split_at(length);
        play(&mut live, operation % OPERATIONS, payload);
        rest = tail;
    }
    live.carry();
}

fn play(live: &mut Live, operation: u8, payload: &[u8]) {
    let choice = payload.first().copied().unwrap_or(0);
    match operation {
        SEND => live.send(payload),
        SEALED => live.receive_sealed(payload),
        DATAGRAM => live.receive(payload),
        WAIT => live.wait(duration(payload)),
        DAMAGED => receive_damaged(live, payload),
        REPEATED => receive_twice(live, payload),
        RULES => {
            // What was sealed under the old rules arrives under them.
            live.carry();
            live.set_rules([Rules::Some, Rules::All, Rules::Nothing][usize::from(choice % 3)]);
        }
        MEMBERSHIP => match choice % 3 {
            0 => live.remove_peer(),
            1 => live.introduce(),
            _ => live.report(),
        },
        _ => live.carry(),
    }
}

fn duration(payload: &[u8]) -> Duration {
    let millis = payload
        .first_chunk()
        .map_or(0, |bytes| u32::from_le_bytes(*bytes));
    Duration::from_millis(millis.into()).min(WAIT_MAX)
}

/// A datagram of the peer with one bit turned, which bit is said by the first two bytes.
fn receive_damaged(live: &mut Live, payload: &[u8]) {
    let Some((at, plaintext)) = payload.split_first_chunk() else {
        return;
    };
    let Some(mut datagram) = live.peer.seal(plaintext, live.now) else {
        return;
    };
    let bit = usize::from(u16::from_le_bytes(*at)) % (datagram.len() * 8);
    datagram[bit / 8] ^= 1 << (bit % 8);
    live.delivered();
    live.receive(&datagram);
    assert!(live.delivered().is_empty(), "a damaged datagram is dropped");
}

fn receive_twice(live: &mut Live, plaintext: &[u8]) {
    let Some(datagram) = live.peer.seal(plaintext, live.now) else {
        return;
    };
    live.receive(&datagram);
    live.delivered();
    live.receive(&datagram);
    assert!(
        live.delivered().is_empty(),
        "a repeated datagram is dropped"
    );
}

/// Writes histories down.
#[derive(Default)]
struct History(Vec<u8>);

impl History {
    fn then(mut self, operation: u8, payload: &[u8]) -> Self {
        let length = u16::try_from(payload.len()).expect("packets are short");
        self.0.push(operation);
        self.0.extend(length.to_le_bytes());
        self.0.extend_from_slice(payload);
        self
    }

    fn wait(self, secs: u32) -> Self {
        self.then(WAIT, &(secs * 1000).to_le_bytes())
    }
}

/// Histories that people have had.
pub(crate) fn seeds() -> Vec<Seed> {
    let (out, back) = (Way::out(), Way::out().back());
    let start = History::default;
    let question = out.udp(5000, 53, b"question");
    let answer = back.udp(53, 5000, b"answer");
    let echo = back.echo_request(7);
    let (syn, syn_ack, ack) = (0x02, 0x12, 0x10);
    let connection = start()
        .then(SEALED, &back.tcp(40000, 22, syn))
        .then(SEND, &out.tcp(22, 40000, syn_ack))
        .then(SEALED, &back.tcp(40000, 22, ack))
        .then(CARRY, b"");
    let mut seeds = vec![
        Seed::new(
            "question-answer",
            start().then(SEND, &question).then(SEALED, &answer).0,
        ),
        Seed::new("connection", connection.0),
        Seed::new(
            "revoked",
            start()
                .then(SEALED, &back.tcp(40000, 22, syn))
                .then(RULES, &[2])
                .then(SEALED, &back.tcp(40000, 22, ack))
                .then(RULES, &[1])
                .then(SEALED, &back.tcp(40000, 8080, syn))
                .0,
        ),
        Seed::new(
            "denied",
            start().then(SEALED, &back.tcp(40000, 8080, syn)).0,
        ),
        Seed::new("repeated", start().then(REPEATED, &echo).0),
        Seed::new(
            "damaged",
            start().then(DAMAGED, &[&[200, 0], &echo[..]].concat()).0,
        ),
        Seed::new(
            "renewed",
            start()
                .then(SEND, &question)
                .wait(125)
                .then(SEND, &question)
                .wait(10)
                .0,
        ),
        Seed::new(
            "expired",
            start().wait(200).then(SEND, &question).then(CARRY, b"").0,
        ),
        Seed::new(
            "unanswered",
            start()
                .wait(200)
                .then(SEND, &question)
                .then(MEMBERSHIP, &[0])
                .wait(100)
                .0,
        ),
        Seed::new(
            "gone-and-back",
            start()
                .then(MEMBERSHIP, &[0])
                .then(SEND, &question)
                .then(MEMBERSHIP, &[1])
                .then(SEND, &question)
                .then(MEMBERSHIP, &[2])
                .0,
        ),
        Seed::new("datagram", start().then(DATAGRAM, &[4; 32]).0),
    ];
    let all = packets::seeds();
    for (name, operation, part) in [("all-sent", SEND, "out"), ("all-sealed", SEALED, "in")] {
        let chosen = all.iter().filter(|seed| seed.name.starts_with(part));
        let history = chosen.fold(start(), |history, seed| {
            history.then(operation, &seed.bytes)
        });
        seeds.push(Seed::new(name, history.0));
    }
    seeds
}
