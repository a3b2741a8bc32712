//! Joins that must fail: bad tokens, wrong coordinators, taken names, copied keys, wrong clocks. Each
//! says what is wrong and what to try, and leaves the machine as it was.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]

use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use lab::fleet::{CHANGE_DEADLINE, Fleet, Host, Pair};
use lab::{Lab, LabError, Ran, wait_until};

const YEAR_DAYS: i32 = 365;

/// Asserts that a join failed with a message, and that the machine is no member.
fn assert_refused(host: &Host, join: &Ran, expected: &str) -> Result<(), LabError> {
    assert!(
        join.stderr.contains(expected),
        "{expected:?} is not in {:?}",
        join.stderr
    );
    assert_ne!(join.code(), Some(0));
    assert_eq!(host.state()?, "unenrolled");
    Ok(())
}

#[test]
fn what_is_no_token_is_told_from_a_damaged_one() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    let alpha = fleet.machine("alpha")?;
    let token = fleet.coordinator.create_token(&[])?;
    let truncated = &token[..token.len() - 5];
    let middle = token.len() / 2;
    let other = if &token[middle..=middle] == "a" {
        "b"
    } else {
        "a"
    };
    let mistyped = format!("{}{other}{}", &token[..middle], &token[middle + 1..]);
    let newer = token.replacen("mesh1", "mesh2", 1);
    let cases = [
        ("hello", "this is not a join token"),
        (truncated, "truncated or mistyped"),
        (&mistyped, "truncated or mistyped"),
        (&newer, "upgrade it"),
    ];
    for (wrong, expected) in cases {
        let join = alpha.try_join(wrong, "alpha")?;
        assert_refused(&alpha, &join, expected)?;
        assert_eq!(join.code(), Some(1));
    }
    let empty = alpha.try_join("", "alpha")?;
    assert_eq!(empty.code(), Some(2), "{}", empty.stderr);
    alpha.join(&token)?;
    Ok(())
}

#[test]
fn expired_used_up_revoked_and_restricted_tokens_are_refused_by_name() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    let alpha = fleet.machine("alpha")?;
    let make = |options: &[&str]| fleet.coordinator.create_token_with(options);

    let expired = make(&["--valid-for", "1s"])?;
    let tokens = fleet.coordinator.ask(&["tokens", "list"])?;
    let expires_secs = tokens[0]["expires_secs"].as_u64().unwrap();
    wait_until("the token has expired", CHANGE_DEADLINE, || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Ok((now.as_secs() > expires_secs).then_some(()))
    })?;
    assert_refused(
        &alpha,
        &alpha.try_join(&expired, "alpha")?,
        "this join token expired at ",
    )?;

    let single = make(&["--uses", "1"])?;
    fleet.machine("beta")?.join(&single)?;
    let join = alpha.try_join(&single, "alpha")?;
    assert_refused(&alpha, &join, "used up: 1 of 1 hosts have joined with it")?;

    let before: Vec<String> = token_ids(&fleet)?;
    let revoked = make(&[])?;
    let id = token_ids(&fleet)?
        .into_iter()
        .find(|id| !before.contains(id))
        .unwrap();
    fleet.coordinator.ask(&["tokens", "revoke", &id])?;
    assert_refused(
        &alpha,
        &alpha.try_join(&revoked, "alpha")?,
        "this join token was revoked",
    )?;

    let restricted = make(&["--name", "web-*"])?;
    let join = alpha.try_join(&restricted, "alpha")?;
    assert_refused(
        &alpha,
        &join,
        "does not permit the name alpha: it is for web-*",
    )?;
    assert!(alpha.try_join(&restricted, "web-1")?.status.success());
    Ok(())
}

fn token_ids(fleet: &Fleet) -> Result<Vec<String>, LabError> {
    let tokens = fleet.coordinator.ask(&["tokens", "list"])?;
    let ids = tokens.as_array().into_iter().flatten();
    Ok(ids
        .filter_map(|it| Some(it["id"].as_str()?.to_owned()))
        .collect())
}

#[test]
fn a_name_that_is_taken_is_refused_and_its_owner_is_unharmed() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    let gamma = pair.fleet.machine("gamma")?;
    let token = pair.fleet.coordinator.create_token(&[])?;
    let join = gamma.try_join(&token, "beta")?;
    assert_refused(&gamma, &join, "the name beta is taken by host ")?;
    assert!(join.stderr.contains("--name"), "{}", join.stderr);
    let join = gamma.try_join(&token, "No_Name!")?;
    assert_refused(&gamma, &join, "choose another with --name")?;
    pair.alpha.wait_reaches("beta")?;
    gamma.join(&token)?;
    gamma.wait_reaches("beta")
}

