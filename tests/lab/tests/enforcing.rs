//! The policy on real connections: allowed ones work, denied ones are refused and explained, and a
//! new version reaches what is open.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use lab::fleet::{CHANGE_DEADLINE, Host, Pair};
use lab::{Dialled, Lab, LabError};

const OPEN: &str = "\
fleet: test
allow:
  - { id: ping, from: any, to: any, icmp: true }
  - { id: web-db, from: \"role=web\", to: \"role=db\", tcp: [5432], udp: [514] }
  - { id: high, from: \"role=web\", to: \"role=db\", tcp: [9000-9010] }
deny:
  - { id: no-9005, from: any, to: any, tcp: [9005] }
tests:
  - { allow: \"role=web -> role=db:5432\" }
  - { deny:  \"role=db -> role=web:5432\" }
  - { deny:  \"role=web -> role=db:9005\", rule: no-9005 }
";

const CLOSED: &str = "\
fleet: test
allow:
  - { id: ping, from: any, to: any, icmp: true }
";

const WITHOUT_DATABASE: &str = "\
fleet: test
allow:
  - { id: ping, from: any, to: any, icmp: true }
deny:
  - { id: no-5432, from: any, to: any, tcp: [5432] }
";

fn overlay(host: &Host) -> Result<Ipv4Addr, LabError> {
    host.overlay_addresses().map(|(v4, _)| v4)
}

/// A listener on all addresses of a host.
fn listen(host: &Host, port: u16) -> Result<TcpListener, LabError> {
    let bound = host
        .namespace()
        .inside(|| TcpListener::bind(("0.0.0.0", port)))?;
    Ok(bound.expect("the port is free in a fresh namespace"))
}

#[test]
fn an_allowed_connection_works_and_a_denied_one_is_refused_at_once() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    pair.fleet.coordinator.apply_policy_text(OPEN)?;
    let beta = overlay(&pair.beta)?;
    let _open = [5432, 9000, 9005, 22].map(|port| listen(&pair.beta, port).unwrap());
    let dial = |port: u16| pair.alpha.namespace().dial((beta, port));
    for port in [5432, 9000] {
        assert!(matches!(dial(port)?, Dialled::Connected(_)), "{port}");
    }
    for port in [9005, 22] {
        assert!(matches!(dial(port)?, Dialled::Refused), "{port}");
    }
    // What is allowed in one direction is not in the other.
    let _back = listen(&pair.alpha, 5432)?;
    let back = pair.beta.namespace().dial((overlay(&pair.alpha)?, 5432))?;
    assert!(matches!(back, Dialled::Refused), "{back:?}");
    Ok(())
}

#[test]
fn udp_passes_where_a_rule_says_so_and_replies_pass_back() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    pair.fleet.coordinator.apply_policy_text(OPEN)?;
    let _echo = [
        pair.beta.namespace().serve_udp_echo(514)?,
        pair.beta.namespace().serve_udp_echo(515)?,
    ];
    let echo = |port: u16| -> Result<String, LabError> {
        let target = format!("UDP:beta.mesh.internal:{port}");
        let socat = pair
            .alpha
            .namespace()
            .launch("socat")
            .args(["-t1", "-", &target]);
        Ok(socat.input("sound").run()?.stdout)
    };
    assert_eq!(echo(514)?, "sound");
    assert_eq!(echo(515)?, "");
    Ok(())
}

#[test]
fn a_denial_names_its_rule_in_the_log_and_when_asked_why() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    pair.fleet.coordinator.apply_policy_text(OPEN)?;
    let beta = overlay(&pair.beta)?;
    assert!(matches!(
        pair.alpha.namespace().dial((beta, 9005))?,
        Dialled::Refused
    ));
    assert!(matches!(
        pair.alpha.namespace().dial((beta, 22))?,
        Dialled::Refused
    ));
    let by_rule = pair.alpha.wait_log("denied by rule `no-9005`")?;
    assert!(
        by_rule.contains("beta:9005") && by_rule.contains("alpha"),
        "{by_rule}"
    );
    let by_default = pair.alpha.wait_log("denied, no rule allows it")?;
    assert!(by_default.contains("beta:22"), "{by_default}");

    let why = pair
        .fleet
        .coordinator
        .meshctl(&["why", "alpha", "beta:9005"])
        .run()?;
    assert_eq!(why.code(), Some(5));
    let verdict = "denied by rule no-9005 (policy.yaml:7), policy version 2";
    assert_eq!(
        why.stdout.matches(verdict).count(),
        3,
        "policy, source, destination:\n{}",
        why.stdout
    );
    let why = pair
        .fleet
        .coordinator
        .meshctl(&["why", "alpha", "beta:22"])
        .run()?;
    assert_eq!(
        why.stdout.matches("no rule allows it").count(),
        3,
        "{}",
        why.stdout
    );
    let why = pair
        .fleet
        .coordinator
        .meshctl(&["why", "alpha", "beta:5432"])
        .run()?
        .success()?;
    assert_eq!(
        why.stdout.matches("allowed by rule web-db").count(),
        3,
        "{}",
        why.stdout
    );
    Ok(())
}

#[test]
fn each_end_answers_why_by_itself() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    pair.fleet.coordinator.apply_policy_text(OPEN)?;
    pair.fleet.coordinator.kill();
    for host in [&pair.alpha, &pair.beta] {
        let denied = host.meshctl(&["why", "alpha", "beta:9005"]).run()?;
        assert_eq!(denied.code(), Some(5));
        assert!(
            denied.stdout.contains("denied by rule no-9005"),
            "{}",
            denied.stdout
        );
        let allowed = host
            .meshctl(&["why", "alpha", "beta:5432"])
            .run()?
            .success()?;
        assert!(
            allowed.stdout.contains("allowed by rule web-db"),
            "{}",
            allowed.stdout
        );
    }
    Ok(())
}

#[test]
fn a_receiver_enforces_its_own_policy_whatever_the_sender_believes() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    pair.fleet.coordinator.apply_policy_text(OPEN)?;
    let beta = overlay(&pair.beta)?;
    let _open = [5432, 9000].map(|port| listen(&pair.beta, port).unwrap());
    assert!(matches!(
        pair.alpha.namespace().dial((beta, 5432))?,
        Dialled::Connected(_)
    ));
    // Alpha does not hear of the next version: what the coordinator says is lost.
    let deaf = "table inet deaf { chain input { \
                type filter hook input priority 0; tcp sport 7443 drop; }; }\n";
    pair.alpha.namespace().load_ruleset(deaf)?;
    let closed = pair.fleet.coordinator.write_policy(WITHOUT_DATABASE)?;
    let closed = closed.to_string_lossy();
    pair.fleet
        .coordinator
        .ask(&["policy", "apply", &closed, "--wait", "0"])?;
    pair.beta.wait_log("policy version 3 is in force")?;
    // Beta denies by a rule here and by none there, and alpha hears of it at once.
    let dial = |port: u16| pair.alpha.namespace().dial((beta, port));
    for port in [5432, 9000] {
        assert!(matches!(dial(port)?, Dialled::Refused), "{port}");
    }
    for line in [
        pair.beta.wait_log("denied by rule `no-5432`")?,
        pair.alpha
            .wait_log("beta says: denied by rule `no-5432`: tcp alpha")?,
        pair.beta.wait_log("denied, no rule allows it")?,
        pair.alpha.wait_log("beta says: not allowed: tcp alpha")?,
    ] {
        assert!(line.contains("-> beta:"), "{line}");
    }
    let status = pair.alpha.ask(&["status"])?;
    let drops = status["daemon"]["detail"]["drops"].to_string();
    assert!(drops.contains("denied_by_peer"), "{drops}");
    Ok(())
}

