//! Calls of services between hosts of which a firewall lets only the tunnels' UDP port through: they go over
//! QUIC, to that very port, and over TCP again when it is open.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lab::fleet::{CHANGE_DEADLINE, Host, Pair};
use lab::metrics::MetricsPage;
use lab::{Lab, LabError, Process, Ran, wait_until};

const POLICY: &str = "\
fleet: test
services:
  orders: { port: 8080, protocol: http, endpoints: [\"role=db\"] }
allow:
  - { id: ping, from: any, to: any, icmp: true }
  - { id: web-orders, from: \"role=web\", to: orders }
";
const ITEMS: &str = "http://orders.mesh.internal:8080/items";
const LARGE: &str = "http://orders.mesh.internal:8080/large";
const LARGE_BYTES: usize = 100 << 20;
/// Only the port of the tunnels, as a firewall of someone who was told of one port.
const UDP_ALONE: &str = "\
table inet closed {
  chain input {
    type filter hook input priority 0; policy accept;
    tcp dport 7444 drop
  }
}
";
/// TCP is tried again after ten seconds, then after twenty.
const TCP_AGAIN_WITHIN: Duration = Duration::from_secs(60);

/// A session that is silent is given up after half a minute; who has heard that it is gone is sooner.
const HEARD_WITHIN: Duration = Duration::from_secs(15);

/// Two hosts between which TCP is closed, and a service.
struct Closed {
    pair: Pair,
    _server: Process,
}

impl Closed {
    fn start(lab: &Lab) -> Result<Self, LabError> {
        let pair = Pair::start(lab)?;
        for host in [&pair.alpha, &pair.beta] {
            host.namespace().load_ruleset(UDP_ALONE)?;
        }
        let directory = lab.directory().join("site");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("items"), "all of them\n").unwrap();
        let large = fs::File::create(directory.join("large")).unwrap();
        large.set_len(LARGE_BYTES as u64).unwrap();
        let server = pair.beta.namespace().launch("python3");
        let server = server.args(["-u", "-m", "http.server", "8080", "--bind", "::"]);
        let server = server.in_directory(&directory).spawn("orders")?;
        pair.fleet.coordinator.apply_policy_text(POLICY)?;
        let closed = Self {
            pair,
            _server: server,
        };
        wait_until("the service answers", CHANGE_DEADLINE, || {
            let ran = closed.call(&["--fail", ITEMS])?;
            Ok((ran.stdout == "all of them\n").then_some(()))
        })?;
        Ok(closed)
    }

    fn call(&self, arguments: &[&str]) -> Result<Ran, LabError> {
        let curl = self.pair.alpha.namespace().launch("curl");
        curl.args(["-sS", "--max-time", "50"]).args(arguments).run()
    }
}

fn connections(host: &Host, transport: &str) -> Result<f64, LabError> {
    let told = host.meshctl(&["metrics"]).run()?.success()?;
    let series = format!("meshd_service_connections{{transport=\"{transport}\"}}");
    MetricsPage::parse(&told.stdout)?.value(&series)
}

#[test]
fn where_only_udp_passes_calls_go_by_quic_until_tcp_does_too() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let closed = Closed::start(&lab)?;
    let alpha = &closed.pair.alpha;
    let size = ["-o", "/dev/null", "-w", "%{http_code} %{size_download}"];
    let [a, b, c, d] = size;
    let ran = closed.call(&[a, b, c, d, LARGE])?.success()?;
    assert_eq!(ran.stdout, format!("200 {LARGE_BYTES}"));
    wait_until("the connection is shown", CHANGE_DEADLINE, || {
        Ok((connections(alpha, "quic")? >= 1.0).then_some(()))
    })?;
    assert_eq!(connections(alpha, "tcp")?, 0.0);
    let shown = alpha.ask(&["services", "show", "orders"])?;
    let over = &shown["live"]["endpoints"][0]["over"];
    assert_eq!(over[0], "quic", "{shown}");

    for host in [alpha, &closed.pair.beta] {
        host.namespace()
            .run("nft", ["delete", "table", "inet", "closed"])?;
    }
    wait_until("calls go by TCP again", TCP_AGAIN_WITHIN, || {
        let ran = closed.call(&["--fail", ITEMS])?.success()?;
        assert_eq!(ran.stdout, "all of them\n");
        Ok((connections(alpha, "tcp")? >= 1.0).then_some(()))
    })
}

#[test]
fn calls_by_quic_go_on_while_one_daemon_takes_over_from_another() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let closed = Closed::start(&lab)?;
    let done = AtomicBool::new(false);
    let (made, handed) = thread::scope(|scope| {
        let calls = scope.spawn(|| {
            let mut made = 0;
            while !done.load(Ordering::Relaxed) {
                let ran = closed.call(&["--fail", ITEMS]).and_then(Ran::success);
                let said = ran.map(|ran| ran.stdout);
                assert_eq!(said.unwrap(), "all of them\n", "after {made}");
                made += 1;
            }
            made
        });
        let handed = [&closed.pair.alpha, &closed.pair.beta]
            .map(|host| host.ask(&["reload", "--hand-over"]));
        done.store(true, Ordering::Relaxed);
        (calls.join(), handed)
    });
    for outcome in handed {
        assert!(outcome?["handed_over"]["to"].is_string());
    }
    assert!(made.unwrap() > 0);
    closed.call(&["--fail", ITEMS])?.success()?;
    assert_eq!(connections(&closed.pair.alpha, "tcp")?, 0.0);
    Ok(())
}

#[test]
fn after_a_crash_calls_soon_find_the_next_daemon() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut closed = Closed::start(&lab)?;
    closed.pair.beta.kill();
    closed.pair.beta.start()?;
    wait_until("the service answers", HEARD_WITHIN, || {
        let ran = closed.call(&["--fail", "--max-time", "2", ITEMS])?;
        Ok((ran.stdout == "all of them\n").then_some(()))
    })?;
    assert_eq!(connections(&closed.pair.alpha, "tcp")?, 0.0);
    Ok(())
}
