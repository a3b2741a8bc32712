//! Rules about UDP that name workloads: the unit that one names is heard from its first datagram on,
//! others of the same host are refused and told why, and open flows follow the policy.

use lab::fleet::{CHANGE_DEADLINE, Pair};
use lab::{Lab, LabError, Launch, Process, Unit, wait_until};

const POLICY: &str = "\
fleet: test
workloads:
  web: { unit: web.service, hosts: \"role=web\" }
allow:
  - { id: ping, from: any, to: any, icmp: true }
  - { id: web-echo, from: web, to: \"role=db\", udp: [5353] }
";
const CLOSED: &str = "\
fleet: test
allow:
  - { id: ping, from: any, to: any, icmp: true }
";
/// Says back what it hears.
const ECHO: &str = "\
import socket
server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
server.bind(('::', 5353))
print('ready', flush=True)
while True:
    server.sendto(*server.recvfrom(2048))
";
/// Sends one datagram to an address, and prints the answer or why there is none.
const ASK: &str = "\
import socket, sys
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
client = socket.socket(family, socket.SOCK_DGRAM)
client.settimeout(3)
client.connect((sys.argv[1], 5353))
try:
    client.send(b'hello')
    print(client.recv(2048).decode())
except OSError as error:
    print(type(error).__name__)
";

/// A fleet whose one host may be asked by a unit of the other.
struct Asking {
    unit: Unit,
    pair: Pair,
    _server: Process,
}

impl Asking {
    fn start(lab: &Lab) -> Result<Self, LabError> {
        let pair = Pair::start(lab)?;
        let server = pair.beta.namespace().launch("python3");
        let mut server = server.args(["-uc", ECHO]).spawn("echo")?;
        pair.fleet.coordinator.apply_policy_text(POLICY)?;
        server.wait_for_line("ready", CHANGE_DEADLINE)?;
        let asking = Self {
            unit: Unit::new(lab, "web.service")?,
            pair,
            _server: server,
        };
        let (v4, _) = asking.pair.beta.overlay_addresses()?;
        wait_until("the unit is answered", CHANGE_DEADLINE, || {
            Ok((asking.ask(&asking.unit, &v4.to_string())? == "hello\n").then_some(()))
        })?;
        Ok(asking)
    }

    fn ask(&self, unit: &Unit, address: &str) -> Result<String, LabError> {
        asked(unit.launch(self.pair.alpha.namespace(), "python3"), address)
    }
}

fn asked(python: Launch, address: &str) -> Result<String, LabError> {
    let ran = python.args(["-c", ASK, address]).run()?.success()?;
    Ok(ran.stdout)
}

#[test]
fn the_named_unit_is_heard_from_its_first_datagram_on_and_nobody_else_is() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut asking = Asking::start(&lab)?;
    let (v4, v6) = asking.pair.beta.overlay_addresses()?;
    let other = Unit::new(&lab, "cron.service")?;
    for address in [v4.to_string(), v6.to_string()] {
        for _ in 0..20 {
            assert_eq!(asking.ask(&asking.unit, &address)?, "hello\n", "{address}");
        }
        let refused = asking.ask(&other, &address)?;
        assert_ne!(refused, "hello\n", "{address}");
        assert_ne!(refused, "TimeoutError\n", "it is told at once");
        let bare = asking.pair.alpha.namespace().launch("python3");
        assert_ne!(asked(bare, &address)?, "hello\n", "{address}");
    }
    let line = asking
        .pair
        .alpha
        .wait_log("denied, since rule `web-echo`")?;
    assert!(line.contains("(policy.yaml:6) names workloads"), "{line}");
    assert!(line.contains("udp") && line.contains(":5353"), "{line}");
    Ok(())
}

#[test]
fn an_open_flow_ends_with_the_rule_that_let_it_through() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let asking = Asking::start(&lab)?;
    let (v4, _) = asking.pair.beta.overlay_addresses()?;
    let coordinator = &asking.pair.fleet.coordinator;
    coordinator.apply_policy_text(CLOSED)?;
    let again = |expected: bool| {
        wait_until("the policy is in force", CHANGE_DEADLINE, || {
            let said = asking.ask(&asking.unit, &v4.to_string())?;
            Ok(((said == "hello\n") == expected).then_some(()))
        })
    };
    again(false)?;
    coordinator.apply_policy_text(POLICY)?;
    again(true)
}

#[test]
fn a_daemon_that_starts_again_is_told_anew_who_sends() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut asking = Asking::start(&lab)?;
    let (v4, _) = asking.pair.beta.overlay_addresses()?;
    asking.pair.beta.kill();
    asking.pair.beta.start()?;
    wait_until("the unit is answered again", CHANGE_DEADLINE, || {
        Ok((asking.ask(&asking.unit, &v4.to_string())? == "hello\n").then_some(()))
    })
}
