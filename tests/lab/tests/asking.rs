//! What an operator on a host finds out by asking: what was dropped, which names and services there
//! are, how a peer is reached, and why a flow works or does not.

use lab::fleet::{CHANGE_DEADLINE, Pair};
use lab::{Dialled, Lab, LabError, wait_until};
use serde_json::Value;

/// `orders` and `spare` are both at beta; alpha may reach the first.
const POLICY: &str = "\
fleet: test
services:
  orders: { port: 8080, protocol: tcp, endpoints: [\"role=db\"] }
  spare: { port: 9090, protocol: tcp, endpoints: [\"role=db\"] }
allow:
  - { id: ping, from: any, to: any, icmp: true }
  - { id: web-orders, from: \"role=web\", to: orders }
  - { id: mesh-dns, from: any, to: any, udp: [53] }
";

#[test]
fn drops_tell_why_since_when_and_what_to_try() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    let (beta, _) = pair.beta.overlay_addresses()?;
    assert!(matches!(
        pair.alpha.namespace().dial((beta, 22))?,
        Dialled::Refused
    ));
    let row = wait_until("the drop is told", CHANGE_DEADLINE, || {
        let drops = pair.alpha.ask(&["drops"])?;
        let mut rows = drops["reasons"].as_array().into_iter().flatten();
        Ok(rows.find(|row| row["reason"] == "denied_outbound").cloned())
    })?;
    assert!(row["packets"].as_u64() >= Some(1), "{row}");
    assert!(row["first_secs"].as_u64() <= row["last_secs"].as_u64());
    let text = pair.alpha.meshctl(&["drops", "--all"]).run()?.success()?;
    assert!(text.stdout.contains("REASON"), "{}", text.stdout);
    assert!(text.stdout.contains("meshctl why"), "{}", text.stdout);
    assert!(!text.stdout.contains('\u{1b}'), "plain where nobody looks");
    Ok(())
}

#[test]
fn names_and_services_are_those_that_the_rules_let_this_host_reach() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    pair.fleet.coordinator.apply_policy_text(POLICY)?;
    let names = |host: &lab::fleet::Host| -> Result<Vec<String>, LabError> {
        let dns = host.ask(&["dns", "show"])?;
        let names = dns["names"].as_array().into_iter().flatten();
        Ok(names
            .filter_map(|it| it["name"].as_str().map(str::to_owned))
            .collect())
    };
    assert_eq!(names(&pair.alpha)?, ["alpha", "beta", "orders"]);
    // Beta offers both.
    assert_eq!(names(&pair.beta)?, ["alpha", "beta", "orders", "spare"]);

    let found = pair.alpha.ask(&["dns", "query", "orders"])?;
    assert_eq!(found["answers"][0]["records"][0]["record_type"], "A");
    assert_eq!(found["system"]["agrees"], true, "{found}");
    let spare = pair.alpha.meshctl(&["dns", "query", "spare"]).run()?;
    assert_eq!(spare.code(), Some(1));
    assert!(spare.stdout.contains("NXDomain"), "{}", spare.stdout);

    let services = pair.alpha.ask(&["services", "list"])?;
    assert_eq!(services.as_array().map(Vec::len), Some(1), "{services}");
    let orders = pair.alpha.ask(&["services", "show", "orders"])?;
    let endpoint = &orders["endpoints"][0];
    assert_eq!(
        (&endpoint["host"], &endpoint["allowed"], &endpoint["rule"]),
        (
            &Value::from("beta"),
            &Value::from(true),
            &Value::from("web-orders")
        )
    );
    let spare = pair.alpha.meshctl(&["services", "show", "spare"]).run()?;
    assert_eq!(spare.code(), Some(1));
    Ok(())
}

#[test]
fn a_ping_tells_the_path_and_the_largest_packet_that_passes() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    pair.alpha.wait_reaches("beta")?;
    let report = pair.alpha.ask(&["ping", "beta"])?;
    assert_eq!(report["mtu"]["largest_packet_bytes"], 1420, "{report}");
    assert_eq!(report["summary"]["loss_percent"], 0, "{report}");
    assert!(report["summary"]["p99_micros"].is_u64());
    let beta = pair.beta.attachment();
    let via = report["replies"][0]["endpoint"].as_str();
    let via: std::net::SocketAddr = via
        .and_then(|text| text.parse().ok())
        .expect("an endpoint is known");
    assert!([beta.v4.into(), std::net::IpAddr::from(beta.v6)].contains(&via.ip()));

    // The path loses what is too large for it, and says nothing.
    let narrow = ["link", "set", "eth0", "mtu", "1380"];
    pair.alpha.namespace().run("ip", narrow)?;
    let report = pair.alpha.ask(&["ping", "beta", "-c", "1"])?;
    let largest = report["mtu"]["largest_packet_bytes"].as_u64();
    let outer_headers = if via.is_ipv4() { 60 } else { 80 };
    assert!(largest <= Some(1380 - outer_headers), "{report}");
    assert!(largest >= Some(1380 - outer_headers - 16), "{report}");
    let text = pair.alpha.meshctl(&["ping", "beta", "-c", "1"]).run()?;
    assert!(
        text.stdout.contains("do not pass at once"),
        "{}",
        text.stdout
    );
    Ok(())
}

#[test]
fn why_goes_from_the_name_to_the_listener() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    pair.fleet.coordinator.apply_policy_text(POLICY)?;
    pair.alpha.wait_reaches("beta")?;
    let (beta, _) = pair.beta.overlay_addresses()?;
    assert!(matches!(
        pair.alpha.namespace().dial((beta, 22))?,
        Dialled::Refused
    ));
    let why = || -> Result<String, LabError> {
        let coordinator = &pair.fleet.coordinator;
        let ran = coordinator.meshctl(&["why", "alpha", "orders"]).run()?;
        Ok(ran.success()?.stdout)
    };
    let text = wait_until("the drop is known", CHANGE_DEADLINE, || {
        Ok(Some(why()?).filter(|text| text.contains("last drop: tcp 22 to beta")))
    })?;
    for part in [
        &format!("beta is {beta}"),
        "path: beta answers at ",
        "path: alpha answers at ",
        "last handshake ",
        "listener: nothing listens on tcp 8080",
        "in the way   nothing listens on beta",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    let loopback = "TCP4-LISTEN:8080,bind=127.0.0.1,fork,reuseaddr";
    let sleeper = pair.beta.namespace().launch("socat");
    let _hidden = sleeper.args([loopback, "EXEC:cat"]).spawn("hidden")?;
    wait_until("a program listens on loopback", CHANGE_DEADLINE, || {
        Ok(why()?
            .contains("on beta the program listens on other addresses only")
            .then_some(()))
    })?;
    let _seen = pair.beta.namespace().serve_http(8081, "")?;
    // The far end's own answer, without the coordinator, names the listener too.
    let local = pair.beta.meshctl(&["why", "alpha", "orders"]).run()?;
    assert!(
        local.stdout.contains("but not on the overlay's addresses"),
        "{}",
        local.stdout
    );
    // What is denied tells nothing of what listens.
    let denied = pair
        .fleet
        .coordinator
        .meshctl(&["why", "alpha", "beta:8081"]);
    let denied = denied.run()?;
    assert_eq!(denied.code(), Some(5));
    assert!(!denied.stdout.contains("listen"), "{}", denied.stdout);
    Ok(())
}

#[test]
fn versions_are_told_and_completions_are_scripts() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    let versions = pair.alpha.ask(&["version"])?;
    assert_eq!(versions["meshctl"], versions["meshd"], "{versions}");
    assert_eq!(versions["coordinator"], Value::Null, "{versions}");
    let versions = pair.fleet.coordinator.ask(&["version"])?;
    assert_eq!(versions["meshctl"], versions["coordinator"], "{versions}");
    pair.alpha.kill();
    let alone = pair.alpha.meshctl(&["version"]).run()?.success()?;
    assert!(alone.stdout.contains("not reachable"), "{}", alone.stdout);
    let bash = pair.alpha.shell();
    let script = "source <(meshctl completion bash) && complete -p meshctl";
    let known = bash.args(["-ec", script]).run()?.success()?;
    assert!(known.stdout.contains("meshctl"), "{}", known.stdout);
    Ok(())
}

#[test]
fn colour_is_for_people_and_for_those_who_ask_for_it() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    let status = |arguments: &[&str], variables: &[&str]| -> Result<bool, LabError> {
        let mut launch = pair.alpha.meshctl(&["status"]).args(arguments);
        for variable in variables {
            launch = launch.env(variable, "1");
        }
        Ok(launch.run()?.success()?.stdout.contains('\u{1b}'))
    };
    assert!(!status(&[], &[])?, "nobody looks at a pipe");
    assert!(status(&[], &["CLICOLOR_FORCE"])?);
    assert!(!status(&[], &["CLICOLOR_FORCE", "NO_COLOR"])?);
    assert!(status(&["--color", "always"], &["NO_COLOR"])?);
    assert!(!status(&["--color", "always", "--json"], &[])?);
    Ok(())
}
