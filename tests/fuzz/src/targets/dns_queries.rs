//! DNS queries at the daemon's server, over a socket of the loopback: it answers what it can, with
//! answers that fit the question, and goes on.

use std::cell::{Cell, OnceCell};
use std::net::SocketAddr;
use std::panic;
use std::sync::{Arc, Once};
use std::time::Duration;

use arc_swap::ArcSwap;
use meshd::dns::{DnsServer, Responder};
use tokio::net::UdpSocket;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::Seed;
use crate::member::Member;

/// Long enough for any machine: it ends a test that would wait for ever.
const PATIENCE: Duration = Duration::from_secs(60);
/// The id of the question that is always good; nobody else may use it.
const OWN_ID: [u8; 2] = [0xfe, 0xdc];
const HEADER_BYTES: usize = 12; // RFC 1035 4.1.1
const RESPONSE_BIT: u8 = 0x80;

const A: u16 = 1;
const SOA: u16 = 6;
const PTR: u16 = 12;
const AAAA: u16 = 28;
const SRV: u16 = 33;
const ANY: u16 = 255;

thread_local! {
    static SERVER: OnceCell<Server> = const { OnceCell::new() };
    static PANICS: Cell<usize> = const { Cell::new(0) };
}

/// A server and a client on this thread, so that a panic of the server is seen.
struct Server {
    runtime: Runtime,
    client: UdpSocket,
    _server: DnsServer,
}

/// Asks bytes, then something good.
pub fn target(bytes: &[u8]) {
    if bytes.starts_with(&OWN_ID) {
        return;
    }
    SERVER.with(|server| {
        let server = server.get_or_init(Server::start);
        let before = PANICS.get();
        server.ask(bytes);
        assert_eq!(PANICS.get(), before, "the server does not panic");
    });
}

impl Server {
    fn start() -> Self {
        count_panics();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let names = Arc::new(ArcSwap::new(Member::new().names()));
        let (server, client) = runtime.block_on(async {
            let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
            let responder = Responder {
                names,
                forwarder: None,
                tally: Arc::default(),
            };
            let server = DnsServer::start(loopback, responder)
                .await
                .expect("some port is free");
            let client = UdpSocket::bind(loopback).await.expect("some port is free");
            client.connect(server.address()).await.expect("it is there");
            (server, client)
        });
        Self {
            runtime,
            client,
            _server: server,
        }
    }

    /// The answers before that to the good question are to the bytes.
    fn ask(&self, bytes: &[u8]) {
        let good = question(OWN_ID, &["web-1", "mesh", "internal"], A);
        let dialogue = async {
            self.client.send(bytes).await.expect("the loopback is up");
            self.client.send(&good).await.expect("the loopback is up");
            let mut answer = [0; 65536];
            loop {
                let length = self.client.recv(&mut answer).await.expect("it listens");
                let answer = &answer[..length];
                check(answer);
                if answer.starts_with(&OWN_ID) {
                    let records = u16::from_be_bytes([answer[6], answer[7]]);
                    assert_eq!(records, 1, "the name still has its address");
                    return;
                }
                assert_eq!(answer[..2], bytes[..2], "an answer names its question");
            }
        };
        self.runtime.block_on(async {
            timeout(PATIENCE, dialogue)
                .await
                .expect("the server still answers");
        });
    }
}

fn check(answer: &[u8]) {
    assert!(answer.len() >= HEADER_BYTES, "{answer:02x?}");
    assert!(
        answer[2] & RESPONSE_BIT != 0,
        "an answer to an answer would go round for ever"
    );
}

/// Counts the panics of this thread; the runtime would swallow them.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            before(info);
        }));
    });
}

/// A query of one question.
fn question(id: [u8; 2], labels: &[&str], kind: u16) -> Vec<u8> {
    let mut query = id.to_vec();
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in labels {
        query.push(u8::try_from(label.len()).expect("labels are short"));
        query.extend(label.bytes());
    }
    query.push(0);
    query.extend(kind.to_be_bytes());
    query.extend([0, 1]);
    query
}

/// Adds the record by which a client says that it takes long answers (RFC 6891 6.1.2).
fn with_edns(mut query: Vec<u8>) -> Vec<u8> {
    query[11] = 1;
    query.extend([0, 0, 41, 0x10, 0, 0, 0, 0x80, 0, 0, 0]);
    query
}

/// Questions of every kind.
pub(crate) fn seeds() -> Vec<Seed> {
    let id = [0, 1];
    let name = |host| [host, "mesh", "internal"];
    let mut seeds = vec![
        Seed::new("host-a", question(id, &name("web-1"), A)),
        Seed::new("host-aaaa", question(id, &name("DB-1"), AAAA)),
        Seed::new("service-any", question(id, &name("db"), ANY)),
        Seed::new(
            "service-srv",
            question(id, &["_db", "_tcp", "mesh", "internal"], SRV),
        ),
        Seed::new("nobody", question(id, &name("nobody"), A)),
        Seed::new("apex", question(id, &["mesh", "internal"], SOA)),
        Seed::new("elsewhere", question(id, &["example", "com"], A)),
        Seed::new("root", question(id, &[], ANY)),
        Seed::new("edns", with_edns(question(id, &name("web-1"), A))),
    ];
    let nibbles: Vec<&str> = "0123456789abcdef0123456789abcdef"
        .split("")
        .filter(|nibble| !nibble.is_empty())
        .chain(["ip6", "arpa"])
        .collect();
    seeds.push(Seed::new("reverse-v6", question(id, &nibbles, PTR)));
    let reverse = ["16", "0", "64", "100", "in-addr", "arpa"];
    seeds.push(Seed::new("reverse-v4", question(id, &reverse, PTR)));
    let mut pointer = question(id, &name("web-1"), A);
    pointer.truncate(HEADER_BYTES);
    pointer.extend([0xc0, 12, 0, 1, 0, 1]);
    seeds.push(Seed::new("pointer-to-itself", pointer));
    let mut answer = question(id, &name("web-1"), A);
    answer[2] |= RESPONSE_BIT;
    seeds.push(Seed::new("answer", answer));
    let mut update = question(id, &name("web-1"), SOA);
    update[2] = 5 << 3;
    seeds.push(Seed::new("update", update));
    let mut two = question(id, &name("web-1"), A);
    two[5] = 2;
    two.extend_from_slice(&question(id, &name("db-1"), A)[HEADER_BYTES..]);
    seeds.push(Seed::new("two-questions", two));
    seeds
}
