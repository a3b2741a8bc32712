//! Calls of services by programs that know nothing of it: caught where they are made, carried by the
//! rules about the unit that made them, refused while no daemon runs, and nobody's to take over.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]

use std::fs;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use lab::fleet::{CHANGE_DEADLINE, Host, Pair};
use lab::{Lab, LabError, Process, Ran, Unit, wait_until};

const POLICY: &str = "\
fleet: test
workloads:
  web: { unit: web.service, hosts: \"role=web\" }
services:
  orders: { port: 8080, protocol: http, endpoints: [\"role=db\"] }
allow:
  - { id: ping, from: any, to: any, icmp: true }
  - { id: web-orders, from: web, to: orders, http: [\"GET /v1/**\"] }
  - { id: web-direct, from: web, to: \"role=db\", tcp: [9090] }
";
const ORDERS: &str = "http://orders.mesh.internal:8080/v1/items";
/// What curl says when a connection is refused.
const CURL_REFUSED: i32 = 7;

/// Has a program of a unit call.
fn curl(unit: &Unit, host: &Host, arguments: &[&str]) -> Result<Ran, LabError> {
    let curl = unit.launch(host.namespace(), "curl");
    let quiet = curl.args(["-sS", "--max-time", "10"]);
    quiet.args(arguments).run()
}

/// A fleet under the policy, whose service answers.
struct Calling {
    unit: Unit,
    pair: Pair,
    server: Process,
}

impl Calling {
    fn start(lab: &Lab) -> Result<Self, LabError> {
        let pair = Pair::start(lab)?;
        let directory = lab.directory().join("site");
        fs::create_dir_all(directory.join("v1")).unwrap();
        fs::write(directory.join("v1/items"), "all of them\n").unwrap();
        let server = pair.beta.namespace().launch("python3");
        let server = server.args(["-u", "-m", "http.server", "8080", "--bind", "::"]);
        let server = server.in_directory(&directory).spawn("orders")?;
        pair.fleet.coordinator.apply_policy_text(POLICY)?;
        let calling = Self {
            unit: Unit::new(lab, "web.service")?,
            pair,
            server,
        };
        calling.wait_until_it_works()?;
        Ok(calling)
    }

    fn call(&self, arguments: &[&str]) -> Result<Ran, LabError> {
        curl(&self.unit, &self.pair.alpha, arguments)
    }

    fn wait_until_it_works(&self) -> Result<(), LabError> {
        wait_until("the service answers", CHANGE_DEADLINE, || {
            let ran = self.call(&["--fail", ORDERS])?;
            Ok((ran.stdout == "all of them\n").then_some(()))
        })
    }
}

/// The status of an answer, without its body.
const STATUS: [&str; 4] = ["-o", "/dev/null", "-w", "%{http_code}"];

fn status_of(url: &'static str) -> [&'static str; 5] {
    let [a, b, c, d] = STATUS;
    [a, b, c, d, url]
}

#[test]
fn a_unit_calls_what_its_rule_names_and_nothing_else() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let calling = Calling::start(&lab)?;
    for version in ["-4", "-6"] {
        let ran = calling.call(&[version, "--fail", ORDERS])?.success()?;
        assert_eq!(ran.stdout, "all of them\n", "{version}");
    }
    let elsewhere = status_of("http://orders.mesh.internal:8080/v2/items");
    assert_eq!(calling.call(&elsewhere)?.stdout, "403");
    let [a, b, c, d, url] = status_of(ORDERS);
    assert_eq!(calling.call(&[a, b, c, d, "-XPOST", url])?.stdout, "403");
    // Another unit of the same host, and a program of none.
    let other = Unit::new(&lab, "cron.service")?;
    let refused = curl(&other, &calling.pair.alpha, &status_of(ORDERS))?;
    assert_eq!(refused.stdout, "403");
    let bare = calling.pair.alpha.namespace().launch("curl");
    let bare = bare
        .args(["-sS", "--max-time", "10"])
        .args(status_of(ORDERS));
    assert_eq!(bare.run()?.stdout, "403");
    Ok(())
}

#[test]
fn a_program_sees_its_callers_at_an_overlay_address() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let calling = Calling::start(&lab)?;
    let (v4, v6) = calling.pair.beta.overlay_addresses()?;
    let log = calling.server.stderr()?;
    let seen = log.lines().filter(|line| line.contains("GET /v1/items"));
    for line in seen {
        let from = line.split(' ').next().unwrap();
        let from = from.trim_start_matches("::ffff:");
        assert!(
            [v4.to_string(), v6.to_string()].contains(&from.to_owned()),
            "{line}"
        );
    }
    assert!(log.contains("GET /v1/items"));
    Ok(())
}

/// Dials an address as the daemon would, and says how that ends.
const MARKED_DIAL: &str = "\
import socket, sys
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
client = socket.socket(family, socket.SOCK_STREAM)
client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x6d657368)
client.settimeout(10)
try:
    client.connect((sys.argv[1], 9090))
    print(client.recv(99))
except ConnectionRefusedError:
    print('refused')
";

#[test]
fn a_direct_dial_is_caught_where_a_rule_has_to_know_the_caller() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut calling = Calling::start(&lab)?;
    let (v4, v6) = calling.pair.beta.overlay_addresses()?;
    let hello = calling.pair.beta.namespace().launch("socat");
    let listening = "TCP6-LISTEN:9090,fork,reuseaddr,ipv6only=0";
    let hello = hello.args(["-U", listening, "EXEC:echo hello"]);
    let _hello = hello.spawn("hello")?;
    let alpha = calling.pair.alpha.namespace();
    for (target, address) in [
        (format!("TCP4:{v4}:9090"), v4.to_string()),
        (format!("TCP6:[{v6}]:9090"), v6.to_string()),
    ] {
        let dial = |target: &str| {
            let socat = calling.unit.launch(alpha, "socat");
            socat.args(["-u", target, "-"]).run()
        };
        wait_until("the unit is let through", CHANGE_DEADLINE, || {
            Ok((dial(&target)?.stdout == "hello\n").then_some(()))
        })?;
        let bare = alpha.launch("socat");
        let ran = bare.args(["-u", target.as_str(), "-"]).run()?;
        assert_eq!(ran.stdout, "", "{ran:?}");
        // Past the proxy there is no way, whoever asks: packets say nothing of a unit.
        let marked = calling.unit.launch(alpha, "python3");
        let ran = marked.args(["-c", MARKED_DIAL, &address]).run()?;
        assert_eq!(ran.stdout, "refused\n", "{ran:?}");
    }
    let said = "denied, since rule `web-direct` (policy.yaml:9) names workloads";
    calling.pair.alpha.wait_log(said)?;
    Ok(())
}

#[test]
fn without_a_daemon_calls_are_refused_and_nobody_takes_its_place() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut calling = Calling::start(&lab)?;
    let resolved = calling.call(&["-w", "%{remote_ip}", "-o", "/dev/null", ORDERS])?;
    let at = format!("orders.mesh.internal:8080:{}", resolved.stdout);
    calling.pair.alpha.kill();
    let dead = ["--resolve", at.as_str(), ORDERS];
    let ran = calling.call(&dead)?;
    assert_eq!(ran.status.code(), Some(CURL_REFUSED), "{ran:?}");
    let nobody = calling.pair.alpha.namespace().launch("setpriv");
    let nobody = nobody.args(["--reuid=65534", "--clear-groups", "--bounding-set=-all"]);
    let ran = nobody.args(["socat", "TCP4-LISTEN:747", "-"]).run()?;
    assert!(
        !ran.status.success() && ran.stderr.contains("ermission denied"),
        "{ran:?}"
    );
    calling.pair.alpha.start()?;
    calling.wait_until_it_works()
}

/// As Docker and firewalld make them, as far as they meet what a host sends itself.
const OTHERS: &str = "\
table ip nat {
  chain DOCKER { }
  chain OUTPUT {
    type nat hook output priority -100; policy accept;
    ip daddr != 127.0.0.0/8 fib daddr type local counter jump DOCKER
  }
  chain POSTROUTING {
    type nat hook postrouting priority 100; policy accept;
    ip saddr 172.17.0.0/16 oifname != \"docker0\" counter masquerade
  }
}
table inet firewalld {
  chain nat_OUTPUT {
    type nat hook output priority -90; policy accept;
    ip daddr 203.0.113.9 tcp dport 8080 redirect to :9
  }
  chain filter_INPUT {
    type filter hook input priority 10; policy accept;
    ct state established,related accept
    iifname \"lo\" accept
    iifname \"mesh0\" accept
    udp dport 51820 accept
    meta l4proto { icmp, ipv6-icmp } accept
    reject with icmpx type admin-prohibited
  }
}
";