#[test]
fn a_name_of_a_service_is_no_name_for_a_host() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    fleet.coordinator.apply_policy_text(
        "fleet: test\nservices:\n  orders: { port: 80, protocol: tcp, endpoints: [\"role=db\"] }\n",
    )?;
    let alpha = fleet.machine("alpha")?;
    let join = alpha.try_join(&fleet.coordinator.create_token(&[])?, "orders")?;
    assert_refused(
        &alpha,
        &join,
        "orders is the name of a service in policy version 2",
    )
}

#[test]
fn another_coordinator_at_the_address_is_not_believed() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    let token = pair.fleet.coordinator.create_token(&[])?;
    pair.alpha.wait_reaches("beta")?;
    // A coordinator of another authority takes over the address, even under the same fleet name.
    pair.fleet.coordinator.stop()?;
    let (state, kept) = (
        pair.fleet.coordinator.state_dir(),
        lab.directory().join("kept"),
    );
    fs::rename(&state, &kept).unwrap();
    pair.fleet.coordinator.restart()?;

    let gamma = pair.fleet.machine("gamma")?;
    let join = gamma.try_join(&token, "gamma")?;
    assert_refused(
        &gamma,
        &join,
        "belongs to another authority than the join token names",
    )?;
    assert_eq!(
        pair.fleet
            .coordinator
            .ask(&["hosts", "list"])?
            .as_array()
            .map(Vec::len),
        Some(0)
    );
    // Members neither believe it nor lose anything.
    wait_until("alpha tells of it", CHANGE_DEADLINE, || {
        let status = pair.alpha.ask(&["status"])?;
        let alarms = status["daemon"]["detail"]["alarms"].to_string();
        Ok(alarms
            .contains("not issued by an authority of this fleet")
            .then_some(()))
    })?;
    assert_eq!(pair.alpha.state()?, "autonomous");
    assert!(pair.alpha.reaches("beta")?);

    pair.fleet.coordinator.stop()?;
    fs::rename(&state, lab.directory().join("impostor")).unwrap();
    fs::rename(&kept, &state).unwrap();
    pair.fleet.coordinator.restart()?;
    pair.alpha.wait_state("online")?;
    let status = pair.alpha.ask(&["status"])?;
    assert_eq!(status["daemon"]["detail"]["alarms"], serde_json::json!([]));
    gamma.join(&token)?;
    Ok(())
}

#[test]
fn a_coordinator_that_is_not_there_is_named_with_its_address() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut fleet = Fleet::start(&lab, "test")?;
    let token = fleet.coordinator.create_token(&[])?;
    let alpha = fleet.machine("alpha")?;
    fleet.coordinator.kill();
    let join = alpha.try_join(&token, "alpha")?;
    assert_refused(
        &alpha,
        &join,
        "cannot reach the coordinator at 10.77.0.1:7443",
    )?;
    fleet.coordinator.restart()?;
    alpha.join(&token)?;
    Ok(())
}

fn copy_state(from: &Host, to: &Host) {
    let copied = Command::new("cp")
        .args(["-a", "--no-target-directory"])
        .args([from.state_dir(), to.state_dir()])
        .status();
    assert!(copied.unwrap().success());
}

/// A machine with keys and without a fleet, as a join that failed leaves it, and a clone of it.
fn with_clone(fleet: &Fleet) -> Result<(Host, Host), LabError> {
    let mut original = fleet.machine("alpha")?;
    let restricted = fleet.coordinator.create_token_with(&["--name", "other"])?;
    let join = original.try_join(&restricted, "alpha")?;
    assert_refused(&original, &join, "does not permit")?;
    original.stop()?;
    let mut clone = fleet.machine("clone")?;
    clone.stop()?;
    copy_state(&original, &clone);
    original.start()?;
    Ok((original, clone))
}

#[test]
fn keys_that_another_host_has_are_refused_and_their_owner_is_named() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    let (alpha, mut clone) = with_clone(&fleet)?;
    alpha.join(&fleet.coordinator.create_token(&[])?)?;
    // A clone that kept even the machine's id cannot know that it is one; the coordinator does.
    clone.take_machine_id_of(&alpha)?;
    clone.start()?;
    let token = fleet.coordinator.create_token(&[])?;
    let join = clone.try_join(&token, "clone")?;
    assert_refused(&clone, &join, "these keys belong to host alpha")?;
    assert!(join.stderr.contains("cloned"), "{}", join.stderr);
    // What the message says to do helps.
    clone.stop()?;
    fs::remove_dir_all(clone.state_dir()).unwrap();
    clone.start()?;
    clone.join(&token)?;
    clone.wait_reaches("alpha")
}

