//! What must never happen: overlay packets in the clear, and traces of a daemon that has stopped.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]

use std::io::Write;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use lab::fleet::{Fleet, Host, Pair};
use lab::{Dialled, Lab, LabError, Namespace};
use serde_json::Value;

const OPEN: &str = "\
fleet: test
allow:
  - { id: all, from: any, to: any, icmp: true, tcp: [8080], udp: [8080] }
";

/// Counts frames with overlay addresses on the switch, where only sealed datagrams belong.
struct Watch(Namespace);

impl Watch {
    fn start(fleet: &Fleet) -> Result<Self, LabError> {
        let status = fleet.coordinator.ask(&["status"])?;
        let prefix = |key: &str| status["coordinator"][key].as_str().unwrap().to_owned();
        let (v4, v6) = (prefix("overlay_v4"), prefix("overlay_v6"));
        let switch = fleet.underlay.switch();
        switch.load_ruleset(&format!(
            "table bridge watch {{
               counter overlay {{}}
               chain frames {{
                 type filter hook prerouting priority -300;
                 ip saddr {v4} counter name overlay
                 ip daddr {v4} counter name overlay
                 ip6 saddr {v6} counter name overlay
                 ip6 daddr {v6} counter name overlay
                 arp saddr ip {v4} counter name overlay
                 arp daddr ip {v4} counter name overlay
               }}
             }}\n"
        ))?;
        Ok(Self(switch.clone()))
    }

    fn leaked(&self) -> Result<u64, LabError> {
        let listed = self.0.run(
            "nft",
            ["-j", "list", "counter", "bridge", "watch", "overlay"],
        )?;
        let listed: Value = listed.json()?;
        let packets = listed["nftables"].as_array().into_iter().flatten();
        let packets = packets
            .filter_map(|it| it["counter"]["packets"].as_u64())
            .next();
        packets.ok_or_else(|| LabError::new(format!("no counter in {listed}")))
    }
}

/// Gives a machine a way to anywhere, as most have: by the coordinator's machine.
fn add_default_routes(host: &Host) -> Result<(), LabError> {
    let add = "ip route add default via 10.77.0.1; ip -6 route add default via fd77::1";
    host.namespace().run("sh", ["-ec", add]).map(drop)
}

#[test]
fn nothing_leaves_in_the_clear_while_the_daemon_is_dead() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    pair.fleet.coordinator.apply_policy_text(OPEN)?;
    add_default_routes(&pair.alpha)?;
    let watch = Watch::start(&pair.fleet)?;
    let _web = pair.beta.namespace().serve_http(8080, "hello")?;
    let (v4, v6) = pair.beta.overlay_addresses()?;
    let here = pair.alpha.namespace().clone();
    let mut open = here.dial((v4, 8080))?.connected()?;
    assert_eq!(watch.leaked()?, 0, "not while it runs either");

    pair.alpha.kill();
    for address in [IpAddr::from(v4), v6.into()] {
        let dialled = here.dial((address, 8080))?;
        assert!(
            matches!(dialled, Dialled::Unreachable),
            "{address}: {dialled:?}"
        );
        let ping = here
            .launch("ping")
            .args(["-c1", "-W1", &address.to_string()])
            .run()?;
        assert!(!ping.status.success());
    }
    // A connection of before goes nowhere, whatever it tries.
    let _ = open.write_all(b"GET / HTTP/1.0\r\n\r\n");
    assert_eq!(watch.leaked()?, 0);

    // Without the route the firewall still holds, and without both, the watch would have seen it.
    let here = &here;
    here.run(
        "sh",
        [
            "-ec",
            "ip route del unreachable \"$0\"",
            &prefix_of(&pair.fleet)?,
        ],
    )?;
    here.dial((v4, 8080))?;
    assert_eq!(watch.leaked()?, 0);
    here.run("nft", ["delete", "table", "inet", "mesh"])?;
    here.dial((v4, 8080))?;
    assert_ne!(watch.leaked()?, 0);
    Ok(())
}

#[test]
fn a_member_that_lost_its_map_lets_nothing_out() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    pair.fleet.coordinator.apply_policy_text(OPEN)?;
    add_default_routes(&pair.alpha)?;
    let watch = Watch::start(&pair.fleet)?;
    let (v4, _) = pair.beta.overlay_addresses()?;
    pair.fleet.coordinator.kill();
    pair.alpha.kill();
    std::fs::remove_file(pair.alpha.state_dir().join("map")).unwrap();
    pair.alpha.start()?;
    pair.alpha.wait_state("autonomous")?;
    let dialled = pair.alpha.namespace().dial((v4, 8080))?;
    assert!(matches!(dialled, Dialled::Unreachable), "{dialled:?}");
    assert_eq!(watch.leaked()?, 0);
    // Told to read its settings again, it has no map yet, and guards as before.
    let process = pair.alpha.process().expect("it runs");
    process.signal(rustix::process::Signal::HUP)?;
    pair.alpha.wait_log("the settings were read again")?;
    pair.alpha.wait_state("autonomous")?;
    let dialled = pair.alpha.namespace().dial((v4, 8080))?;
    assert!(matches!(dialled, Dialled::Unreachable), "{dialled:?}");
    assert_eq!(watch.leaked()?, 0);
    // With the coordinator all comes back.
    pair.fleet.coordinator.restart()?;
    pair.alpha.wait_reaches("beta")
}

fn prefix_of(fleet: &Fleet) -> Result<String, LabError> {
    let status = fleet.coordinator.ask(&["status"])?;
    let prefix = status["coordinator"]["overlay_v4"].as_str();
    Ok(prefix.expect("a fleet has an IPv4 prefix").to_owned())
}

