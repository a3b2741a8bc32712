//! What scripts rely on: exit codes 0 to 5, and JSON of one shape.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use lab::fleet::Pair;
use lab::{Lab, LabError, Launch};

fn code(launch: Launch) -> Result<(Option<i32>, String), LabError> {
    let ran = launch.run()?;
    Ok((ran.code(), ran.stderr))
}

#[test]
fn every_exit_code_means_what_it_says() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    pair.alpha.wait_reaches("beta")?;
    let done = code(pair.alpha.meshctl(&["ping", "beta", "-c", "1"]))?;
    assert_eq!(done.0, Some(0));
    let failed = code(pair.alpha.meshctl(&["ping", "nobody"]))?;
    assert_eq!(failed.0, Some(1));
    assert!(failed.1.contains("meshctl peers"), "{}", failed.1);
    for usage in [
        &["nonsense"][..],
        &["ping"],
        &["hosts", "show", "No!"],
        &["why", "a", "b:99999"],
    ] {
        assert_eq!(
            code(pair.fleet.coordinator.meshctl(usage))?.0,
            Some(2),
            "{usage:?}"
        );
    }
    let allowed = code(
        pair.fleet
            .coordinator
            .meshctl(&["why", "alpha", "beta/icmp"]),
    )?;
    assert_eq!(allowed.0, Some(0));
    let wanting = code(pair.fleet.coordinator.meshctl(&["why", "alpha", "beta:22"]))?;
    assert_eq!(wanting.0, Some(5));

    pair.alpha.stop()?;
    let unreachable = code(pair.alpha.meshctl(&["peers"]))?;
    assert_eq!(unreachable.0, Some(3));
    assert!(unreachable.1.contains("meshd.sock"), "{}", unreachable.1);
    pair.fleet.coordinator.kill();
    let unreachable = code(pair.fleet.coordinator.meshctl(&["hosts", "list"]))?;
    assert_eq!(unreachable.0, Some(3));
    assert!(
        unreachable.1.contains("coordinator.sock"),
        "{}",
        unreachable.1
    );
    Ok(())
}

/// An answer that is as its schema says.
fn described(launch: Launch, kind: &str) -> Result<(), LabError> {
    // Some of them find something wanting, and say so in JSON too.
    let ran = launch.arg("--json").run()?;
    let said = format!("{}{}", ran.stdout, ran.stderr);
    let envelope: serde_json::Value = serde_json::from_str(&ran.stdout).expect(&said);
    assert_eq!(envelope["kind"], kind, "{said}");
    assert_eq!(envelope["version"], 1, "{said}");
    let complaints = lab::schema::complaints(&envelope);
    assert!(complaints.is_empty(), "{complaints:#?}\n{envelope:#}");
    Ok(())
}

