//! `meshctl policy diff`.

use model::admin::{ChangeKind, PartChange, PolicyChange, PolicyDiff, PolicyItem};
use policy::Checked;
use schemars::JsonSchema;
use serde::Serialize;

use super::bundle::{Origin, fetch};
use super::check;
use super::directory::read_bundle;
use crate::arguments::Targets;
use crate::connect;
use crate::failure::Failure;
use crate::output::{Output, Tone};

/// What differs and between what, for `--json`.
#[derive(Serialize, JsonSchema)]
pub(crate) struct DiffReport {
    old: String,
    new: String,
    #[serde(flatten)]
    diff: PolicyDiff,
}

/// Compares two bundles, each a directory or a version.
pub(super) async fn diff(
    first: &str,
    second: Option<&str>,
    targets: &Targets,
    output: &Output,
) -> Result<(), Failure> {
    let (old, new) = origins(first, second);
    let (old_bundle, old) = load(old, targets, output).await?;
    let (new_bundle, new) = load(new, targets, output).await?;
    let diff = policy::diff(&old_bundle, &new_bundle);
    let report = DiffReport { old, new, diff };
    output.show("PolicyDiff", &report, |output| text(&report, output));
    Ok(())
}

/// A single directory is what may come, a single version what was.
fn origins(first: &str, second: Option<&str>) -> (Origin, Origin) {
    match (Origin::parse(first), second) {
        (old, Some(second)) => (old, Origin::parse(second)),
        (directory @ Origin::Directory(_), None) => (Origin::InForce, directory),
        (version, None) => (version, Origin::InForce),
    }
}

async fn load(
    origin: Origin,
    targets: &Targets,
    output: &Output,
) -> Result<(Checked, String), Failure> {
    if let Origin::Directory(directory) = &origin {
        let checked = check::load(&read_bundle(directory)?, output)?;
        return Ok((checked, directory.display().to_string()));
    }
    let fetched = fetch(&connect::coordinator(targets)?, &origin).await?;
    Ok((fetched.checked, format!("version {}", fetched.version)))
}

fn text(report: &DiffReport, output: &Output) -> String {
    let DiffReport { old, new, diff } = report;
    if diff.changes.is_empty() {
        return format!("{new} says the same as {old}");
    }
    let mut lines: Vec<String> = diff
        .changes
        .iter()
        .map(|change| change_text(change, output))
        .collect();
    let number = |kind: ChangeKind| diff.changes.iter().filter(|it| it.change == kind).count();
    lines.push(format!(
        "from {old} to {new}: {} added, {} removed, {} changed",
        number(ChangeKind::Added),
        number(ChangeKind::Removed),
        number(ChangeKind::Changed),
    ));
    lines.join("\n")
}

pub(super) fn change_text(change: &PolicyChange, output: &Output) -> String {
    let kind = match change.kind {
        PolicyItem::Setting => "setting",
        PolicyItem::Rule => "rule",
        PolicyItem::Service => "service",
        PolicyItem::Workload => "workload",
        PolicyItem::Test => "test",
    };
    let source = match &*change.source {
        "" => String::new(),
        source => output.paint(Tone::Faint, &format!(" ({source})")),
    };
    let name = &change.name;
    match change.change {
        ChangeKind::Changed => {
            let mark = output.paint(Tone::Doubtful, "~");
            let parts: String = change
                .parts
                .iter()
                .map(|part| part_text(part, output))
                .collect();
            format!("{mark} {kind} {name}{source}{parts}")
        }
        ChangeKind::Added => {
            let mark = output.paint(Tone::Good, "+");
            format!("{mark} {kind} {name}{}{source}", whole_text(change))
        }
        ChangeKind::Removed => {
            let mark = output.paint(Tone::Bad, "-");
            format!("{mark} {kind} {name}{}{source}", whole_text(change))
        }
    }
}

/// Returns all of something that came or went, on one line.
fn whole_text(change: &PolicyChange) -> String {
    let parts = change.parts.iter().map(|part| {
        let words = [shown(&part.added), shown(&part.removed)].concat();
        match part.part.as_str() {
            "effect" => words,
            name => format!("{name} {words}"),
        }
    });
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() {
        return String::new();
    }
    format!(": {}", parts.join(" "))
}

fn part_text(part: &PartChange, output: &Output) -> String {
    let mut text = format!("\n    {}:", part.part);
    if !part.removed.is_empty() {
        let removed = format!("- {}", shown(&part.removed));
        text += &format!(" {}", output.paint(Tone::Bad, &removed));
    }
    if !part.added.is_empty() {
        let added = format!("+ {}", shown(&part.added));
        text += &format!(" {}", output.paint(Tone::Good, &added));
    }
    text
}

fn shown(words: &[String]) -> String {
    const SHOWN: usize = 8;
    let mut text = words[..words.len().min(SHOWN)].join(", ");
    if words.len() > SHOWN {
        text += &format!(" and {} more", words.len() - SHOWN);
    }
    text
}

#[cfg(test)]
mod tests {
    use model::admin::PolicyFile;
    use model::ids::PolicyVersion;

    use super::*;
    use crate::output::Color;

    #[test]
    fn one_operand_is_compared_with_what_is_in_force() {
        let directory = Origin::Directory("prod".into());
        let version = Origin::Version(PolicyVersion(6));
        assert_eq!(origins("prod", None), (Origin::InForce, directory.clone()));
        assert_eq!(origins("6", None), (version.clone(), Origin::InForce));
        assert_eq!(origins("6", Some("prod")), (version, directory));
    }

    #[test]
    fn people_read_a_line_for_each_change() {
        let bundle = |rules: &str| {
            let text = format!("fleet: prod\n{rules}");
            let path = "policy.yaml".to_owned();
            policy::load(&[PolicyFile { path, text }]).unwrap()
        };
        let old = bundle(
            "allow:
  - { id: ssh, from: role=ops, to: any, tcp: [22] }
  - { id: web, from: any, to: web-1, tcp: [80] }\n",
        );
        let new = bundle(
            "cipher: standard
allow:
  - { id: ssh, from: [role=ops, laptop], to: any, tcp: [22, 2222] }
  - { id: dns, from: any, to: ns-1, udp: [53] }\n",
        );
        let report = DiffReport {
            old: "version 1".into(),
            new: "prod".into(),
            diff: policy::diff(&old, &new),
        };
        assert_eq!(
            text(&report, &Output::new(false, Color::Never)),
            "+ setting cipher: standard
~ rule ssh (policy.yaml:4)
    from: + laptop
    traffic: + tcp 2222
+ rule dns: allow from any to ns-1 traffic udp 53 (policy.yaml:5)
- rule web: allow from any to web-1 traffic tcp 80 (policy.yaml:4)
from version 1 to prod: 2 added, 1 removed, 1 changed"
        );
    }
}
