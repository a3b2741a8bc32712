//! `meshctl policy plan`, and the warnings that `apply` gives: computed here, from the fleet's
//! hosts and the policy in force.

use std::io::{self, Write};

use model::admin::{
    CauseEffect, HostView, PlanCause, PlanChange, PlanGroup, PlanWarning, PolicyPlan,
};
use model::ids::{Digest, FleetId, PolicyVersion, Revision};
use model::record::HostRecord;
use policy::Checked;
use runtime::api_client::ApiClient;
use serde::Serialize;

use super::bundle::{Origin, fetch};
use super::check::{self, rendered};
use super::count;
use super::directory::read_bundle;
use crate::arguments::Targets;
use crate::connect;
use crate::failure::Failure;
use crate::output::{Output, Tone};

/// A plan and what it was made against, for `--json`.
#[derive(Serialize)]
struct PlanReport {
    base: PolicyVersion,
    #[serde(flatten)]
    plan: PolicyPlan,
}

/// Shows what a directory or an old version would change.
pub(super) async fn plan(what: &str, targets: &Targets, output: &Output) -> Result<(), Failure> {
    let origin = Origin::parse(what);
    let local = match &origin {
        Origin::Directory(directory) => Some(check::load(&read_bundle(directory)?, output)?),
        _ => None,
    };
    let client = connect::coordinator(targets)?;
    let new = match local {
        Some(checked) => checked,
        None => fetch(&client, &origin).await?.checked,
    };
    let report = make(&client, &new).await?;
    output.show("PolicyPlan", &report, |output| text(&report, output));
    let dangers = dangers(&report.plan).count();
    if dangers > 0 {
        return Err(Failure::Wanting(format!(
            "{} to look at before this is applied",
            count(dangers, "warning")
        )));
    }
    Ok(())
}

/// Tells on standard error what may do harm about a bundle that is about to be applied. That no
/// plan can be made stops nothing: the coordinator checks what it is given by itself.
pub(super) async fn warn(client: &ApiClient, new: &Checked, output: &Output) {
    let lines: Vec<String> = match make(client, new).await {
        Ok(report) => dangers(&report.plan)
            .map(|warning| warning_text(warning, output))
            .collect(),
        // The coordinator is about to say the same.
        Err(Failure::Wanting(_) | Failure::Unreachable(_) | Failure::Denied(_)) => Vec::new(),
        Err(failure) => vec![output.paint(
            Tone::Doubtful,
            &format!("warning: what this changes between hosts is not known: {failure}"),
        )],
    };
    for line in lines {
        // Nobody reads standard error: then nobody is to be warned.
        let _ = writeln!(io::stderr(), "{line}");
    }
}

async fn make(client: &ApiClient, new: &Checked) -> Result<PlanReport, Failure> {
    let hosts: Vec<HostView> = client.get("/v1/hosts").await?;
    let old = fetch(client, &Origin::InForce).await?;
    let hosts: Vec<HostRecord> = hosts.into_iter().map(record).collect();
    let new = policy::resolve(new, &hosts)
        .map_err(|diagnostics| Failure::Wanting(rendered(&diagnostics)))?;
    // What is in force is bound to hosts by id, which its files do not tell: the plan goes by name.
    let plan = policy::plan(&old.checked.bundle, &new, &hosts);
    Ok(PlanReport {
        base: old.version,
        plan,
    })
}

/// Returns a host as `policy` needs it, which looks at nothing but id, name and labels.
fn record(view: HostView) -> HostRecord {
    HostRecord {
        fleet: FleetId::from_bytes([0; 16]),
        host: view.id,
        name: view.name,
        labels: view.labels,
        wireguard_key: view.wireguard_key,
        tls_key_hash: Digest::from_bytes([0; 32]),
        addresses: view.addresses,
        revision: Revision::default(),
    }
}

fn dangers(plan: &PolicyPlan) -> impl Iterator<Item = &PlanWarning> {
    let warnings = plan.warnings.iter();
    warnings.filter(|warning| warning.kind.is_dangerous())
}

fn text(report: &PlanReport, output: &Output) -> String {
    let PlanReport { base, plan } = report;
    let mut lines: Vec<String> = plan
        .groups
        .iter()
        .map(|group| group_text(group, output))
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
    if !plan.complete {
        lines.push("too much to look at all of it: the numbers are lower bounds".into());
    }
    let hosts = count(plan.hosts, "host");
    lines.push(match (plan.pairs_gaining, plan.pairs_losing) {
        (0, 0) => format!("nothing changes between {hosts} (against version {base})"),
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
    use model::admin::{PlanPair, PlanWarningKind};

    use super::*;
    use crate::output::Color;

    #[test]
    fn people_read_what_changes_by_which_rule() {
        let report = PlanReport {
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