#[test]
fn a_clone_with_an_id_of_its_own_makes_keys_of_its_own() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    let (alpha, mut clone) = with_clone(&fleet)?;
    let token = fleet.coordinator.create_token(&[])?;
    clone.start()?;
    clone.wait_log("the keys in the state directory were made by another machine")?;
    alpha.join(&token)?;
    clone.join(&token)?;
    clone.wait_reaches("alpha")
}

#[test]
fn a_machine_with_a_copied_membership_says_so_and_can_join_as_itself() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    pair.alpha.stop()?;
    let mut clone = pair.fleet.machine("clone")?;
    clone.stop()?;
    copy_state(&pair.alpha, &clone);
    clone.start()?;
    assert_eq!(clone.state()?, "cloned");
    let said = clone.meshctl(&["status"]).run()?.success()?.stdout;
    assert!(
        said.contains("a copy of alpha's") && said.contains("meshctl join"),
        "{said}"
    );
    let links = clone.namespace().run("ip", ["-br", "link"])?.stdout;
    assert!(!links.contains("mesh0"), "{links}");
    // The original knows nothing of it, also when the clone becomes a host of its own.
    pair.alpha.start()?;
    pair.alpha.wait_state("online")?;
    clone.join(&pair.fleet.coordinator.create_token(&[])?)?;
    clone.wait_reaches("alpha")?;
    pair.beta.wait_reaches("alpha")?;
    assert!(!pair.alpha.log()?.contains("newer stream"));
    Ok(())
}

#[test]
fn a_clock_that_is_a_year_off_is_named_when_a_host_joins() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    let token = fleet.coordinator.create_token(&[])?;
    let mut alpha = fleet.machine("alpha")?;
    for days in [YEAR_DAYS, -YEAR_DAYS] {
        alpha.set_clock_days(days);
        alpha.start()?;
        let join = alpha.try_join(&token, "alpha")?;
        assert_refused(&alpha, &join, "this machine's clock says")?;
        assert!(join.stderr.contains("timedatectl"), "{}", join.stderr);
    }
    alpha.set_clock_days(0);
    alpha.start()?;
    alpha.join(&token)?;
    Ok(())
}

#[test]
fn a_member_whose_clock_jumps_a_year_keeps_its_tunnels_and_is_told() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    // It is told where beta is, and has written it down when it has stopped.
    pair.alpha.wait_reaches("beta")?;
    pair.alpha.stop()?;
    // Ahead, then behind all that it ever used: handshakes must go on in every case.
    for days in [YEAR_DAYS, -YEAR_DAYS] {
        pair.alpha.set_clock_days(days);
        pair.alpha.start()?;
        wait_until("alpha tells of its clock", CHANGE_DEADLINE, || {
            let status = pair.alpha.ask(&["status"])?;
            let alarms = status["daemon"]["detail"]["alarms"].to_string();
            Ok(alarms.contains("clock says").then_some(()))
        })?;
        pair.alpha.wait_reaches("beta")?;
        pair.beta.wait_reaches("alpha")?;
    }
    pair.alpha.set_clock_days(0);
    pair.alpha.start()?;
    pair.alpha.wait_state("online")?;
    pair.alpha.wait_reaches("beta")?;
    let status = pair.alpha.ask(&["status"])?;
    assert_eq!(status["daemon"]["detail"]["alarms"], serde_json::json!([]));
    Ok(())
}

#[test]
fn a_coordinator_whose_clock_is_a_year_off_changes_nothing_for_its_hosts() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    pair.alpha.wait_reaches("beta")?;
    for days in [YEAR_DAYS, -YEAR_DAYS] {
        pair.fleet.coordinator.set_clock_days(days);
        pair.fleet.coordinator.restart()?;
        wait_until("alpha tells of the clocks", CHANGE_DEADLINE, || {
            let status = pair.alpha.ask(&["status"])?;
            let alarms = status["daemon"]["detail"]["alarms"].to_string();
            Ok(alarms.contains("clock says").then_some(()))
        })?;
        assert_eq!(pair.alpha.state()?, "autonomous");
        assert!(pair.alpha.reaches("beta")?);
    }
    pair.fleet.coordinator.set_clock_days(0);
    pair.fleet.coordinator.restart()?;
    pair.alpha.wait_state("online")?;
    pair.beta.wait_state("online")
}
