//! Two policies, and what is said of the way from one to the other: nothing changes where nothing
//! changed, what is added one way is removed the other way, formatting changes neither meaning nor
//! what was formatted already, and a plan counts what the plain reading of the rules gains and loses.

use model::admin::{ChangeKind, PolicyDiff, PolicyFile};
use model::record::HostRecord;
use model::rule::Bundle;
use policy::{Checked, diff, format, load, plan, reference, resolve};

use super::policy_documents::{self, FILE_SEPARATOR};
use crate::Seed;

/// Stands between two policies: ASCII calls it the group separator.
const POLICY_SEPARATOR: char = '\u{1d}';
/// Rules above which no plan is made, so that an input stays fast.
const RULES_PLANNED_MAX: usize = 40;

/// Reads bytes as two policies.
pub fn target(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (old, new) = text.split_once(POLICY_SEPARATOR).unwrap_or((&text, ""));
    let policies = [old, new].map(|text| {
        let files = policy_documents::files(text);
        for file in &files {
            formatting_is_done_after_one_time(file);
        }
        let checked = load(&files).ok()?;
        formatting_keeps_the_meaning(&files, &checked);
        let same = diff(&checked, &checked);
        assert!(same.changes.is_empty(), "{same:?}");
        Some(checked)
    });
    if let [Some(old), Some(new)] = &policies {
        both_ways_say_the_same(&diff(old, new), &diff(new, old));
        plan_counts_what_the_rules_say(old, new);
    }
}

fn formatting_is_done_after_one_time(file: &PolicyFile) {
    match format(file) {
        Ok(once) => {
            let formatted = PolicyFile {
                path: file.path.clone(),
                text: once.clone(),
            };
            assert_eq!(format(&formatted).as_ref().ok(), Some(&once));
        }
        Err(diagnostics) => policy_documents::show(&diagnostics),
    }
}

fn formatting_keeps_the_meaning(files: &[PolicyFile], checked: &Checked) {
    let formatted = files.iter().map(|file| PolicyFile {
        path: file.path.clone(),
        text: format(file).unwrap_or_else(|_| file.text.clone()),
    });
    let formatted: Vec<PolicyFile> = formatted.collect();
    let again = load(&formatted).unwrap_or_else(|why| panic!("{formatted:?}: {why:?}"));
    let changes = diff(checked, &again);
    assert!(changes.changes.is_empty(), "{changes:?}");
    assert_eq!(checked.fleet, again.fleet);
    assert_eq!(checked.tests.len(), again.tests.len());
}

/// What was added on the way there is removed on the way back.
fn both_ways_say_the_same(there: &PolicyDiff, back: &PolicyDiff) {
    let mirrored = |diff: &PolicyDiff, is_back: bool| {
        let changes = diff.changes.iter().map(|change| {
            let kind = match (change.change, is_back) {
                (ChangeKind::Added, true) => ChangeKind::Removed,
                (ChangeKind::Removed, true) => ChangeKind::Added,
                (other, _) => other,
            };
            let parts: Vec<_> = change
                .parts
                .iter()
                .map(|part| {
                    let (gained, lost) = (&part.added, &part.removed);
                    let (gained, lost) = if is_back {
                        (lost, gained)
                    } else {
                        (gained, lost)
                    };
                    (part.part.clone(), gained.clone(), lost.clone())
                })
                .collect();
            format!("{:?} {} {kind:?} {parts:?}", change.kind, change.name)
        });
        let mut changes: Vec<String> = changes.collect();
        changes.sort();
        changes
    };
    assert_eq!(mirrored(there, false), mirrored(back, true));
}