#[test]
fn calls_pass_beside_the_tables_of_docker_and_firewalld() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let calling = Calling::start(&lab)?;
    let alpha = calling.pair.alpha.namespace();
    alpha.load_ruleset(OTHERS)?;
    for version in ["-4", "-6"] {
        let ran = calling.call(&[version, "--fail", ORDERS])?.success()?;
        assert_eq!(ran.stdout, "all of them\n", "{version}");
    }
    let theirs = |table: &[&str]| {
        let list = ["-s", "list", "table"].iter().chain(table).copied();
        alpha.run("nft", list).map(|ran| ran.stdout)
    };
    let docker = theirs(&["ip", "nat"])?;
    assert!(
        docker.contains("jump DOCKER") && docker.contains("masquerade"),
        "{docker}"
    );
    let firewalld = theirs(&["inet", "firewalld"])?;
    assert!(firewalld.contains("redirect to :9"), "{firewalld}");
    Ok(())
}

#[test]
fn calls_go_on_while_one_daemon_takes_over_from_another() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let calling = Calling::start(&lab)?;
    let done = AtomicBool::new(false);
    let (made, handed) = thread::scope(|scope| {
        let calls = scope.spawn(|| {
            let mut made = 0;
            while !done.load(Ordering::Relaxed) {
                let ran = calling.call(&["--fail", ORDERS]).and_then(Ran::success);
                let said = ran.map(|ran| ran.stdout);
                assert_eq!(said.unwrap(), "all of them\n", "after {made}");
                made += 1;
            }
            made
        });
        let handed = [&calling.pair.alpha, &calling.pair.beta]
            .map(|host| host.ask(&["reload", "--hand-over"]));
        done.store(true, Ordering::Relaxed);
        (calls.join(), handed)
    });
    for outcome in handed {
        assert!(outcome?["handed_over"]["to"].is_string());
    }
    assert!(made.unwrap() > 0);
    calling.wait_until_it_works()
}

#[test]
fn what_is_caught_is_told_by_the_plan_and_gone_after_a_stop() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut calling = Calling::start(&lab)?;
    let table = |calling: &Calling| {
        let nft = calling.pair.alpha.namespace().launch("nft");
        nft.args(["list", "ruleset"]).run().map(|ran| ran.stdout)
    };
    let standing = table(&calling)?;
    assert!(standing.contains("redirect to :747"), "{standing}");
    let plan = calling.pair.alpha.daemon().arg("--plan").run()?.success()?;
    assert!(plan.stdout.contains("redirect to :747"), "{}", plan.stdout);
    calling.pair.alpha.stop()?;
    assert_eq!(table(&calling)?, "");
    // The ports are free again.
    let bound = calling
        .pair
        .alpha
        .namespace()
        .inside(|| [747, 7444].map(|port| TcpListener::bind(("0.0.0.0", port)).map(drop)))?;
    assert!(bound.iter().all(Result::is_ok), "{bound:?}");
    Ok(())
}