#[test]
fn overlay_addresses_that_come_from_the_underlay_are_dropped() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    pair.fleet.coordinator.apply_policy_text(OPEN)?;
    let stranger = lab.namespace("stranger")?;
    let own = pair.fleet.underlay.attach(&stranger, "eth0")?;
    let (alpha_v4, alpha_v6) = pair.alpha.overlay_addresses()?;
    let (beta_v4, beta_v6) = pair.beta.overlay_addresses()?;
    let under = pair.alpha.attachment().clone();
    // The stranger says that it is beta, and sends straight to alpha's machine.
    let pose = format!(
        "ip address add {beta_v4}/32 dev lo; ip address add {beta_v6}/128 dev lo nodad
         ip route add {alpha_v4} via {}; ip -6 route add {alpha_v6} via {}
         echo 2 > /proc/sys/net/ipv4/conf/all/arp_announce",
        under.v4, under.v6
    );
    stranger.run("sh", ["-ec", &pose])?;
    // Strict reverse path filtering would hide what is tested here.
    pair.alpha.namespace().run(
        "sh",
        ["-ec", "echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter"],
    )?;

    let families: [[IpAddr; 4]; 2] = [
        [
            alpha_v4.into(),
            beta_v4.into(),
            under.v4.into(),
            own.v4.into(),
        ],
        [
            alpha_v6.into(),
            beta_v6.into(),
            under.v6.into(),
            own.v6.into(),
        ],
    ];
    for [overlay, posed, underlay, own] in families {
        let receiver = pair.alpha.namespace().inside(|| {
            let any = if overlay.is_ipv4() {
                "0.0.0.0:8080"
            } else {
                "[::]:8080"
            };
            UdpSocket::bind(any).unwrap()
        })?;
        let send = |from: IpAddr, to: IpAddr, text: &[u8]| {
            let sent = stranger.inside(|| {
                let socket = UdpSocket::bind((from, 0)).unwrap();
                socket.send_to(text, SocketAddr::new(to, 8080))
            });
            sent.map(|it| it.unwrap())
        };
        // The honest datagram goes last, so that whatever passes is there before it.
        send(posed, overlay, b"overlay to overlay")?;
        send(own, overlay, b"underlay to overlay")?;
        send(posed, underlay, b"overlay to underlay")?;
        send(own, underlay, b"honest")?;
        receiver
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let mut bytes = [0; 64];
        let length = receiver
            .recv(&mut bytes)
            .expect("the honest datagram arrives");
        assert_eq!(String::from_utf8_lossy(&bytes[..length]), "honest");
    }
    Ok(())
}

/// Everything that a daemon could leave in a machine's network.
fn traces(namespace: &Namespace) -> Result<String, LabError> {
    let look = "ip -br link; ip -br address; ip route show table all; ip -6 route show table all
                ip rule; ip -6 rule; nft list ruleset; ss -lntuH";
    Ok(namespace.run("sh", ["-ec", look])?.stdout)
}

#[test]
fn a_stopped_daemon_leaves_nothing_behind() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    let mut alpha = fleet.machine("alpha")?;
    assert!(alpha.stop()?.success());
    let before = traces(alpha.namespace())?;
    assert!(!before.contains("mesh"), "{before}");

    alpha.start()?;
    alpha.join(&fleet.coordinator.create_token(&[])?)?;
    let beta = fleet.member("beta", &[])?;
    alpha.wait_reaches("beta")?;
    let during = traces(alpha.namespace())?;
    assert!(
        during.contains("mesh0") && during.contains("table inet mesh"),
        "{during}"
    );
    assert!(alpha.stop()?.success());
    assert_eq!(traces(alpha.namespace())?, before);
    assert!(!alpha.socket().exists());
    drop(beta);
    Ok(())
}

#[test]
fn what_a_killed_daemon_left_is_taken_over_and_taken_back() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    pair.alpha.stop()?;
    let before = traces(pair.alpha.namespace())?;
    pair.alpha.start()?;
    pair.alpha.wait_reaches("beta")?;
    pair.alpha.kill();
    let left = traces(pair.alpha.namespace())?;
    assert!(
        left.contains("unreachable") && left.contains("table inet mesh"),
        "{left}"
    );
    pair.alpha.start()?;
    pair.alpha.wait_reaches("beta")?;
    assert!(pair.alpha.stop()?.success());
    assert_eq!(traces(pair.alpha.namespace())?, before);
    Ok(())
}

#[test]
fn a_host_whose_own_route_overlaps_is_told_and_left_alone() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    let beta = fleet.member("beta", &[])?;
    let alpha = fleet.machine("alpha")?;
    alpha
        .namespace()
        .run("ip", ["route", "add", "100.64.0.0/10", "via", "10.77.0.1"])?;
    let before = alpha.namespace().run("ip", ["route"])?.stdout;
    alpha.join(&fleet.coordinator.create_token(&[])?)?;
    lab::wait_until(
        "alpha tells of the overlap",
        lab::fleet::CHANGE_DEADLINE,
        || {
            let status = alpha.ask(&["status"])?;
            let alarms = status["daemon"]["detail"]["alarms"].to_string();
            Ok(alarms
                .contains("overlaps with the route 100.64.0.0/10")
                .then_some(()))
        },
    )?;
    assert_eq!(alpha.namespace().run("ip", ["route"])?.stdout, before);
    // When the route is gone, the host comes up by itself.
    alpha
        .namespace()
        .run("ip", ["route", "del", "100.64.0.0/10"])?;
    alpha.wait_reaches("beta")?;
    drop(beta);
    Ok(())
}
