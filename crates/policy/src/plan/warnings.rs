//! What deserves a look before a policy is applied.

use std::collections::BTreeMap;

use model::admin::{PlanWarning, PlanWarningKind};
use model::record::HostRecord;

use super::Steps;
use super::groups::Groups;
use super::host_set::SetId;
use super::parts::{Ends, Mentions, Part, Parts};
use crate::reference::Effect;

/// The port by which operators reach hosts (RFC 4253 4.1).
pub(super) const SSH: u16 = 22;

/// Warnings that a plan shows.
const WARNINGS_MAX: usize = 50;

/// Hosts that a warning shows.
const EXAMPLES_MAX: usize = 5;

/// With fewer hosts nobody minds that each knows each.
const ALL_TO_ALL_HOSTS_MIN: usize = 3;

/// Returns the warnings, the worst first, and how many there are besides.
pub(super) fn find(
    parts: &Parts<'_>,
    groups: &Groups,
    hosts: &[HostRecord],
    steps: &mut Steps,
) -> (Vec<PlanWarning>, usize) {
    let mut warnings: Vec<PlanWarning> = cut_off(parts, groups, hosts, steps).into_iter().collect();
    warnings.extend(all_to_all(parts, hosts.len()));
    // Before anybody has joined, no rule selects anybody.
    let ends = parts.ends.iter().filter(|_| !hosts.is_empty());
    warnings.extend(ends.filter_map(selects_no_host));
    let left_out = warnings.len().saturating_sub(WARNINGS_MAX);
    warnings.truncate(WARNINGS_MAX);
    (warnings, left_out)
}

/// Warns of hosts that some other host reached by SSH, and none does any longer.
fn cut_off(
    parts: &Parts<'_>,
    groups: &Groups,
    hosts: &[HostRecord],
    steps: &mut Steps,
) -> Option<PlanWarning> {
    let mut by_to: BTreeMap<SetId, Vec<(&Part, &Mentions<'_>)>> = BTreeMap::new();
    for (_, part, mentions) in parts.iter() {
        if part.traffic.contains_tcp(SSH) {
            by_to.entry(part.to).or_default().push((part, mentions));
        }
    }
    let mut cut = Vec::new();
    for (targets, sets) in groups.losing_ssh() {
        let about = sets.iter().flat_map(|set| by_to.get(set)).flatten();
        let about: Vec<(&Part, &Mentions<'_>)> = about.copied().collect();
        let sizes = about
            .iter()
            .map(|(part, _)| parts.sets.members(part.from).len());
        if !steps.take(2 * sizes.sum::<usize>() + hosts.len()) {
            break;
        }
        let before = Reaching::of(&about, parts, hosts.len(), |mentions| {
            mentions.old.is_some()
        });
        let after = Reaching::of(&about, parts, hosts.len(), |mentions| {
            mentions.new.is_some()
        });
        let is_cut = |host: &&u32| before.is_other_than(**host) && !after.is_other_than(**host);
        cut.extend(
            targets
                .iter()
                .filter(is_cut)
                .map(|host| hosts[*host as usize].name.clone()),
        );
    }
    cut.sort_unstable();
    let number = cut.len();
    cut.truncate(EXAMPLES_MAX);
    (number > 0).then(|| PlanWarning {
        kind: PlanWarningKind::CutsOwnWayIn,
        message: format!(
            "no host can reach tcp {SSH} of {} any longer: make sure that there is another way in",
            counted(number)
        ),
        rule: None,
        source: None,
        examples: cut,
    })
}

/// Who may reach some hosts by SSH, as far as it has to be known.
enum Reaching {
    Nobody,
    Only(u32),
    Several,
}

impl Reaching {
    fn of(
        about: &[(&Part, &Mentions<'_>)],
        parts: &Parts<'_>,
        host_count: usize,
        is_said: impl Fn(&Mentions<'_>) -> bool,
    ) -> Self {
        let mut may = vec![false; host_count];
        for (effect, value) in [(Effect::Allow, true), (Effect::Deny, false)] {
            let of_effect = about.iter().filter(|(part, _)| part.effect == effect);
            for (part, _) in of_effect.filter(|(_, mentions)| is_said(mentions)) {
                for host in parts.sets.members(part.from) {
                    may[*host as usize] = value;
                }
            }
        }
        let mut reaching = (0u32..).zip(may).filter(|(_, may)| *may);
        match (reaching.next(), reaching.next()) {
            (None, _) => Self::Nobody,
            (Some((host, _)), None) => Self::Only(host),
            (Some(_), Some(_)) => Self::Several,
        }
    }

    /// Returns whether there is a host among them that is not this one.
    const fn is_other_than(&self, host: u32) -> bool {
        match self {
            Self::Nobody => false,
            Self::Only(only) => *only != host,
            Self::Several => true,
        }
    }
}

/// Warns of new allows that connect most pairs of hosts, unless an old one did so before.
fn all_to_all(parts: &Parts<'_>, host_count: usize) -> Vec<PlanWarning> {
    let connects_most = |part: &Part| {
        let (from, to) = (
            parts.sets.members(part.from).len(),
            parts.sets.members(part.to).len(),
        );
        let pairs = from * to - from.min(to);
        part.effect == Effect::Allow && 2 * pairs >= host_count * host_count.saturating_sub(1)
    };
    let wide: Vec<_> = parts
        .iter()
        .filter(|(_, part, _)| connects_most(part))
        .collect();
    let is_so_already = wide.iter().any(|(_, _, mentions)| mentions.old.is_some());
    if host_count < ALL_TO_ALL_HOSTS_MIN || is_so_already {
        return Vec::new();
    }
    let mut rules: Vec<_> = wide
        .iter()
        .filter_map(|(_, _, mentions)| mentions.new)
        .collect();
    // A rule to several services has a part for each.
    rules.dedup_by_key(|mention| &mention.rule.id);
    rules
        .into_iter()
        .map(|mention| PlanWarning {
            kind: PlanWarningKind::AllToAll,
            message: format!(
                "rule `{}` connects most of {} with each other, so that each has to know all: \
                 select by labels who needs whom",
                mention.rule.id,
                counted(host_count)
            ),
            rule: Some(mention.rule.id.to_string()),
            source: Some(mention.rule.source.to_string()),
            examples: Vec::new(),
        })
        .collect()
}

fn selects_no_host(ends: &Ends<'_>) -> Option<PlanWarning> {
    let rule = ends.rule;
    let (part, selectors) = match (ends.has_from, ends.has_to) {
        (true, true) => return None,
        (false, _) => ("from", &rule.from),
        (true, false) => ("to", &rule.to),
    };
    let words: Vec<String> = selectors
        .iter()
        .take(EXAMPLES_MAX)
        .map(ToString::to_string)
        .collect();
    Some(PlanWarning {
        kind: PlanWarningKind::SelectsNoHost,
        message: format!(
            "rule `{}` does nothing yet: no host is selected by its `{part}` ({})",
            rule.id,
            words.join(", ")
        ),
        rule: Some(rule.id.to_string()),
        source: Some(rule.source.to_string()),
        examples: Vec::new(),
    })
}

fn counted(hosts: usize) -> String {
    match hosts {
        1 => "1 host".to_owned(),
        hosts => format!("{hosts} hosts"),
    }
}
