//! What people are told: what a verdict depends on, and which rules would decide how.

use model::rule::{Method, When};
use model::time::UnixTime;

use super::callers::{Group, Perhaps, Ruled};
use crate::explain::{called, some_of};
use crate::partly_known::{Caller, Case, Condition, Part};
use crate::reference::Effect;
use crate::window::Window;

/// Rules that are told of for one group of callers.
const RULES_MAX: usize = 8;

/// Returns what the verdicts depend on beside who calls, each once.
pub(super) fn depends_on<'r, 'b: 'r>(ruled: impl Iterator<Item = &'r Ruled<'b>>) -> Vec<String> {
    let mut all: Vec<(u8, String)> = Vec::new();
    for ruled in ruled {
        match ruled {
            Ruled::Depends(rules) => {
                let cases = rules.iter().flat_map(|perhaps| &perhaps.cases);
                all.extend(cases.flat_map(|case| &case.0).map(named));
            }
            Ruled::TooMany => all.push((6, "which of very many rules match".to_owned())),
            Ruled::Allowed(_) | Ruled::Denied(_) => {}
        }
    }
    all.sort();
    all.dedup();
    all.into_iter().map(|(_, what)| what).collect()
}

/// Returns what a condition is about, with its place among others.
fn named(condition: &Condition<'_>) -> (u8, String) {
    match condition {
        Condition::Request | Condition::Bytes => (0, "whether it is a request".to_owned()),
        Condition::Part(Part::Method(_)) => (1, "the method".to_owned()),
        Condition::Part(Part::Path(_)) => (2, "the path".to_owned()),
        Condition::Part(Part::Host(_)) => (3, "the host".to_owned()),
        Condition::Part(Part::Header(header)) => (4, format!("the header {}", header.name)),
        Condition::Time(_) => (5, "the time".to_owned()),
    }
}

/// Says for each group of callers how their calls are decided; for a single group that is told by its
/// verdict, only what it depends on.
pub(super) fn notes(groups: &[Group<'_, '_>], now: UnixTime) -> Vec<String> {
    if let [(_, ruled)] = groups {
        return rules(ruled, now);
    }
    let mut notes = Vec::new();
    for (callers, ruled) in groups {
        let who = who(callers);
        match ruled {
            Ruled::Allowed(rule) => notes.push(format!("{who}: allowed by rule {}", called(rule))),
            Ruled::Denied(Some(rule)) => {
                notes.push(format!("{who}: denied by rule {}", called(rule)));
            }
            Ruled::Denied(None) => notes.push(format!("{who}: denied, no rule allows it")),
            Ruled::Depends(_) | Ruled::TooMany => {
                let depends_on = depends_on(std::iter::once(ruled)).join(", ");
                notes.push(format!("{who}: depends on {depends_on}"));
                notes.extend(
                    rules(ruled, now)
                        .into_iter()
                        .map(|rule| format!("  {rule}")),
                );
            }
        }
    }
    notes
}

fn who(callers: &[Caller<'_>]) -> String {
    let mut names: Vec<&str> = Vec::new();
    let mut is_nobody = false;
    for caller in callers {
        match caller {
            Caller::Workload(name) => names.push(name.as_str()),
            Caller::Nobody | Caller::Anybody | Caller::Pretender(_) => is_nobody = true,
        }
    }
    let plural = if names.len() == 1 { "" } else { "s" };
    let count = names.len();
    let names = some_of(names.into_iter().map(str::to_owned).collect(), ", ");
    match (count, is_nobody) {
        (0, _) => "a process of no workload".to_owned(),
        (_, false) => format!("workload{plural} {names}"),
        (_, true) => format!("workload{plural} {names}, or a process of none"),
    }
}

fn rules(ruled: &Ruled<'_>, now: UnixTime) -> Vec<String> {
    let Ruled::Depends(rules) = ruled else {
        return Vec::new();
    };
    let told = rules.iter().take(RULES_MAX);
    let mut said: Vec<String> = told.map(|rule| sentence(rule, now)).collect();
    if rules.len() > RULES_MAX {
        let more = rules.len() - RULES_MAX;
        said.push(format!("and {more} rules more"));
    }
    said
}

fn sentence(perhaps: &Perhaps<'_>, now: UnixTime) -> String {
    let verb = match perhaps.effect {
        Effect::Allow => "allows",
        Effect::Deny => "denies",
    };
    let rule = called(perhaps.rule);
    if perhaps.cases.iter().any(Case::is_sure) {
        return format!("rule {rule} {verb} it");
    }
    let cases = perhaps.cases.iter().map(|case| {
        let conditions = case.0.iter().map(|condition| told(condition, now));
        conditions.collect::<Vec<_>>().join(" and ")
    });
    format!(
        "rule {rule} {verb} it if {}",
        some_of(cases.collect(), "; or if ")
    )
}

fn told(condition: &Condition<'_>, now: UnixTime) -> String {
    match condition {
        Condition::Request => "it is a request".to_owned(),
        Condition::Bytes => "it is no request".to_owned(),
        Condition::Part(Part::Method(methods)) => {
            let methods: Vec<&str> = methods.iter().map(Method::as_str).collect();
            format!("the method is {}", methods.join(" or "))
        }
        Condition::Part(Part::Path(path)) => format!("the path is {path}"),
        Condition::Part(Part::Host(host)) => format!("the host is {host}"),
        Condition::Part(Part::Header(header)) => format!("there is the header `{header}`"),
        Condition::Time(when) => format!("it is {when} ({})", open_now(when, now)),
    }
}

fn open_now(when: &When, now: UnixTime) -> String {
    let window = Window::new(when);
    let word = match window.is_open(now, Effect::Allow) {
        true => "it is so now",
        false => "it is not so now",
    };
    match window.shown(now) {
        Some(now) => format!("{word}, {now}"),
        None => word.to_owned(),
    }
}