/// A copy of the first admin's credential, as an operator would have it, after `change`.
fn credential(
    lab: &Lab,
    pair: &Pair,
    name: &str,
    change: impl Fn(&mut serde_json::Value),
) -> PathBuf {
    let text =
        fs::read_to_string(pair.fleet.coordinator.state_dir().join("admin.credential")).unwrap();
    let mut credential = serde_json::from_str(&text).unwrap();
    change(&mut credential);
    let path = lab.directory().join(name);
    fs::write(&path, credential.to_string()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[test]
fn an_operator_elsewhere_needs_the_credential_and_the_right_coordinator() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    let as_operator = |path: &Path| {
        let path = path.to_string_lossy();
        pair.alpha
            .meshctl(&["--credential", &path, "hosts", "list"])
            .run()
    };
    let good = credential(&lab, &pair, "good", |_| ());
    let hosts = as_operator(&good)?.success()?.stdout;
    assert!(hosts.contains("alpha") && hosts.contains("beta"), "{hosts}");

    let guessed = credential(&lab, &pair, "guessed", |it| {
        let secret = it["secret"].as_str().unwrap();
        let changed = if secret.ends_with('0') { "1" } else { "0" };
        it["secret"] = format!("{}{changed}", &secret[..secret.len() - 1]).into();
    });
    let denied = as_operator(&guessed)?;
    assert_eq!(denied.code(), Some(4), "{}", denied.stderr);

    let pin = credential(&lab, &pair, "pin", |it| {
        let pin = it["root_pin"].as_str().unwrap();
        let changed = if pin.starts_with('0') { "1" } else { "0" };
        it["root_pin"] = format!("{changed}{}", &pin[1..]).into();
    });
    let unbelieved = as_operator(&pin)?;
    assert!(
        [Some(1), Some(3)].contains(&unbelieved.code()),
        "{}",
        unbelieved.stderr
    );
    assert!(
        unbelieved.stderr.contains("another authority"),
        "{}",
        unbelieved.stderr
    );

    fs::set_permissions(&good, fs::Permissions::from_mode(0o644)).unwrap();
    let open = as_operator(&good)?;
    assert_eq!(open.code(), Some(1));
    assert!(open.stderr.contains("chmod 600"), "{}", open.stderr);
    Ok(())
}

#[test]
fn every_answer_in_json_has_one_envelope() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    pair.alpha.wait_reaches("beta")?;
    let directory = pair.fleet.coordinator.write_policy("fleet: test\n")?;
    let directory = directory.to_string_lossy();
    let of_host: [(&[&str], &str); 9] = [
        (&["status"], "Status"),
        (&["peers"], "PeerList"),
        (&["metrics"], "Metrics"),
        (&["ping", "beta", "-c", "1"], "PingReport"),
        (&["drops"], "Drops"),
        (&["dns", "show"], "Dns"),
        (&["dns", "query", "beta"], "DnsResolution"),
        (&["services", "list"], "ServiceList"),
        (&["version"], "Versions"),
    ];
    let of_operator: [(&[&str], &str); 12] = [
        (&["status"], "Status"),
        (&["hosts", "list"], "HostList"),
        (&["hosts", "show", "alpha"], "Host"),
        (&["hosts", "label", "alpha", "a=b"], "Host"),
        (&["tokens", "create"], "CreatedToken"),
        (&["tokens", "list"], "TokenList"),
        (&["policy", "check", &directory], "PolicyCheck"),
        (&["policy", "test", &directory], "PolicyTest"),
        (&["policy", "history"], "PolicyHistory"),
        (&["policy", "show"], "Policy"),
        (&["policy", "status"], "Rollout"),
        (&["why", "alpha", "beta/icmp"], "WhyReport"),
    ];
    for (arguments, kind) in of_host {
        described(pair.alpha.meshctl(arguments), kind)?;
    }
    for (arguments, kind) in of_operator {
        described(pair.fleet.coordinator.meshctl(arguments), kind)?;
    }
    described(
        pair.fleet
            .coordinator
            .meshctl(&["policy", "apply", &directory]),
        "AppliedPolicy",
    )?;
    // What is found wanting is told in JSON too, beside the exit code.
    let denied = pair
        .fleet
        .coordinator
        .meshctl(&["--json", "why", "alpha", "beta:22"])
        .run()?;
    assert_eq!(denied.code(), Some(5));
    let report: serde_json::Value = serde_json::from_str(&denied.stdout).unwrap();
    assert_eq!(report["data"]["policy"]["allowed"], false);
    Ok(())
}

#[test]
fn what_changes_something_and_what_compares_has_a_schema_too() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    pair.alpha.wait_reaches("beta")?;
    let coordinator = &pair.fleet.coordinator;
    let policy = "fleet: test\nservices:\n  web: { port: 80, protocol: tcp, endpoints: [\"role=web\"] }\n\
                  allow:\n  - { id: all-web, from: any, to: web }\n";
    coordinator.apply_policy_text(policy)?;
    let directory = coordinator.write_policy("fleet: test\n")?;
    let directory = directory.to_string_lossy();
    let token = coordinator.ask(&["tokens", "create"])?;
    let token_id = token["id"].as_str().unwrap();
    let secret = token["token"].as_str().unwrap();
    let newcomer = pair.fleet.machine("gamma")?;
    described(newcomer.meshctl(&["join", secret]), "Joined")?;
    let of_host: [(&[&str], &str); 4] = [
        (&["services", "list"], "ServiceList"),
        (&["services", "show", "web"], "Service"),
        (&["why", "beta", "web"], "LocalWhyReport"),
        (&["keys", "rotate"], "KeyRotated"),
    ];
    for (arguments, kind) in of_host {
        described(pair.beta.meshctl(arguments), kind)?;
    }
    let of_operator: [(&[&str], &str); 15] = [
        (&["tokens", "revoke", token_id], "Token"),
        (
            &["admins", "create", "eve", "--role", "viewer"],
            "CreatedAdmin",
        ),
        (&["admins", "replace", "eve"], "CreatedAdmin"),
        (&["admins", "list"], "AdminList"),
        (&["admins", "revoke", "eve"], "Admin"),
        (&["hosts", "show", "nobody"], "Error"),
        (&["policy", "fmt", &directory], "PolicyFormat"),
        (&["policy", "diff", "1", "2"], "PolicyDiff"),
        (&["policy", "plan", &directory], "PolicyPlan"),
        (&["policy", "rollback", "1"], "AppliedPolicy"),
        (&["hosts", "rename", "alpha", "delta"], "Host"),
        (&["audit"], "AuditLog"),
        (&["audit", "--verify"], "AuditCheck"),
        (&["hosts", "revoke", "delta"], "RemovedHost"),
        (&["hosts", "removed"], "RemovedHostList"),
    ];
    for (arguments, kind) in of_operator {
        described(coordinator.meshctl(arguments), kind)?;
    }
    described(newcomer.meshctl(&["leave"]), "Left")
}
