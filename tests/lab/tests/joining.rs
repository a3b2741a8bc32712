//! From a bare machine to a member of a fleet and back: join, status, names, leave, removal.

use std::fs;

use lab::fleet::{Fleet, Pair};
use lab::{Lab, LabError};

#[test]
fn an_unenrolled_daemon_is_ready_and_says_so() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    let machine = fleet.machine("alpha")?;
    assert_eq!(machine.state()?, "unenrolled");
    let said = machine.meshctl(&["status"]).run()?.success()?.stdout;
    assert!(said.contains("run meshctl join TOKEN"), "{said}");
    let links = machine.namespace().run("ip", ["-br", "link"])?.stdout;
    assert!(!links.contains("mesh0"), "no interface yet: {links}");
    Ok(())
}

#[test]
fn one_token_brings_hosts_in_by_argument_file_and_standard_input() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    let token = fleet
        .coordinator
        .create_token_with(&["--uses", "3", "--label", "role=app"])?;
    let file = lab.directory().join("token");
    fs::write(&file, format!("{token}\n")).unwrap();
    let file = file.to_string_lossy();
    let ways: [(&str, Vec<&str>); 3] = [
        ("alpha", vec!["join", &token]),
        ("beta", vec!["join", "--token-file", &file]),
        ("gamma", vec!["join", "-"]),
    ];
    let mut hosts = Vec::new();
    for (name, arguments) in &ways {
        let host = fleet.machine(name)?;
        let join = host.meshctl(arguments).args(["--name", name]);
        let said = join.input(token.as_str()).run()?.success()?.stdout;
        let expected = format!("{name} is a member of fleet test as {name}.mesh.internal");
        assert!(said.contains(&expected), "{said}");
        assert_eq!(host.state()?, "online");
        hosts.push(host);
    }
    let members = fleet.coordinator.ask(&["hosts", "list"])?;
    let labels: Vec<_> = members
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["labels"]["role"])
        .collect();
    assert_eq!(labels, ["app", "app", "app"]);
    let tokens = fleet.coordinator.ask(&["tokens", "list"])?;
    assert_eq!(tokens[0]["used"], 3);
    Ok(())
}

#[test]
fn two_members_reach_each_other_by_name_over_both_families() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    pair.alpha.wait_reaches("beta.mesh.internal")?;
    // The search list of resolv.conf makes the short name do.
    pair.alpha.wait_reaches("beta")?;
    for family in ["-4", "-6"] {
        let ping = ["-c1", "-W5", family, "alpha.mesh.internal"];
        pair.beta.namespace().run("ping", ping)?;
    }
    let said = pair
        .alpha
        .meshctl(&["ping", "beta", "-c", "1"])
        .run()?
        .success()?
        .stdout;
    assert!(said.contains(" via ") && said.contains(" ms"), "{said}");
    let peers = pair.alpha.ask(&["peers"])?;
    assert_eq!(peers[0]["name"], "beta");
    assert!(peers[0]["last_handshake_secs"].is_u64(), "{peers}");
    Ok(())
}

#[test]
fn what_travels_between_two_members_is_encrypted() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    pair.alpha.wait_reaches("beta")?;
    let tap = lab::Wiretap::start(&pair.fleet.underlay)?;
    // -p: sixteen bytes that cannot be overheard by chance.
    let pattern = "6d6573682d736563726574206279746573";
    pair.alpha
        .namespace()
        .run("ping", ["-c3", "-i0.2", "-p", &pattern[..32], "beta"])?;
    let overheard = tap.datagrams()?;
    assert!(
        overheard.len() >= 6,
        "three pings and their answers: {overheard:?}"
    );
    let leaks = overheard.iter().filter(|it| {
        it.payload
            .windows(11)
            .any(|window| window == b"mesh-secret")
    });
    assert_eq!(leaks.count(), 0);
    Ok(())
}

