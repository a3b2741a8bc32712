//! Containers and virtual machines behind a host: what they send into the overlay has no identity,
//! whatever the host's own address translation would make of it.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]

use std::net::{IpAddr, UdpSocket};

use lab::fleet::{CHANGE_DEADLINE, Host, Pair};
use lab::{Dialled, Lab, LabError, Namespace, wait_until};

const OPEN: &str = "\
fleet: test
allow:
  - { id: all, from: any, to: any, icmp: true, tcp: [8080], udp: [8080] }
";

/// As Docker does it: a private network, forwarding, and a masquerade of all that leaves it.
fn container_behind(lab: &Lab, host: &Host) -> Result<Namespace, LabError> {
    let container = lab.namespace("container")?;
    let far = container.full_name();
    let wire = format!(
        "ip link add docker0 type veth peer name eth0 netns {far}
         ip address add 172.17.0.1/16 dev docker0; ip address add fd17::1/64 dev docker0 nodad
         ip link set docker0 up
         echo 1 > /proc/sys/net/ipv4/ip_forward
         echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"
    );
    host.namespace().run("sh", ["-ec", &wire])?;
    host.namespace().load_ruleset(
        "table inet docker { chain postrouting { type nat hook postrouting priority srcnat;
           ip saddr 172.17.0.0/16 oifname != docker0 masquerade
           ip6 saddr fd17::/64 oifname != docker0 masquerade; }; }\n",
    )?;
    let inside = "ip address add 172.17.0.2/16 dev eth0; ip address add fd17::2/64 dev eth0 nodad
                  ip link set eth0 up
                  ip route add default via 172.17.0.1; ip -6 route add default via fd17::1";
    container.run("sh", ["-ec", inside])?;
    Ok(container)
}

fn foreign(host: &Host) -> Result<u64, LabError> {
    let status = host.ask(&["status"])?;
    let drops = status["daemon"]["detail"]["drops"].as_array();
    let foreign = drops
        .into_iter()
        .flatten()
        .find(|it| it["reason"] == "foreign_source");
    Ok(foreign.map_or(0, |it| it["packets"].as_u64().unwrap()))
}

#[test]
fn a_container_s_packets_do_not_pass_as_its_host_s() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    pair.fleet.coordinator.apply_policy_text(OPEN)?;
    let container = container_behind(&lab, &pair.alpha)?;
    let _web = pair.beta.namespace().serve_http(8080, "hello")?;
    let (v4, v6) = pair.beta.overlay_addresses()?;
    pair.alpha
        .namespace()
        .dial((v4, 8080))?
        .connected()
        .expect("the host itself may");
    // The translation works: the coordinator's machine sees the host and not the container.
    let control = pair.fleet.coordinator.attachment().v4;
    container.dial((control, 7443))?.connected()?;

    for address in [IpAddr::from(v4), v6.into()] {
        let before = foreign(&pair.alpha)?;
        let dialled = container.dial((address, 8080))?;
        assert!(!matches!(dialled, Dialled::Connected(_)), "{address}");
        wait_until("alpha counts the packets", CHANGE_DEADLINE, || {
            Ok((foreign(&pair.alpha)? > before).then_some(()))
        })?;
    }
    pair.alpha.namespace().dial((v4, 8080))?.connected()?;
    Ok(())
}

#[test]
fn a_container_does_not_reach_its_own_host_s_overlay_address() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    pair.fleet.coordinator.apply_policy_text(OPEN)?;
    let container = container_behind(&lab, &pair.alpha)?;
    let (overlay, _) = pair.alpha.overlay_addresses()?;
    let host = pair
        .alpha
        .namespace()
        .inside(|| UdpSocket::bind("0.0.0.0:8080").unwrap())?;
    host.set_read_timeout(Some(CHANGE_DEADLINE)).unwrap();
    container.inside(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(b"to the overlay", (overlay, 8080)).unwrap();
        socket
            .send_to(b"to the bridge", ("172.17.0.1", 8080))
            .unwrap();
    })?;
    let mut bytes = [0; 64];
    let length = host.recv(&mut bytes).expect("the honest datagram arrives");
    assert_eq!(String::from_utf8_lossy(&bytes[..length]), "to the bridge");
    Ok(())
}