#[test]
fn a_new_version_cuts_open_connections_and_a_rollback_lets_new_ones_in() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    pair.fleet.coordinator.apply_policy_text(OPEN)?;
    let listener = listen(&pair.beta, 5432)?;
    let target = (overlay(&pair.beta)?, 5432);
    let mut client = pair.alpha.namespace().dial(target)?.connected()?;
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"one").unwrap();
    assert_eq!(read(&mut server, CHANGE_DEADLINE), Some(b"one".to_vec()));

    pair.fleet.coordinator.apply_policy_text(CLOSED)?;
    // In force on both hosts when `apply` has returned: nothing of this may arrive.
    let _ = client.write_all(b"two");
    assert_eq!(read(&mut server, Duration::from_millis(700)), None);
    let _ = server.write_all(b"back");
    assert_eq!(read(&mut client, Duration::from_millis(700)), None);
    assert!(matches!(
        pair.alpha.namespace().dial(target)?,
        Dialled::Refused
    ));

    pair.fleet.coordinator.ask(&["policy", "rollback", "2"])?;
    pair.alpha.namespace().dial(target)?.connected()?;
    Ok(())
}

/// What arrives in time; nothing, when the connection was cut or is silent.
fn read(stream: &mut TcpStream, patience: Duration) -> Option<Vec<u8>> {
    stream.set_read_timeout(Some(patience)).unwrap();
    let mut bytes = [0; 64];
    match stream.read(&mut bytes) {
        Ok(0) => None,
        Ok(length) => Some(bytes[..length].to_vec()),
        Err(error) => {
            let cut = [
                ErrorKind::WouldBlock,
                ErrorKind::TimedOut,
                ErrorKind::ConnectionReset,
            ];
            assert!(cut.contains(&error.kind()), "{error}");
            None
        }
    }
}

