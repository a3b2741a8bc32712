//! What a stranger on the underlay can send to a host's WireGuard port: replays, stumps, forgeries and
//! noise, from any source. Nothing of it may do harm.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::time::Duration;

use lab::fleet::{Host, Pair};
use lab::{Lab, LabError, Namespace, Overheard, Wiretap};
use model::key::WireguardKey;
use wireguard::{CookieJar, PublicKey};

const OPEN: &str = "\
fleet: test
allow:
  - { id: all, from: any, to: any, icmp: true, tcp: [8080] }
";

/// WireGuard's port, and its message types: whitepaper, section 5.4.
const PORT: u16 = 51820;
const INITIATION: u8 = 1;
const RESPONSE: u8 = 2;
const DATA: u8 = 4;

/// A machine on the underlay that can send from its own address and from alpha's.
struct Stranger {
    namespace: Namespace,
    own: Ipv4Addr,
}

impl Stranger {
    fn enter(lab: &Lab, pair: &Pair) -> Result<Self, LabError> {
        let namespace = lab.namespace("stranger")?;
        let own = pair.fleet.underlay.attach(&namespace, "eth0")?.v4;
        // With alpha's address on its loopback, a socket here can send from it; neighbours are not
        // to be asked in alpha's name.
        let pose = format!(
            "echo 2 > /proc/sys/net/ipv4/conf/all/arp_announce; ip address add {}/32 dev lo",
            pair.alpha.attachment().v4
        );
        namespace.run("sh", ["-ec", &pose])?;
        Ok(Self { namespace, own })
    }

    /// Sends to the WireGuard port of a host.
    fn send(
        &self,
        from: Ipv4Addr,
        from_port: u16,
        to: &Host,
        payloads: &[Vec<u8>],
    ) -> Result<(), LabError> {
        let target = SocketAddrV4::new(to.attachment().v4, PORT);
        self.namespace.inside(|| {
            let socket = UdpSocket::bind((from, from_port)).unwrap();
            for payload in payloads {
                socket.send_to(payload, target).unwrap();
            }
        })
    }
}

/// What went from one host's tunnel to the other's.
fn overheard(tap: &Wiretap, from: &Host, to: &Host) -> Result<Vec<Vec<u8>>, LabError> {
    let is_theirs = |it: &Overheard| {
        *it.source.ip() == from.attachment().v4 && *it.destination.ip() == to.attachment().v4
    };
    let heard = tap.datagrams()?.into_iter().filter(is_theirs);
    Ok(heard
        .filter(|it| it.destination.port() == PORT)
        .map(|it| it.payload)
        .collect())
}

/// An open connection between two hosts, on which every byte is answered.
struct Conversation {
    client: std::net::TcpStream,
    server: std::net::TcpStream,
}

impl Conversation {
    fn start(from: &Host, to: &Host) -> Result<Self, LabError> {
        let listener = to
            .namespace()
            .inside(|| TcpListener::bind("0.0.0.0:8080"))?
            .unwrap();
        let (address, _) = to.overlay_addresses()?;
        let client = from.namespace().dial((address, 8080))?.connected()?;
        let (server, _) = listener.accept().unwrap();
        for stream in [&client, &server] {
            stream
                .set_read_timeout(Some(Duration::from_secs(20)))
                .unwrap();
        }
        Ok(Self { client, server })
    }

    fn goes_on(&mut self) {
        let mut heard = [0; 4];
        self.client.write_all(b"well").unwrap();
        self.server.read_exact(&mut heard).unwrap();
        self.server.write_all(&heard).unwrap();
        self.client.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"well");
    }
}

fn endpoint(of: &str, at: &Host) -> Result<String, LabError> {
    let peers = at.ask(&["peers"])?;
    let peers = peers.as_array().cloned().unwrap_or_default();
    let peer = peers.iter().find(|it| it["name"] == of);
    Ok(peer
        .and_then(|it| it["endpoint"].as_str())
        .unwrap_or_default()
        .to_owned())
}

fn drops(at: &Host) -> Result<Vec<String>, LabError> {
    let status = at.ask(&["status"])?;
    let drops = status["daemon"]["detail"]["drops"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    Ok(drops
        .iter()
        .filter_map(|it| Some(it["reason"].as_str()?.to_owned()))
        .collect())
}

#[test]
fn replayed_cut_and_forged_datagrams_do_no_harm() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    pair.fleet.coordinator.apply_policy_text(OPEN)?;
    // Only IPv4 on the underlay, so that all of the tunnel is overheard.
    for host in [&pair.alpha, &pair.beta] {
        host.namespace()
            .run("ip", ["-6", "address", "flush", "dev", "eth0"])?;
    }
    let tap = Wiretap::start(&pair.fleet.underlay)?;
    pair.alpha.start()?;
    pair.alpha.wait_reaches("beta")?;
    let mut conversation = Conversation::start(&pair.alpha, &pair.beta)?;
    conversation.goes_on();
    let said = overheard(&tap, &pair.alpha, &pair.beta)?;
    let kinds: Vec<u8> = said.iter().map(|it| it[0]).collect();
    assert!(
        kinds.contains(&INITIATION) || kinds.contains(&RESPONSE),
        "{kinds:?}"
    );
    assert!(kinds.contains(&DATA), "{kinds:?}");
    let before = (
        endpoint("alpha", &pair.beta)?,
        endpoint("beta", &pair.alpha)?,
    );

    let stranger = Stranger::enter(&lab, &pair)?;
    let posed = pair.alpha.attachment().v4;
    for (from, port) in [(stranger.own, 40000), (posed, PORT)] {
        stranger.send(from, port, &pair.beta, &said)?;
        conversation.goes_on();
        stranger.send(from, port, &pair.beta, &cut(&said))?;
        stranger.send(from, port, &pair.beta, &flipped(&said))?;
        conversation.goes_on();
        stranger.send(from, port, &pair.beta, &noise())?;
        conversation.goes_on();
    }
    // Nobody was led astray, and what was dropped is counted by its reason.
    assert_eq!(
        (
            endpoint("alpha", &pair.beta)?,
            endpoint("beta", &pair.alpha)?
        ),
        before
    );
    let reasons = drops(&pair.beta)?;
    for expected in ["replayed", "forged", "not_wireguard", "unknown_receiver"] {
        assert!(
            reasons.iter().any(|it| it == expected),
            "{expected} is not in {reasons:?}"
        );
    }
    Ok(())
}

