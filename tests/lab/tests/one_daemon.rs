//! One machine's resources: a second program on them is told of the first and harms nothing, and a
//! full disk stops nobody from working.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use lab::fleet::{CHANGE_DEADLINE, Fleet, Host, Pair};
use lab::{Lab, LabError, Launch, wait_until};

/// What a program says that must not start.
fn refusal(program: Launch, name: &str) -> Result<String, LabError> {
    let mut process = program.spawn(name)?;
    let ended = process.wait(CHANGE_DEADLINE)?;
    let said = process.stderr()?;
    assert_eq!(ended.code(), Some(1), "{said}");
    Ok(said)
}

#[test]
fn a_second_daemon_is_told_what_the_first_one_holds() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    pair.alpha.wait_reaches("beta")?;
    // Each has one thing less in common with the first.
    let same = pair.alpha.daemon();
    let own_state = same
        .clone()
        .option("--state-dir", lab.directory().join("second-state"));
    let own_port = own_state.clone().option("--listen-port", "51821");
    let own_dns = own_port.clone().option("--dns-listen", "127.0.0.54:53");
    let cases = [
        (same, "another meshd uses the state directory"),
        (own_state, "cannot listen on UDP port 51820"),
        (own_port, "cannot answer DNS on 127.0.0.53:53"),
        (own_dns, "meshd.sock is in use by another process"),
    ];
    for (second, expected) in cases {
        let said = refusal(second, "second")?;
        assert!(said.contains(expected), "{expected:?} is not in {said:?}");
    }
    assert_eq!(pair.alpha.state()?, "online");
    assert!(pair.alpha.reaches("beta")?);
    Ok(())
}

#[test]
fn a_second_daemon_does_not_take_the_interface_of_the_first() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    pair.alpha.wait_reaches("beta")?;
    let path = |name: &str| lab.directory().join(name);
    let mut second = pair
        .alpha
        .daemon()
        .option("--state-dir", path("second-state"))
        .option("--socket", path("second.sock"))
        .option("--listen-port", "51821")
        .option("--dns-listen", "127.0.0.54:53")
        .spawn("second")?;
    second.wait_ready(CHANGE_DEADLINE)?;
    let token = pair.fleet.coordinator.create_token(&[])?;
    let socket = path("second.sock").to_string_lossy().into_owned();
    let join = pair
        .alpha
        .meshctl(&["join", &token, "--name", "second", "--socket", &socket]);
    join.run()?.success()?;
    second.wait_for_line(
        "an interface mesh0 exists already and is not ours",
        CHANGE_DEADLINE,
    )?;
    assert!(pair.alpha.reaches("beta")?);
    assert!(second.terminate(CHANGE_DEADLINE)?.success());
    let ruleset = pair
        .alpha
        .namespace()
        .run("nft", ["list", "ruleset"])?
        .stdout;
    assert!(ruleset.contains("table inet mesh"), "{ruleset}");
    assert!(pair.alpha.reaches("beta")?);
    Ok(())
}

#[test]
fn a_second_coordinator_is_told_of_the_first() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    let said = refusal(fleet.coordinator.daemon(), "second")?;
    assert!(
        said.contains("another mesh-coordinator uses the state directory"),
        "{said}"
    );
    let state = lab.directory().join("second-state");
    let said = refusal(
        fleet.coordinator.daemon().option("--state-dir", &state),
        "second",
    )?;
    assert!(said.contains("0.0.0.0:7443"), "{said}");
    fleet.coordinator.ask(&["status"])?;
    Ok(())
}

/// A host whose state directory is on a small file system of its own.
fn with_small_disk(fleet: &Fleet, name: &str) -> Result<Host, LabError> {
    let mut host = fleet.machine(name)?;
    host.stop()?;
    let state = host.state_dir();
    host.set_preparation(format!(
        "mount -t tmpfs -o size=128k,mode=700 tmpfs {}",
        state.display()
    ));
    host.start()?;
    Ok(host)
}

/// Where a test sees the daemon's state directory, which is mounted for the daemon alone.
fn seen_from_outside(host: &mut Host) -> PathBuf {
    let pid = host.process().expect("it runs").id();
    let state = host.state_dir();
    Path::new("/proc")
        .join(pid.to_string())
        .join("root")
        .join(state.strip_prefix("/").unwrap())
}

/// Fills a file system to the last byte; the space comes back with the file.
fn fill(directory: &Path) -> PathBuf {
    let path = directory.join("filler");
    let mut file = File::create(&path).unwrap();
    let mut piece = vec![0; 4096];
    while !piece.is_empty() {
        if file.write_all(&piece).is_err() {
            piece.truncate(piece.len() / 2);
        }
    }
    path
}

#[test]
fn a_full_disk_lets_nobody_join_and_says_so() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    let token = fleet.coordinator.create_token(&[])?;
    let mut alpha = with_small_disk(&fleet, "alpha")?;
    let filler = fill(&seen_from_outside(&mut alpha));
    let join = alpha.try_join(&token, "alpha")?;
    assert_eq!(join.code(), Some(3));
    assert!(
        join.stderr.contains("nothing was joined"),
        "{}",
        join.stderr
    );
    assert!(
        join.stderr.contains("No space left on device"),
        "{}",
        join.stderr
    );
    assert_eq!(alpha.state()?, "unenrolled");
    assert_eq!(
        fleet.coordinator.ask(&["hosts", "list"])?,
        serde_json::json!([])
    );
    fs::remove_file(filler).unwrap();
    alpha.join(&token)?;
    Ok(())
}

#[test]
fn a_member_with_a_full_disk_keeps_working_and_catches_up_when_there_is_space()
-> Result<(), LabError> {
    const MORE: &str =
        "fleet: test\nallow:\n  - { id: all, from: any, to: any, icmp: true, tcp: [22] }\n";
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    let beta = fleet.member("beta", &[])?;
    let mut alpha = with_small_disk(&fleet, "alpha")?;
    alpha.join(&fleet.coordinator.create_token(&[])?)?;
    alpha.wait_reaches("beta")?;
    let filler = fill(&seen_from_outside(&mut alpha));

    let directory = fleet.coordinator.write_policy(MORE)?;
    let directory = directory.to_string_lossy();
    let applied = fleet
        .coordinator
        .meshctl(&["policy", "apply", &directory])
        .run()?;
    assert_eq!(
        applied.code(),
        Some(5),
        "{}{}",
        applied.stdout,
        applied.stderr
    );
    assert!(
        applied.stdout.contains("alpha could not apply it"),
        "{}",
        applied.stdout
    );
    let status = alpha.ask(&["status"])?;
    let alarms = status["daemon"]["detail"]["alarms"].to_string();
    assert!(alarms.contains("No space left on device"), "{alarms}");
    assert_eq!(
        status["daemon"]["detail"]["policy"], 1,
        "not enforced before it is durable"
    );
    assert!(alpha.reaches("beta")?);

    fs::remove_file(filler).unwrap();
    wait_until("the policy is in force everywhere", CHANGE_DEADLINE, || {
        let rollout = fleet.coordinator.ask(&["policy", "status"]);
        Ok(rollout.is_ok_and(|it| it["in_force"] == 2).then_some(()))
    })?;
    let status = alpha.ask(&["status"])?;
    assert_eq!(status["daemon"]["detail"]["alarms"], serde_json::json!([]));
    drop(beta);
    Ok(())
}
