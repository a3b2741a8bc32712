//! Keys and certificates of hosts over time: a WireGuard key that changes under an open connection,
//! a certificate that expired while its host was off.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use lab::fleet::{CHANGE_DEADLINE, Host, Pair};
use lab::{Lab, LabError, wait_until};

const OPEN: &str = "\
fleet: test
allow:
  - { id: ping, from: any, to: any, icmp: true }
  - { id: db, from: any, to: any, tcp: [5432] }
";

/// How long a host was off, for a certificate of a day.
const DAYS_OFF: i32 = 4;

fn record_key(pair: &Pair, host: &str) -> Result<String, LabError> {
    let shown = pair.fleet.coordinator.ask(&["hosts", "show", host])?;
    Ok(shown["wireguard_key"].to_string())
}

/// Sends a line and reads it at the other end, both ways.
fn exchange(client: &mut (impl Read + Write), server: &mut (impl Read + Write), text: &[u8]) {
    let mut read = vec![0; text.len()];
    client.write_all(text).unwrap();
    server.read_exact(&mut read).unwrap();
    server.write_all(&read).unwrap();
    client.read_exact(&mut read).unwrap();
    assert_eq!(read, text);
}

#[test]
fn a_key_changes_under_an_open_connection_at_the_host_and_from_afar() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    pair.fleet.coordinator.apply_policy_text(OPEN)?;
    let listener = pair
        .beta
        .namespace()
        .inside(|| TcpListener::bind("0.0.0.0:5432"))?
        .unwrap();
    let (beta, _) = pair.beta.overlay_addresses()?;
    let mut client = pair.alpha.namespace().dial((beta, 5432))?.connected()?;
    let (mut server, _) = listener.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(CHANGE_DEADLINE)).unwrap();
    }
    exchange(&mut client, &mut server, b"before");

    let first = record_key(&pair, "beta")?;
    let rotated = pair.beta.ask(&["keys", "rotate"])?;
    assert_eq!(rotated["next"], serde_json::Value::Null, "{rotated}");
    let second = record_key(&pair, "beta")?;
    assert_ne!(second, first);
    assert_eq!(rotated["wireguard_key"].to_string(), second);
    exchange(&mut client, &mut server, b"after");

    // Both ends at once, one of them asked by the operator.
    wait_until("the key may change again", CHANGE_DEADLINE, || {
        let asked = pair.fleet.coordinator.ask(&["hosts", "rotate-key", "beta"]);
        asked?;
        Ok((record_key(&pair, "beta")? != second).then_some(()))
    })?;
    pair.alpha.ask(&["keys", "rotate"])?;
    exchange(&mut client, &mut server, b"again");

    // New sessions are made with the new keys, also after a restart without a coordinator.
    pair.fleet.coordinator.kill();
    pair.alpha.start()?;
    pair.beta.start()?;
    pair.alpha.wait_reaches("beta")?;
    pair.beta.wait_reaches("alpha")?;
    Ok(())
}

fn expiry(host: &Host) -> Result<u64, LabError> {
    let status = host.ask(&["status"])?;
    let secs = &status["daemon"]["detail"]["certificate_expires_secs"];
    Ok(secs.as_u64().unwrap_or_default())
}

#[test]
fn a_host_that_was_off_for_days_renews_what_expired_and_a_removed_one_does_not()
-> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    pair.alpha.wait_reaches("beta")?;
    let before = expiry(&pair.alpha)?;
    pair.alpha.kill();
    pair.beta.kill();
    pair.fleet.coordinator.set_clock_days(DAYS_OFF);
    pair.fleet.coordinator.restart()?;
    pair.fleet.coordinator.ask(&["hosts", "remove", "beta"])?;

    pair.alpha.set_clock_days(DAYS_OFF);
    pair.alpha.start()?;
    pair.alpha.wait_state("online")?;
    wait_until("alpha has renewed", CHANGE_DEADLINE, || {
        let day = Duration::from_secs(24 * 3600).as_secs();
        Ok((expiry(&pair.alpha)? > before + 3 * day).then_some(()))
    })?;
    wait_until("alpha knows that beta is gone", CHANGE_DEADLINE, || {
        let peers = pair.alpha.ask(&["peers"])?;
        Ok(peers.as_array().is_some_and(Vec::is_empty).then_some(()))
    })?;

    pair.beta.set_clock_days(DAYS_OFF);
    pair.beta.start()?;
    pair.beta.wait_state("removed")?;
    Ok(())
}

#[test]
fn a_host_whose_clock_stood_still_renews_by_the_coordinator_s() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    let before = expiry(&pair.alpha)?;
    // It is told where beta is, and has written it down when it has stopped.
    pair.alpha.wait_reaches("beta")?;
    pair.alpha.stop()?;
    pair.fleet.coordinator.set_clock_days(DAYS_OFF);
    // The coordinator's certificate is not valid yet by the host's clock: the host is told, and
    // goes on with what it has.
    pair.fleet.coordinator.restart()?;
    pair.alpha.start()?;
    wait_until("alpha tells of its clock", CHANGE_DEADLINE, || {
        let status = pair.alpha.ask(&["status"])?;
        let alarms = status["daemon"]["detail"]["alarms"].to_string();
        Ok(alarms.contains("clock says").then_some(()))
    })?;
    pair.alpha.wait_reaches("beta")?;
    // Somebody sets the clock.
    pair.alpha.set_clock_days(DAYS_OFF);
    pair.alpha.start()?;
    wait_until("alpha has renewed", CHANGE_DEADLINE, || {
        Ok((expiry(&pair.alpha)? > before).then_some(()))
    })
}
