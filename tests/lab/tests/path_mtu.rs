//! Networks that carry more than Ethernet, or less, or from some moment on less, and tell nobody:
//! packets between two hosts are as large as passes, and go on.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener};
use std::thread;

use lab::fleet::{CHANGE_DEADLINE, Host, Pair};
use lab::{Lab, LabError, wait_until};
use serde_json::Value;

const OPEN: &str = "\
fleet: test
allow:
  - { id: all, from: any, to: any, tcp: [8080], udp: [8081], icmp: true }
";
const STREAM_BYTES: usize = 8 << 20;

/// One datagram is one frame on the cables, so that they can be counted and judged by their size.
fn set_cables(pair: &Pair, mtu: u16) -> Result<(), LabError> {
    let switch = format!(
        "for port in $(ip -o link show type veth | sed 's/^[0-9]*: //; s/@.*//'); do \
         ip link set $port mtu {mtu}; done; ip link set br0 mtu {mtu}"
    );
    pair.fleet.underlay.switch().run("sh", ["-ec", &switch])?;
    for host in [&pair.alpha, &pair.beta] {
        let own = format!(
            "ip link set eth0 mtu {mtu}; ethtool -K eth0 tso off gso off gro off tx-udp-segmentation off"
        );
        host.namespace().run("sh", ["-ec", &own])?;
    }
    Ok(())
}

/// The switch drops fragments, and datagrams that are larger than so many bytes.
fn narrow(pair: &Pair, bytes: u16) -> Result<(), LabError> {
    let rules = format!(
        "table bridge narrow\ndelete table bridge narrow\n\
         table bridge narrow {{ chain frames {{ type filter hook forward priority 0; \
         ip frag-off & 0x3fff != 0 drop; ip protocol udp ip length > {bytes} drop; \
         ip6 nexthdr 44 drop; ip6 nexthdr udp ip6 length > {} drop; }}; }}\n",
        bytes - 40
    );
    pair.fleet.underlay.switch().load_ruleset(&rules)
}

fn restart(host: &mut Host, other: &str) -> Result<(), LabError> {
    host.start()?;
    host.wait_reaches(other)
}

/// Sends bytes from one host to the other; in the middle, something happens to the network.
fn stream(
    from: &Host,
    to: &Host,
    half_way: impl FnOnce() -> Result<(), LabError>,
) -> Result<(), LabError> {
    let (address, _) = to.overlay_addresses()?;
    let bind = || TcpListener::bind((address, 8080)).unwrap();
    let listener = to.namespace().inside(bind)?;
    let mut client = from.namespace().dial((address, 8080))?.connected()?;
    client.set_write_timeout(Some(CHANGE_DEADLINE)).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(CHANGE_DEADLINE)).unwrap();
    let reader = thread::spawn(move || {
        let (mut memory, mut total) = (vec![0; 65536], 0);
        loop {
            match server.read(&mut memory).unwrap() {
                0 => return total,
                bytes => total += bytes,
            }
        }
    });
    client.write_all(&vec![7; STREAM_BYTES / 2]).unwrap();
    half_way()?;
    client.write_all(&vec![7; STREAM_BYTES / 2]).unwrap();
    drop(client);
    assert_eq!(reader.join().unwrap(), STREAM_BYTES);
    Ok(())
}

fn peer(host: &Host) -> Result<Value, LabError> {
    Ok(host.ask(&["peers"])?[0].clone())
}

fn wait_proven(host: &Host, is_it: impl Fn(u64) -> bool) -> Result<u64, LabError> {
    wait_until("what passes is proven", CHANGE_DEADLINE, || {
        let peer = peer(host)?;
        let bytes = peer["mtu"]
            .as_u64()
            .filter(|_| peer["mtu_standing"] == "proven");
        Ok(bytes.filter(|bytes| is_it(*bytes)))
    })
}