#[test]
fn a_host_that_leaves_is_forgotten_and_keeps_nothing() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    pair.alpha.wait_reaches("beta")?;
    let left = pair.beta.ask(&["leave"])?;
    assert_eq!(left["coordinator_told"], true);
    assert_eq!(pair.beta.state()?, "unenrolled");
    let links = pair.beta.namespace().run("ip", ["-br", "link"])?.stdout;
    assert!(!links.contains("mesh0"), "{links}");
    let kept: Vec<_> = fs::read_dir(pair.beta.state_dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "lock")
        .collect();
    assert_eq!(kept, Vec::<String>::new(), "no keys stay on the disk");
    lab::wait_until("alpha forgets beta", lab::fleet::CHANGE_DEADLINE, || {
        let peers = pair.alpha.ask(&["peers"])?;
        Ok(peers.as_array().is_some_and(Vec::is_empty).then_some(()))
    })?;
    assert!(!pair.alpha.reaches("beta")?);
    let again = pair.beta.meshctl(&["leave"]).run()?;
    assert_eq!(again.code(), Some(1));
    assert!(
        again.stderr.contains("not a member of a fleet"),
        "{}",
        again.stderr
    );
    Ok(())
}

#[test]
fn a_host_that_left_can_come_back_under_its_name() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    pair.beta.ask(&["leave"])?;
    pair.beta.join(&pair.fleet.coordinator.create_token(&[])?)?;
    pair.alpha.wait_reaches("beta.mesh.internal")
}

#[test]
fn a_removed_host_is_cut_off_and_told_and_can_join_anew() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    pair.alpha.wait_reaches("beta")?;
    pair.fleet.coordinator.ask(&["hosts", "remove", "beta"])?;
    pair.beta.wait_state("removed")?;
    pair.beta
        .wait_log("this host was removed from fleet test")?;
    assert!(!pair.beta.reaches("alpha")?);
    assert!(!pair.alpha.reaches("beta")?);
    // It stays removed over a restart, and says what to do.
    pair.beta.start()?;
    assert_eq!(pair.beta.state()?, "removed");
    let said = pair.beta.meshctl(&["status"]).run()?.success()?.stdout;
    assert!(said.contains("removed from its fleet"), "{said}");
    pair.beta.join(&pair.fleet.coordinator.create_token(&[])?)?;
    pair.alpha.wait_reaches("beta")
}

#[test]
fn labels_that_an_operator_changes_reach_the_host_and_its_peers() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    pair.fleet
        .coordinator
        .ask(&["hosts", "label", "beta", "role=cache", "zone=a"])?;
    lab::wait_until(
        "alpha sees beta's labels",
        lab::fleet::CHANGE_DEADLINE,
        || {
            let labels = pair.alpha.ask(&["peers"])?[0]["labels"].take();
            Ok((labels["role"] == "cache" && labels["zone"] == "a").then_some(()))
        },
    )
}

#[test]
fn a_local_user_without_rights_sees_up_or_down_and_nothing_else() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    // The build directory may be closed to other users.
    let programs = lab::Programs::find()?;
    let meshctl = lab.directory().join("meshctl");
    fs::copy(&programs.meshctl, &meshctl).unwrap();
    let as_nobody = |arguments: &[&str]| {
        pair.alpha
            .namespace()
            .launch("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&meshctl)
            .arg("--socket")
            .arg(pair.alpha.socket())
            .args(arguments)
            .env("HOME", "/nonexistent")
            .run()
    };
    let status = as_nobody(&["--json", "status"])?.json()?;
    assert_eq!(status["data"]["daemon"]["state"], "online");
    assert!(status["data"]["daemon"]["detail"].is_null(), "{status}");
    for refused in [
        &["peers"][..],
        &["leave"],
        &["ping", "beta"],
        &["join", "x"],
    ] {
        let ran = as_nobody(refused)?;
        assert_eq!(ran.code(), Some(4), "{refused:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("group mesh"), "{}", ran.stderr);
    }
    assert_eq!(pair.alpha.state()?, "online");
    Ok(())
}