fn plan_counts_what_the_rules_say(old: &Checked, new: &Checked) {
    let rules = |checked: &Checked| checked.bundle.allow.len() + checked.bundle.deny.len();
    if rules(old) + rules(new) > RULES_PLANNED_MAX {
        return;
    }
    let mut both = old.bundle.clone();
    both.services.extend(new.bundle.services.iter().cloned());
    both.allow.extend(new.bundle.allow.iter().cloned());
    both.deny.extend(new.bundle.deny.iter().cloned());
    let hosts = policy_documents::fleet_for(&both);
    let (Ok(old), Ok(new)) = (resolve(old, &hosts), resolve(new, &hosts)) else {
        return;
    };
    let nothing = plan(&old, &old, &hosts);
    assert_eq!((nothing.pairs_gaining, nothing.pairs_losing), (0, 0));
    let change = plan(&old, &new, &hosts);
    if !change.complete {
        return;
    }
    let ports = policy_documents::telling_ports(&both);
    let (gaining, losing) = pairs_that_change(&old, &new, &hosts, &ports);
    // The plan looks at every port, this at some.
    assert!(change.pairs_gaining >= gaining, "{change:?}, not {gaining}");
    assert!(change.pairs_losing >= losing, "{change:?}, not {losing}");
}

/// Counts the pairs of hosts of which one may open to the other what it could not, and the reverse.
fn pairs_that_change(
    old: &Bundle,
    new: &Bundle,
    hosts: &[HostRecord],
    ports: &[u16],
) -> (u64, u64) {
    let (mut gaining, mut losing) = (0, 0);
    for from in hosts {
        for to in hosts.iter().filter(|it| it.host != from.host) {
            let flows = policy_documents::PROTOCOLS
                .iter()
                .flat_map(|protocol| ports.iter().map(move |port| (*protocol, *port)));
            let (mut gains, mut loses) = (false, false);
            for (protocol, port) in flows {
                let decide = |bundle| reference::decide(bundle, from, to, protocol, port).allowed;
                let (before, after) = (decide(old), decide(new));
                gains |= after && !before;
                loses |= before && !after;
            }
            gaining += u64::from(gains);
            losing += u64::from(loses);
        }
    }
    (gaining, losing)
}

/// Each policy of the documents' seeds changed into the next, and small changes of one.
pub(crate) fn seeds() -> Vec<Seed> {
    let documents = policy_documents::seeds();
    let next = documents.iter().cycle().skip(1);
    let pairs = documents.iter().zip(next).map(|(old, new)| {
        let bytes = [&old.bytes[..], &[POLICY_SEPARATOR as u8], &new.bytes[..]].concat();
        Seed::new(format!("{}-to-{}", old.name, new.name), bytes)
    });
    let mut seeds: Vec<Seed> = pairs.collect();
    let between =
        |name: &str, old: &str, new: &str| Seed::new(name, format!("{old}{POLICY_SEPARATOR}{new}"));
    seeds.push(between(
        "a-port-more",
        PLAIN,
        &PLAIN.replace("[22]", "[22, 80]"),
    ));
    seeds.push(between("a-deny-more", PLAIN, &format!("{PLAIN}{DENY}")));
    seeds.push(between("other-order", PLAIN, OTHER_ORDER));
    seeds.push(between(
        "in-two-files",
        &format!("{PLAIN}{DENY}"),
        &format!("{PLAIN}{FILE_SEPARATOR}{DENY}"),
    ));
    seeds
}

const PLAIN: &str = "# Who may reach what.
fleet: prod
services: { db: {port: 5432, protocol: tcp, endpoints: [role=db, b]} }
allow:
- {id: ssh, from: a, to: [b, role=db], tcp: [22] } # by hand

- {id: db, from: any, to: db}
tests: [{allow: 'a -> b:22'}]
";

const DENY: &str = "deny:
  - { id: no, from: role=db, to: any }
";

const OTHER_ORDER: &str = "tests: [{ allow: \"a -> b:22\" }]
allow:
  - { to: [db], from: [any], id: db }
  - id: ssh
    from: [a]
    tcp: ['22-22']
    to: [role=db, b]
services:
  db: { port: 5432, protocol: tcp, endpoints: [b, role=db] }
fleet: prod
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_reach_the_plan() {
        for (name, changes) in [("a-port-more", 1), ("other-order", 0), ("in-two-files", 0)] {
            let seeds = seeds();
            let seed = seeds.iter().find(|seed| seed.name == name).unwrap();
            let text = std::str::from_utf8(&seed.bytes).unwrap();
            let (old, new) = text.split_once(POLICY_SEPARATOR).unwrap();
            let [old, new] = [old, new].map(|text| load(&policy_documents::files(text)).unwrap());
            assert_eq!(diff(&old, &new).changes.len(), changes, "{name}");
        }
    }
}