/// Every datagram at every length below its own.
fn cut(said: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let small = said.iter().filter(|it| it.len() < 200).take(8);
    small
        .flat_map(|it| (0..it.len()).map(|length| it[..length].to_vec()))
        .collect()
}

/// Every datagram with one bit wrong, at many places.
fn flipped(said: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let flip = |it: &Vec<u8>, at: usize| {
        let mut wrong = it.clone();
        wrong[at] ^= 1 << (at % 8);
        wrong
    };
    let small = said.iter().filter(|it| it.len() < 200).take(8);
    small
        .flat_map(|it| (0..it.len()).map(|at| flip(it, at)).collect::<Vec<_>>())
        .collect()
}

/// Bytes without sense behind every type of message, at the lengths of each.
fn noise() -> Vec<Vec<u8>> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut byte = move || {
        // xorshift64*: noise that is the same in every run.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes()[0]
    };
    let lengths = [1, 4, 16, 31, 32, 64, 92, 148, 149, 1400];
    let mut made = Vec::new();
    for length in lengths.into_iter().cycle().take(1000) {
        let mut datagram: Vec<u8> = (0..length).map(|_| byte()).collect();
        datagram[0] = byte() % 6;
        datagram[1..length.min(4)].fill(0);
        made.push(datagram);
    }
    made
}

#[test]
fn a_handshake_of_before_a_restart_opens_nothing_when_replayed() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    pair.fleet.coordinator.apply_policy_text(OPEN)?;
    let tap = Wiretap::start(&pair.fleet.underlay)?;
    for host in [&pair.alpha, &pair.beta] {
        host.namespace()
            .run("ip", ["-6", "address", "flush", "dev", "eth0"])?;
    }
    pair.alpha.start()?;
    pair.alpha.wait_reaches("beta")?;
    // Whoever of the two began, one who starts anew begins soon.
    let mut said = overheard(&tap, &pair.alpha, &pair.beta)?;
    for _ in 0..10 {
        if said.iter().any(|it| it[0] == INITIATION) {
            break;
        }
        pair.alpha.start()?;
        pair.alpha.wait_reaches("beta")?;
        said = overheard(&tap, &pair.alpha, &pair.beta)?;
    }
    assert!(said.iter().any(|it| it[0] == INITIATION));
    // Beta has forgotten which handshakes it has seen; the replayed one may be answered, but it
    // leads nowhere, and does not take alpha's place.
    pair.beta.start()?;
    let stranger = Stranger::enter(&lab, &pair)?;
    stranger.send(stranger.own, 40000, &pair.beta, &said)?;
    pair.alpha.wait_reaches("beta")?;
    Conversation::start(&pair.alpha, &pair.beta)?.goes_on();
    assert_eq!(
        endpoint("alpha", &pair.beta)?,
        format!("{}:{PORT}", pair.alpha.attachment().v4)
    );
    Ok(())
}

/// Initiations that cost the host work: whoever knows its public key can sign them.
fn initiations_to(name: &str, pair: &Pair) -> Result<Vec<Vec<u8>>, LabError> {
    let hosts = pair.fleet.coordinator.ask(&["hosts", "list"])?;
    let hosts = hosts.as_array().cloned().unwrap_or_default();
    let host = hosts.iter().find(|it| it["name"] == name).unwrap();
    let key: WireguardKey = host["wireguard_key"].as_str().unwrap().parse().unwrap();
    let mut jar = CookieJar::new(&PublicKey::from_bytes(*key.as_bytes()));
    let made = noise().into_iter().filter(|it| it.len() == 148);
    Ok(made
        .map(|mut it| {
            it[..4].copy_from_slice(&[INITIATION, 0, 0, 0]);
            jar.sign(&mut it, Duration::ZERO);
            it
        })
        .collect())
}

#[test]
fn a_flood_of_handshakes_keeps_nobody_out() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    pair.fleet.coordinator.apply_policy_text(OPEN)?;
    pair.alpha.wait_reaches("beta")?;
    let mut conversation = Conversation::start(&pair.alpha, &pair.beta)?;
    let stranger = Stranger::enter(&lab, &pair)?;
    let initiations = initiations_to("beta", &pair)?;
    for port in 40000..40040 {
        stranger.send(stranger.own, port, &pair.beta, &initiations)?;
    }
    conversation.goes_on();
    let reasons = drops(&pair.beta)?;
    let asked_for_cookies = reasons.iter().any(|it| it == "handshake_needs_cookie");
    assert!(asked_for_cookies, "{reasons:?}");
    // A host that starts anew needs a handshake of its own, in the middle of it.
    stranger.send(stranger.own, 40000, &pair.beta, &initiations)?;
    pair.alpha.start()?;
    pair.alpha.wait_reaches("beta")
}
