//! `meshctl policy plan`, and the warnings that `apply` gives: made by the coordinator, shown here.

use std::io::{self, Write};

use model::admin::{
    CauseEffect, PlanCause, PlanChange, PlanGroup, PlanRequest, PlanWarning, PlannedPolicy,
    PolicyFile, PolicyItem, PolicyPlan,
};
use model::ids::PolicyVersion;
use runtime::api_client::ApiClient;

use super::bundle::Origin;
use super::check::{self, refused};
use super::count;
use super::diff::change_text;
use super::directory::read_bundle;
use crate::arguments::Targets;
use crate::connect;
use crate::failure::Failure;
use crate::output::{Output, Tone};

/// Shows what a directory or an old version would change.
pub(super) async fn plan(what: &str, targets: &Targets, output: &Output) -> Result<(), Failure> {
    let request = match Origin::parse(what) {
        Origin::Directory(directory) => {
            let files = read_bundle(&directory)?;
            check::load(&files, output)?;
            of_files(files)
        }
        Origin::Version(version) => of_version(version),
        Origin::InForce => {
            let text = "give a directory or an old version: what is in force changes nothing";
            return Err(Failure::Usage(text.into()));
        }
    };
    let client = connect::coordinator(targets)?;
    let report = make(&client, &request).await?;
    output.show("PolicyPlan", &report, |output| text(&report, output));
    let is_refused = report.diagnostics.iter().any(|it| it.severity == "error");
    let dangers = dangers(&report.plan).count();
    if dangers > 0 || is_refused {
        return Err(Failure::Wanting(format!(
            "{} to look at before this is applied",
            count(dangers + usize::from(is_refused), "warning")
        )));
    }
    Ok(())
}

/// Tells on standard error what may do harm about a bundle that is about to be applied. That no
/// plan can be made stops nothing: the coordinator checks what it is given by itself, and mostly
/// refuses it for the same reason. That is returned, to be told when it does not.
pub(super) async fn warn(
    client: &ApiClient,
    request: &PlanRequest,
    output: &Output,
) -> Option<Failure> {
    let report = match make(client, request).await {
        Ok(report) => report,
        Err(failure) => return Some(failure),
    };
    for warning in dangers(&report.plan) {
        say(&warning_text(warning, output));
    }
    None
}

/// Tells on standard error why there was no plan of what is applied.
pub(super) fn say_that_nothing_is_known(why: &Failure, output: &Output) {
    let text = format!("warning: what this changes between hosts is not known: {why}");
    say(&output.paint(Tone::Doubtful, &text));
}

fn say(line: &str) {
    // Nobody reads standard error: then nobody is to be warned.
    let _ = writeln!(io::stderr(), "{line}");
}

pub(super) fn of_files(files: Vec<PolicyFile>) -> PlanRequest {
    PlanRequest {
        files,
        version: None,
    }
}

pub(super) fn of_version(version: PolicyVersion) -> PlanRequest {
    PlanRequest {
        version: Some(version),
        ..PlanRequest::default()
    }
}

/// Asks the coordinator: it alone knows which hosts the names in force mean.
async fn make(client: &ApiClient, request: &PlanRequest) -> Result<PlannedPolicy, Failure> {
    client
        .clone()
        .with_patience(connect::WORK_PATIENCE)
        .query("/v1/policy/plan", request)
        .await
        .map_err(|error| refused(error, &request.files))
}

fn dangers(plan: &PolicyPlan) -> impl Iterator<Item = &PlanWarning> {
    let warnings = plan.warnings.iter();
    warnings.filter(|warning| warning.kind.is_dangerous())
}

fn text(report: &PlannedPolicy, output: &Output) -> String {
    let PlannedPolicy {
        base,
        plan,
        diagnostics,
    } = report;
    let settings = plan.settings.iter();
    let mut lines: Vec<String> = settings
        .map(|change| change_text(change, output))
        .chain(plan.groups.iter().map(|group| group_text(group, output)))
        .collect();
    if plan.groups_left_out > 0 {
        lines.push(format!(
            "and {} with fewer pairs",
            count(plan.groups_left_out, "group")
        ));
    }
    lines.extend(
        plan.warnings
            .iter()
            .map(|warning| warning_text(warning, output)),
    );
    if plan.warnings_left_out > 0 {
        lines.push(format!("and {}", count(plan.warnings_left_out, "warning")));
    }
    lines.extend(diagnostics.iter().map(crate::output::diagnostic_line));
    if !plan.complete {
        lines.push("too much to look at all of it: the numbers are lower bounds".into());
    }
    let hosts = count(plan.hosts, "host");
    lines.push(match (plan.pairs_gaining, plan.pairs_losing) {
        (0, 0) if plan.settings.is_empty() => {
            format!("nothing changes between {hosts} (against version {base})")
        }
        (0, 0) if plan.settings.iter().any(|it| it.kind != PolicyItem::Setting) => {
            format!("no pair of {hosts} gains or loses a port (against version {base})")
        }
        (0, 0) => format!("the same is allowed between {hosts} (against version {base})"),
        (gaining, losing) => format!(
            "of {hosts}, {gaining} pairs gain and {losing} pairs lose something (against version {base})"
        ),
    });
    lines.join("\n")
}

