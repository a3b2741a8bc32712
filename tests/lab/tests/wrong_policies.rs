//! Policies that must not come into force: each is refused with the place that is wrong, by `check`
//! without a coordinator and by the coordinator itself, and changes nothing.

use lab::fleet::{Fleet, Pair};
use lab::{Lab, LabError};
use serde_json::json;

/// What is wrong, the bundle, what is said of it, and the line that is pointed at.
const WRONG: &[(&str, &str, &str)] = &[
    (
        "an unknown key",
        "fleet: test\nallow:\n  - { id: a, from: any, to: any, port: 22 }\n",
        "port",
    ),
    ("an unknown section", "fleet: test\nalow: []\n", "alow"),
    (
        "no id",
        "fleet: test\nallow:\n  - { from: any, to: any, tcp: [22] }\n",
        "id",
    ),
    (
        "one id twice",
        "fleet: test\nallow:\n  - { id: a, from: any, to: any, tcp: [22] }\n  - { id: a, from: any, to: any, tcp: [23] }\n",
        "a",
    ),
    (
        "a port out of range",
        "fleet: test\nallow:\n  - { id: a, from: any, to: any, tcp: [70000] }\n",
        "70000",
    ),
    (
        "a selector that is none",
        "fleet: test\nallow:\n  - { id: a, from: \"role=\", to: any, tcp: [22] }\n",
        "not a valid label value",
    ),
    (
        "what comes later in the language",
        "fleet: test\nlimits: []\n",
        "`limits` sections are not enforced by this version",
    ),
    (
        "a test that fails",
        "fleet: test\ntests:\n  - { allow: \"role=a -> role=b:22\" }\n",
        "no rule allows it",
    ),
    ("broken YAML", "fleet: test\nallow: [\n", ""),
];

#[test]
fn a_wrong_bundle_is_pointed_at_and_changes_nothing() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    for (what, bundle, named) in WRONG {
        let directory = fleet.coordinator.write_policy(bundle)?;
        let directory = directory.to_string_lossy();
        for verb in ["check", "test", "apply"] {
            let ran = fleet
                .coordinator
                .meshctl(&["policy", verb, &directory])
                .run()?;
            let said = format!("{}{}", ran.stdout, ran.stderr);
            assert_eq!(ran.code(), Some(5), "{what}, {verb}: {said}");
            assert!(
                said.contains(named) && said.contains("policy.yaml"),
                "{what}, {verb}: {said}"
            );
        }
        if *what != "a test that fails" {
            let said = fleet
                .coordinator
                .meshctl(&["policy", "check", &directory])
                .run()?;
            assert!(
                said.stdout.contains("^"),
                "{what}: a caret points at it:\n{}",
                said.stdout
            );
        }
    }
    let history = fleet.coordinator.ask(&["policy", "history"])?;
    assert_eq!(history.as_array().map(Vec::len), Some(1), "{history}");
    Ok(())
}

#[test]
fn names_that_nobody_has_are_refused_by_the_coordinator_with_a_caret() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    let bundle = "fleet: test\nallow:\n  - { id: a, from: alpha, to: betta, tcp: [22] }\n";
    let directory = pair.fleet.coordinator.write_policy(bundle)?;
    let ran = pair.fleet.coordinator.apply_policy(&directory)?;
    assert_eq!(ran.code(), Some(5));
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(
        said.contains("policy.yaml:3") && said.contains("betta") && said.contains("^"),
        "{said}"
    );
    Ok(())
}

#[test]
fn a_test_about_hosts_is_decided_by_their_real_labels() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    let bundle = |wanted: &str| {
        format!(
            "fleet: test\nallow:\n  - {{ id: a, from: role=web, to: role=db, tcp: [22] }}\n\
             tests:\n  - {{ {wanted}: \"alpha -> beta:22\" }}\n"
        )
    };
    pair.fleet.coordinator.apply_policy_text(&bundle("allow"))?;
    let directory = pair.fleet.coordinator.write_policy(&bundle("deny"))?;
    let ran = pair.fleet.coordinator.apply_policy(&directory)?;
    assert_eq!(ran.code(), Some(5));
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(said.contains("allowed by rule `a`"), "{said}");
    Ok(())
}

#[test]
fn a_policy_of_another_fleet_is_refused() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    let directory = fleet.coordinator.write_policy("fleet: prod\n")?;
    let ran = fleet.coordinator.apply_policy(&directory)?;
    assert_ne!(ran.code(), Some(0));
    assert!(
        ran.stderr.contains("for fleet prod, and this is test"),
        "{}",
        ran.stderr
    );
    Ok(())
}

#[test]
fn the_coordinator_checks_what_comes_by_other_ways_than_meshctl() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    for (what, bundle, named) in WRONG {
        let body = json!({ "files": [{ "path": "policy.yaml", "text": bundle }] }).to_string();
        let posted = fleet
            .coordinator
            .namespace()
            .launch("curl")
            .args([
                "-sS",
                "-m10",
                "-w",
                "\n%{http_code}",
                "-H",
                "Content-Type: application/json",
            ])
            .args([
                "--data-binary",
                "@-",
                "http://local/v1/policy",
                "--unix-socket",
            ])
            .arg(fleet.coordinator.socket())
            .input(body)
            .run()?
            .success()?;
        let (answer, code) = posted.stdout.rsplit_once('\n').unwrap();
        assert!(["400", "422"].contains(&code), "{what}: {code} {answer}");
        let answer: serde_json::Value = serde_json::from_str(answer).unwrap();
        let diagnostics = answer["diagnostics"].to_string();
        assert!(
            diagnostics.contains("policy.yaml") && diagnostics.contains(named),
            "{what}: {answer}"
        );
    }
    Ok(())
}
