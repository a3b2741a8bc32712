//! Hosts without their coordinator: they come back from disk and go on, and catch up later.

use std::net::TcpListener;

use lab::fleet::{CHANGE_DEADLINE, Host, Pair};
use lab::{Dialled, Lab, LabError, wait_until};

const WEB: &str = "\
fleet: test
allow:
  - { id: ping, from: any, to: any, icmp: true }
  - { id: web, from: any, to: any, tcp: [8080] }
";

const NO_WEB: &str = "\
fleet: test
allow:
  - { id: ping, from: any, to: any, icmp: true }
deny:
  - { id: web-is-over, from: any, to: any, tcp: [8080] }
";

fn fetch(from: &Host, name: &str) -> Result<String, LabError> {
    let url = format!("http://{name}.mesh.internal:8080/");
    let page = from
        .namespace()
        .launch("curl")
        .args(["-sS", "-m5", &url])
        .run()?;
    Ok(page.success()?.stdout)
}

#[test]
fn a_restarted_host_has_its_peers_names_and_policy_without_a_coordinator() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    pair.fleet.coordinator.apply_policy_text(WEB)?;
    let _web = pair.beta.namespace().serve_http(8080, "hello")?;
    assert_eq!(fetch(&pair.alpha, "beta")?, "hello\n");
    // Where a host that joined last can be reached is told to the others a moment later.
    wait_until("alpha is told where beta is", CHANGE_DEADLINE, || {
        let peers = pair.alpha.ask(&["peers"])?;
        let candidates = peers[0]["candidates"].as_array().map_or(0, Vec::len);
        Ok((candidates > 0).then_some(()))
    })?;
    pair.fleet.coordinator.kill();

    pair.beta.start()?;
    assert_eq!(pair.beta.state()?, "autonomous");
    pair.alpha.wait_reaches("beta.mesh.internal")?;
    assert_eq!(fetch(&pair.alpha, "beta")?, "hello\n");
    // The policy came back too, with what it denies.
    let (beta, _) = pair.beta.overlay_addresses()?;
    let _open = pair
        .beta
        .namespace()
        .inside(|| TcpListener::bind("0.0.0.0:22"))?
        .unwrap();
    assert!(matches!(
        pair.alpha.namespace().dial((beta, 22))?,
        Dialled::Refused
    ));

    // And when all of the fleet restarts at once, as after a power cut.
    pair.alpha.kill();
    pair.beta.kill();
    pair.alpha.start()?;
    pair.beta.start()?;
    pair.alpha.wait_reaches("beta.mesh.internal")?;
    assert_eq!(fetch(&pair.alpha, "beta")?, "hello\n");
    assert_eq!(pair.alpha.ask(&["peers"])?[0]["name"], "beta");
    let status = pair.alpha.ask(&["status"])?;
    let why = &status["daemon"]["detail"]["coordinator_error"];
    assert!(
        why.as_str().is_some_and(|it| it.contains(":7443")),
        "{status}"
    );
    Ok(())
}

#[test]
fn a_coordinator_that_returns_finds_its_hosts_and_changes_reach_them() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    pair.fleet.coordinator.apply_policy_text(WEB)?;
    let _web = pair.beta.namespace().serve_http(8080, "hello")?;
    pair.fleet.coordinator.kill();
    pair.alpha.wait_state("autonomous")?;
    pair.beta.wait_state("autonomous")?;
    assert_eq!(fetch(&pair.alpha, "beta")?, "hello\n");

    pair.fleet.coordinator.restart()?;
    pair.alpha.wait_state("online")?;
    pair.beta.wait_state("online")?;
    let applied = pair.fleet.coordinator.apply_policy_text(NO_WEB)?;
    assert!(
        applied
            .stdout
            .contains("version 3 in force on 2 of 2 hosts"),
        "{}",
        applied.stdout
    );
    let (beta, _) = pair.beta.overlay_addresses()?;
    assert!(matches!(
        pair.alpha.namespace().dial((beta, 8080))?,
        Dialled::Refused
    ));
    pair.alpha.wait_log("denied by rule `web-is-over`")?;
    Ok(())
}

#[test]
fn what_changed_while_a_host_was_off_reaches_it_when_it_is_back() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    pair.beta.stop()?;
    wait_until("beta is offline", CHANGE_DEADLINE, || {
        let beta = pair.fleet.coordinator.ask(&["hosts", "show", "beta"])?;
        Ok((beta["online"] == false).then_some(()))
    })?;
    let applied = pair.fleet.coordinator.apply_policy_text(WEB)?;
    assert!(
        applied.stdout.contains("offline: beta"),
        "{}",
        applied.stdout
    );
    let gamma = pair.fleet.member("gamma", &[])?;
    pair.beta.start()?;
    pair.beta.wait_log("policy version 2 is in force")?;
    gamma.wait_reaches("beta.mesh.internal")?;
    let rollout = pair.fleet.coordinator.ask(&["policy", "status"])?;
    assert_eq!(rollout["in_force"], 3);
    Ok(())
}

#[test]
fn a_peer_that_moves_to_another_address_is_found_without_a_coordinator() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    pair.alpha.wait_reaches("beta")?;
    pair.fleet.coordinator.kill();
    let change = "ip address flush dev eth0; ip address add 10.77.0.99/24 dev eth0";
    pair.beta.namespace().run("sh", ["-ec", change])?;
    // The first packet from the new address tells alpha where beta is.
    pair.beta.wait_reaches("alpha")?;
    pair.alpha.wait_reaches("beta")?;
    let endpoint = &pair.alpha.ask(&["peers"])?[0]["endpoint"];
    assert_eq!(endpoint, "10.77.0.99:51820");
    Ok(())
}
