//! What a policy's author does before and after it is in force: format, compare, plan, look it up.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]

use std::fs;

use lab::fleet::Pair;
use lab::{Lab, LabError};
use serde_json::json;

/// Both hosts take SSH.
const OPEN: &str = "\
fleet: test
allow:
  - { id: ping, from: any, to: any, icmp: true }
  - { id: ssh, from: any, to: any, tcp: [22] } # the way in
";

/// Beta takes SSH no longer, and PostgreSQL from alpha.
const NARROW: &str = "\
fleet: test
allow:
  - { id: ping, from: any, to: any, icmp: true }
  - { id: ssh, from: any, to: \"role=web\", tcp: [22] }
  - { id: web-db, from: \"role=web\", to: \"role=db\", tcp: [5432] }
";

#[test]
fn a_bundle_is_formatted_and_its_comments_stay() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    let coordinator = &pair.fleet.coordinator;
    let directory = coordinator.write_policy(&OPEN.replace("{ id: ssh,", "{id:   ssh,"))?;
    let path = directory.to_string_lossy();
    let run = |arguments: &[&str]| coordinator.meshctl(arguments).run();
    let before = run(&["policy", "fmt", &path, "--check"])?;
    assert_eq!(before.code(), Some(5), "{}", before.stderr);
    assert!(before.stdout.contains("policy.yaml"), "{}", before.stdout);
    run(&["policy", "fmt", &path])?.success()?;
    run(&["policy", "fmt", &path, "--check"])?.success()?;
    let text = fs::read_to_string(directory.join("policy.yaml")).unwrap();
    assert!(text.contains("# the way in"), "{text}");
    run(&["policy", "check", &path])?.success()?;
    Ok(())
}

#[test]
fn a_version_can_be_shown_and_compared() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    let coordinator = &pair.fleet.coordinator;
    coordinator.apply_policy_text(OPEN)?;
    let shown = coordinator.ask(&["policy", "show"])?;
    assert_eq!(shown["version"], 2, "{shown}");
    assert_eq!(shown["files"][0]["text"], OPEN);
    let first = coordinator.meshctl(&["policy", "show", "1"]).run()?;
    assert!(first.success()?.stdout.contains("# version 1"));
    let none = coordinator.meshctl(&["policy", "show", "9"]).run()?;
    assert_eq!(none.code(), Some(1), "{}", none.stderr);

    coordinator.apply_policy_text(NARROW)?;
    let changes = |arguments: &[&str]| -> Result<Vec<String>, LabError> {
        let diff = coordinator.ask(arguments)?;
        let changes = diff["changes"].as_array().unwrap().clone();
        Ok(changes
            .iter()
            .map(|it| format!("{} {}", it["change"], it["name"]).replace('"', ""))
            .collect())
    };
    assert_eq!(
        changes(&["policy", "diff", "2", "3"])?,
        ["changed ssh", "added web-db"]
    );
    let directory = coordinator.write_policy(OPEN)?;
    assert_eq!(
        changes(&["policy", "diff", &directory.to_string_lossy()])?,
        ["changed ssh", "removed web-db"]
    );
    Ok(())
}

#[test]
fn a_plan_tells_who_loses_the_way_in_and_changes_nothing() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    let coordinator = &pair.fleet.coordinator;
    coordinator.apply_policy_text(OPEN)?;
    let directory = coordinator.write_policy(NARROW)?;
    let path = directory.to_string_lossy();
    let plan = coordinator.meshctl(&["policy", "plan", &path]).run()?;
    assert_eq!(plan.code(), Some(5), "{}{}", plan.stdout, plan.stderr);
    for part in ["tcp 22", "tcp 5432", "beta", "web-db", "warning"] {
        assert!(plan.stdout.contains(part), "{part}:\n{}", plan.stdout);
    }
    let json = coordinator.meshctl(&["--json", "policy", "plan", &path]);
    let json: serde_json::Value = serde_json::from_str(&json.run()?.stdout).unwrap();
    assert_eq!(lab::schema::complaints(&json), Vec::<String>::new());
    assert_eq!(json["data"]["base"], 2);
    let again = coordinator.ask(&["policy", "plan", "2"])?;
    assert_eq!(again["groups"], json!([]), "{again}");
    let history = coordinator.ask(&["policy", "history"])?;
    assert_eq!(history.as_array().map(Vec::len), Some(2));
    Ok(())
}
