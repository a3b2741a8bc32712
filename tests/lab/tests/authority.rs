//! The fleet's authority changes its keys: with the built programs, under an open connection, with a
//! host that sleeps through the beginning, one that joins in between, and one that is left behind.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use lab::fleet::{CHANGE_DEADLINE, Coordinator, Pair};
use lab::{Lab, LabError, wait_until};
use serde_json::Value;

const OPEN: &str = "\
fleet: test
allow:
  - { id: ping, from: any, to: any, icmp: true }
  - { id: db, from: any, to: any, tcp: [5432] }
";

/// Hosts ask for their certificates within a minute.
const MOVED_WITHIN: Duration = Duration::from_secs(120);

fn exchange(client: &mut (impl Read + Write), server: &mut (impl Read + Write), text: &[u8]) {
    let mut read = vec![0; text.len()];
    client.write_all(text).unwrap();
    server.read_exact(&mut read).unwrap();
    assert_eq!(read, text);
}

fn shown(coordinator: &Coordinator) -> Result<Value, LabError> {
    coordinator.ask(&["authority", "show"])
}

fn wait_moved(coordinator: &Coordinator, hosts: u64) -> Result<(), LabError> {
    wait_until("the hosts have moved", MOVED_WITHIN, || {
        let view = shown(coordinator)?;
        let is_signed = view["to_sign"] == 0;
        Ok((view["moved"] == hosts && is_signed).then_some(()))
    })
}

#[test]
fn an_authority_is_rotated_under_an_open_connection_and_with_a_host_that_sleeps()
-> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    let mut gamma = pair.fleet.member("gamma", &[])?;
    let coordinator = &pair.fleet.coordinator;
    coordinator.apply_policy_text(OPEN)?;
    let listener = pair
        .beta
        .namespace()
        .inside(|| TcpListener::bind("0.0.0.0:5432"))?
        .unwrap();
    let (beta, _) = pair.beta.overlay_addresses()?;
    let mut client = pair.alpha.namespace().dial((beta, 5432))?.connected()?;
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(CHANGE_DEADLINE)).unwrap();
    exchange(&mut client, &mut server, b"before");
    let old_token = coordinator.create_token(&[])?;
    gamma.kill();

    let view = coordinator.ask(&["authority", "rotate"])?;
    assert_eq!(view["roots"].as_array().map(Vec::len), Some(2), "{view}");
    wait_moved(coordinator, 2)?;
    exchange(&mut client, &mut server, b"meanwhile");
    let refused = coordinator.ask(&["authority", "retire"]).unwrap_err();
    assert!(refused.to_string().contains("gamma"), "{refused}");

    // A token from before, and a host that slept.
    let delta = pair.fleet.machine("delta")?;
    delta.join(&old_token)?;
    gamma.start()?;
    gamma.wait_state("online")?;
    wait_moved(coordinator, 4)?;
    delta.wait_reaches("gamma")?;

    let view = coordinator.ask(&["authority", "retire"])?;
    assert_eq!(view["roots"].as_array().map(Vec::len), Some(1), "{view}");
    exchange(&mut client, &mut server, b"afterwards");
    let epsilon = pair.fleet.machine("epsilon")?;
    let refused = epsilon.join(&old_token).unwrap_err();
    assert!(refused.to_string().contains("rotated"), "{refused}");
    epsilon.join(&coordinator.create_token(&[])?)?;
    epsilon.wait_reaches("beta")?;

    // Everything comes back from its disk.
    pair.fleet.coordinator.kill();
    pair.alpha.start()?;
    pair.beta.start()?;
    pair.alpha.wait_reaches("beta")?;
    pair.fleet.coordinator.restart()?;
    pair.alpha.wait_state("online")?;
    pair.beta.wait_state("online")?;
    pair.fleet
        .coordinator
        .ask(&["hosts", "label", "beta", "role=api"])?;
    wait_until("alpha hears of a change", CHANGE_DEADLINE, || {
        let peers = pair.alpha.ask(&["peers"])?;
        let peers = peers.as_array().cloned().unwrap_or_default();
        let beta = peers.into_iter().find(|peer| peer["name"] == "beta");
        Ok(beta.filter(|it| it["labels"]["role"] == "api").map(|_| ()))
    })
}

#[test]
fn a_host_that_is_left_behind_says_what_to_do_and_joins_anew() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    pair.beta.kill();
    let coordinator = &pair.fleet.coordinator;
    coordinator.ask(&["authority", "rotate"])?;
    wait_moved(coordinator, 1)?;
    let view = coordinator.ask(&["authority", "retire", "--force"])?;
    assert_eq!(view["left_behind"][0], "beta", "{view}");

    pair.beta.start()?;
    wait_until("beta tells what to do", CHANGE_DEADLINE, || {
        let status = pair.beta.ask(&["status"])?;
        let alarms = status["daemon"]["detail"]["alarms"].to_string();
        Ok(alarms.contains("meshctl leave").then_some(()))
    })?;
    coordinator.ask(&["hosts", "remove", "beta"])?;
    pair.beta.ask(&["leave"])?;
    pair.beta.join(&coordinator.create_token(&[])?)?;
    pair.alpha.wait_reaches("beta")
}