#[test]
fn history_tells_who_changed_what_and_rollback_makes_a_new_version() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    let directory = pair.fleet.coordinator.write_policy(OPEN)?;
    let directory = directory.to_string_lossy();
    let applied =
        pair.fleet
            .coordinator
            .ask(&["policy", "apply", &directory, "-m", "open the database"])?;
    assert_eq!(
        (&applied["version"], &applied["tests_passed"]),
        (&2.into(), &3.into())
    );
    assert_eq!(applied["rollout"]["in_force"], 2);
    let again = pair
        .fleet
        .coordinator
        .ask(&["policy", "apply", &directory])?;
    assert_eq!(
        (&again["version"], &again["changed"]),
        (&2.into(), &false.into())
    );
    let back = pair.fleet.coordinator.ask(&["policy", "rollback", "1"])?;
    assert_eq!(back["version"], 3);
    let history = pair.fleet.coordinator.ask(&["policy", "history"])?;
    let mut rows: Vec<_> = history.as_array().unwrap().iter().collect();
    rows.sort_by_key(|row| row["version"].as_u64());
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[1]["message"], "open the database");
    assert_eq!(rows[2]["current"], true);
    assert_eq!(rows[0]["content_digest"], rows[2]["content_digest"]);
    assert!(
        rows.iter()
            .all(|row| row["author"].as_str().is_some_and(|it| !it.is_empty()))
    );
    let shown = pair.fleet.coordinator.ask(&["policy", "show", "2"])?;
    assert_eq!(shown["files"][0]["text"], OPEN);
    Ok(())
}

#[test]
fn a_change_made_on_an_old_version_is_refused() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    pair.fleet.coordinator.apply_policy_text(OPEN)?;
    let directory = pair.fleet.coordinator.write_policy(CLOSED)?;
    let directory = directory.to_string_lossy();
    let apply = ["policy", "apply", &directory, "--base", "1"];
    let ran = pair.fleet.coordinator.meshctl(&apply).run()?;
    assert_eq!(ran.code(), Some(1));
    assert!(
        ran.stderr
            .contains("made on version 1, and version 2 is in force"),
        "{}",
        ran.stderr
    );
    Ok(())
}
