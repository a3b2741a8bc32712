//! For tests: a host on which nothing is wrong, and one of which nothing is known.

use model::local::{DropsView, HostDetail, HostStatus, PingReply};
use serde_json::json;

use super::super::facts::{
    DaemonSettings, Facts, Known, Link, Obstacle, Ping, Process, Route, StateDirectory, TunNode,
    Verdict,
};

const OWN: &str = "100.64.0.16";

pub(crate) fn detail(facts: &mut Facts) -> &mut HostDetail {
    let status = facts.daemon.as_mut().expect("a healthy one runs");
    status.detail.as_mut().expect("root sees all")
}

pub(crate) fn ping(peer: &str, answers: bool) -> Ping {
    let reply: Known<PingReply> = Ok(serde_json::from_value(json!({
        "name": peer, "address": "100.64.0.17", "interface_mtu": 1420,
        "round_trip_micros": answers.then_some(700), "endpoint": "192.0.2.17:51820",
        "note": (!answers).then_some("no answer within 2000 ms"),
    }))
    .unwrap());
    Ping {
        peer: peer.into(),
        large: answers.then(|| reply.clone()),
        small: reply,
    }
}

fn status() -> HostStatus {
    serde_json::from_value(json!({
        "version": "1.0.0", "state": "online", "detail": {
            "name": "web-1", "id": "01010101010101010101010101010101", "fleet": "prod",
            "dns_suffix": "mesh.internal", "interface": "mesh0", "addresses": [OWN], "labels": {},
            "listen_port": 51820, "coordinators": ["mesh.example.net:7443"], "coordinator_error": null,
            "revision": null, "policy": 1, "peers": 1, "certificate_expires_secs": 1_800_043_200u64,
            "alarms": [], "drops": [], "shards": 1, "clock_ahead_secs": 0,
        }
    }))
    .unwrap()
}

fn route(destination: Option<&str>, device: &str, is_ours: bool) -> Route {
    Route {
        destination: destination.map(|it| it.parse().unwrap()),
        device: (!device.is_empty()).then(|| device.to_owned()),
        is_ours,
        is_unreachable: device.is_empty(),
    }
}

fn link(name: &str, mtu: u32) -> Link {
    Link {
        name: name.into(),
        mtu,
        is_up: true,
        is_loopback: false,
    }
}

pub(crate) fn facts() -> Facts {
    let unit = [
        ("LoadState", "loaded"),
        ("Result", "success"),
        ("NRestarts", "0"),
        ("PrivateNetwork", "no"),
        ("PrivateDevices", "no"),
        ("DevicePolicy", "closed"),
        ("DeviceAllow", "/dev/net/tun rw"),
        (
            "CapabilityBoundingSet",
            "cap_net_admin cap_net_bind_service",
        ),
        (
            "RestrictAddressFamilies",
            "AF_NETLINK AF_INET AF_INET6 AF_UNIX",
        ),
    ];
    Facts {
        is_root: true,
        version: "1.0.0",
        now_secs: 1_800_000_000,
        clock_is_kept: Ok(true),
        settings: Ok(DaemonSettings {
            interface: "mesh0".into(),
            nft_table: "mesh".into(),
            listen_port: 51820,
            mtu: 1420,
            set_mtu: None,
            state_dir: "/var/lib/mesh/meshd".into(),
        }),
        has_settings_file: true,
        verdict: Verdict::Good,
        process: Process::Runs {
            pid: Some(7),
            is_stopped: false,
        },
        daemon: Ok(status()),
        installed_version: Ok("1.0.0".into()),
        obstacles: Ok(Vec::new()),
        peers: Ok(Vec::new()),
        pings: vec![ping("a", true)],
        dns: Ok(serde_json::from_value(json!({
            "suffix": "mesh.internal", "listens": ["127.0.0.150:53"], "forwards_to": [],
            "resolver": {"state": "set", "detail": "systemd-resolved"},
            "reverse_zones": [], "names": [],
        }))
        .unwrap()),
        drops: Ok(DropsView {
            since_secs: 0,
            reasons: Vec::new(),
        }),
        own_name: Ok(vec![OWN.parse().unwrap()]),
        resolv_conf: Ok("nameserver 127.0.0.53\n".into()),
        coordinators: vec![("mesh.example.net:7443".into(), Ok(()))],
        tun: TunNode::Opens,
        links: Ok(vec![link("eth0", 1500), link("mesh0", 1420)]),
        routes: Ok(vec![
            route(None, "eth0", false),
            route(Some("192.0.2.0/24"), "eth0", false),
            route(Some("100.64.0.0/16"), "", true),
            route(Some("100.64.0.0/16"), "mesh0", true),
            route(Some("100.64.0.16/32"), "mesh0", false),
        ]),
        udp_ports: Ok([53, 51820].into()),
        ruleset: Ok(json!({ "nftables": [] })),
        iptables: Ok(Vec::new()),
        firewalls: Vec::new(),
        state_dir: Ok(StateDirectory {
            path: "/var/lib/mesh/meshd".into(),
            free_bytes: 10 << 30,
            free_files: Some(100_000),
            is_read_only: false,
            mode: 0o700,
            exposed: Vec::new(),
            is_foreign: false,
        }),
        unit: Ok(unit.map(|(name, value)| (name.into(), value.into())).into()),
        withheld: 0,
        kernel: "6.12.0".into(),
        own_coordinator: None,
    }
}

/// Nobody answers, and nothing may be looked at.
pub(crate) fn unknown() -> Facts {
    fn nothing<T>() -> Known<T> {
        Err("it cannot be looked at".into())
    }
    Facts {
        is_root: false,
        clock_is_kept: nothing(),
        settings: nothing(),
        has_settings_file: false,
        verdict: Verdict::Unknown("it cannot be asked".into()),
        process: Process::None,
        daemon: nothing(),
        installed_version: nothing(),
        obstacles: Err(Obstacle::NotAsked("it cannot be looked at".into())),
        peers: nothing(),
        pings: Vec::new(),
        dns: nothing(),
        drops: nothing(),
        own_name: nothing(),
        resolv_conf: nothing(),
        coordinators: Vec::new(),
        tun: TunNode::Unknown,
        links: nothing(),
        routes: nothing(),
        udp_ports: nothing(),
        ruleset: nothing(),
        iptables: nothing(),
        state_dir: nothing(),
        unit: nothing(),
        withheld: 0,
        kernel: "unheard of".into(),
        ..facts()
    }
}