fn group_text(group: &PlanGroup, output: &Output) -> String {
    let (tone, mark) = match group.change {
        PlanChange::Gain => (Tone::Good, "+"),
        PlanChange::Lose => (Tone::Bad, "-"),
    };
    let what = format!(
        "{mark} {}: {} -> {}",
        some_of(&group.traffic),
        some_of(&group.from),
        some_of(&group.to)
    );
    let pairs = if group.pairs == 1 { "pair" } else { "pairs" };
    let examples: Vec<String> = group
        .examples
        .iter()
        .map(|pair| format!("{} -> {}", pair.from, pair.to))
        .collect();
    let causes: Vec<String> = group.causes.iter().map(cause_text).collect();
    format!(
        "{}\n    {} {pairs}, {} -> {}, such as {}\n    {}",
        output.paint(tone, &what),
        group.pairs,
        count(group.from_hosts, "host"),
        count(group.to_hosts, "host"),
        examples.join(", "),
        output.paint(Tone::Faint, &causes.join("; ")),
    )
}

fn cause_text(cause: &PlanCause) -> String {
    let does = match cause.effect {
        CauseEffect::Allows => "allows it",
        CauseEffect::AllowsNoLonger => "no longer allows it",
        CauseEffect::Denies => "denies it",
        CauseEffect::DeniesNoLonger => "no longer denies it",
    };
    format!("{} ({}) {does}", cause.rule, cause.source)
}

fn warning_text(warning: &PlanWarning, output: &Output) -> String {
    let tone = if warning.kind.is_dangerous() {
        Tone::Bad
    } else {
        Tone::Doubtful
    };
    let mut text = output.paint(tone, &format!("warning: {}", warning.message));
    if let Some(source) = &warning.source {
        text += &format!(" ({source})");
    }
    if !warning.examples.is_empty() {
        let names: Vec<String> = warning.examples.iter().map(ToString::to_string).collect();
        text += &format!("\n    such as {}", names.join(", "));
    }
    text
}

fn some_of(words: &[String]) -> String {
    const SHOWN: usize = 4;
    let mut text = words[..words.len().min(SHOWN)].join(", ");
    if words.len() > SHOWN {
        text += " …";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Color;
    use model::admin::{PlanPair, PlanWarningKind};

    #[test]
    fn people_read_what_changes_by_which_rule() {
        let report = PlannedPolicy {
            diagnostics: Vec::new(),
            base: PolicyVersion(7),
            plan: PolicyPlan {
                hosts: 43,
                pairs_losing: 120,
                groups: vec![PlanGroup {
                    change: PlanChange::Lose,
                    traffic: vec!["tcp 22".into()],
                    from: vec!["role=bastion".into()],
                    to: vec!["env=prod".into()],
                    causes: vec![PlanCause {
                        rule: "ops-ssh".into(),
                        source: "policy.yaml:8".into(),
                        effect: CauseEffect::AllowsNoLonger,
                    }],
                    pairs: 120,
                    from_hosts: 3,
                    to_hosts: 40,
                    examples: vec![PlanPair {
                        from: "bastion-1".parse().unwrap(),
                        to: "db-1".parse().unwrap(),
                    }],
                }],
                complete: true,
                warnings: vec![PlanWarning {
                    kind: PlanWarningKind::CutsOwnWayIn,
                    message: "no host can reach tcp 22 of 40 hosts any longer".into(),
                    rule: None,
                    source: None,
                    examples: vec!["db-1".parse().unwrap()],
                }],
                ..PolicyPlan::default()
            },
        };
        assert_eq!(
            text(&report, &Output::new(false, Color::Never)),
            "- tcp 22: role=bastion -> env=prod
    120 pairs, 3 hosts -> 40 hosts, such as bastion-1 -> db-1
    ops-ssh (policy.yaml:8) no longer allows it
warning: no host can reach tcp 22 of 40 hosts any longer
    such as db-1
of 43 hosts, 0 pairs gain and 120 pairs lose something (against version 7)"
        );
        assert_eq!(dangers(&report.plan).count(), 1);
    }
}