/// What `ping` says when its packet, of so many bytes in all, may not be cut.
fn ping(host: &Host, target: IpAddr, bytes: u64) -> Result<String, LabError> {
    let headers = if target.is_ipv4() { 28 } else { 48 };
    let (target, payload) = (target.to_string(), (bytes - headers).to_string());
    let arguments = ["-n", "-c1", "-W2", "-M", "do", "-s", &payload, &target];
    let ran = host.namespace().launch("ping").args(arguments).run()?;
    Ok(ran.stdout + &ran.stderr)
}

#[test]
fn jumbo_frames_are_used_where_they_pass() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    pair.fleet.coordinator.apply_policy_text(OPEN)?;
    set_cables(&pair, 9000)?;
    restart(&mut pair.alpha, "beta")?;
    restart(&mut pair.beta, "alpha")?;
    let link = pair
        .alpha
        .namespace()
        .run("ip", ["link", "show", "mesh0"])?;
    assert!(link.stdout.contains("mtu 8920"), "{}", link.stdout);
    wait_proven(&pair.alpha, |bytes| bytes == 8920)?;
    wait_proven(&pair.beta, |bytes| bytes == 8920)?;
    let switch = pair.fleet.underlay.switch();
    switch.load_ruleset(
        "table bridge count { chain frames { type filter hook forward priority 0; \
         ip length > 1500 counter; ip6 length > 1460 counter; }; }\n",
    )?;
    stream(&pair.alpha, &pair.beta, || Ok(()))?;
    let listed = switch.run("nft", ["-j", "list", "table", "bridge", "count"])?;
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    let rules = listed["nftables"].as_array().into_iter().flatten();
    let counted: u64 = rules
        .filter_map(|it| it["rule"]["expr"][1]["counter"]["packets"].as_u64())
        .sum();
    assert!(counted > 500, "{counted} large datagrams: {listed}");
    Ok(())
}

#[test]
fn a_narrow_network_that_drops_fragments_passes_what_fits_it() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    pair.fleet.coordinator.apply_policy_text(OPEN)?;
    set_cables(&pair, 1500)?;
    narrow(&pair, 1400)?;
    pair.alpha.wait_reaches("beta")?;
    stream(&pair.alpha, &pair.beta, || Ok(()))?;
    stream(&pair.beta, &pair.alpha, || Ok(()))?;
    let bytes = wait_proven(&pair.alpha, |bytes| bytes < 1400)?;
    assert!([1340, 1320].contains(&bytes), "{bytes}");
    wait_proven(&pair.beta, |bytes| bytes < 1400)?;
    let (v4, v6) = pair.beta.overlay_addresses()?;
    for target in [IpAddr::from(v4), v6.into()] {
        let fits = ping(&pair.alpha, target, bytes)?;
        assert!(fits.contains(" 0% packet loss"), "{fits}");
        let told = ping(&pair.alpha, target, bytes + 1)?;
        assert!(told.contains(&bytes.to_string()), "{told}");
        let again = ping(&pair.alpha, target, bytes + 1)?;
        assert!(again.contains("message too long"), "{again}");
    }
    // A program that lets its datagrams be cut need not know.
    let _echo = pair.beta.namespace().serve_udp_echo(8081)?;
    let answer = pair.alpha.namespace().inside(|| {
        let socket = std::net::UdpSocket::bind(("0.0.0.0", 0)).unwrap();
        socket.set_read_timeout(Some(CHANGE_DEADLINE)).unwrap();
        socket.send_to(&[7; 4000], (v4, 8081)).unwrap();
        let mut memory = [0; 5000];
        socket.recv(&mut memory).unwrap()
    })?;
    assert_eq!(answer, 4000);
    Ok(())
}

#[test]
fn a_stream_goes_on_when_its_path_shrinks() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    pair.fleet.coordinator.apply_policy_text(OPEN)?;
    set_cables(&pair, 1500)?;
    pair.alpha.wait_reaches("beta")?;
    let before = wait_proven(&pair.alpha, |_| true)?;
    stream(&pair.alpha, &pair.beta, || narrow(&pair, 1400))?;
    let after = wait_proven(&pair.alpha, |bytes| bytes < before)?;
    assert!([1340, 1320].contains(&after), "{after}");
    assert_eq!(peer(&pair.alpha)?["black_holes"], 1);
    Ok(())
}
