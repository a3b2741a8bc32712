//! How calls are decided of each who may make them.

use std::cmp::Reverse;

use model::question::Verdict;
use model::rule::Rule;

use super::steps::Steps;
use crate::partly_known::{Caller, Case, PartlyKnown};
use crate::reference::{Effect, Flow};

/// What is decided of the calls of one caller.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Ruled<'b> {
    Allowed(&'b Rule),
    /// By a rule, or since none allows them.
    Denied(Option<&'b Rule>),
    /// The rules that it is up to, denies first.
    Depends(Vec<Perhaps<'b>>),
    /// More rules are about them than are held against each other for a question.
    TooMany,
}

/// A rule that matches in some cases.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Perhaps<'b> {
    pub(super) rule: &'b Rule,
    pub(super) effect: Effect,
    pub(super) cases: Vec<Case<'b>>,
}

/// Callers whose calls are decided alike.
pub(super) type Group<'q, 'b> = (Vec<Caller<'q>>, Ruled<'b>);

impl<'b> Ruled<'b> {
    pub(super) const fn verdict(&self) -> Verdict {
        match self {
            Self::Allowed(_) => Verdict::Allowed,
            Self::Denied(_) => Verdict::Denied,
            Self::Depends(_) | Self::TooMany => Verdict::Depends,
        }
    }

    pub(super) const fn rule(&self) -> Option<&'b Rule> {
        match self {
            Self::Allowed(rule) => Some(rule),
            Self::Denied(rule) => *rule,
            Self::Depends(_) | Self::TooMany => None,
        }
    }

    /// Returns how much there is to compare with another.
    fn size(&self) -> usize {
        match self {
            Self::Depends(rules) => conditions(rules),
            Self::Allowed(_) | Self::Denied(_) | Self::TooMany => 1,
        }
    }
}

/// The rules about what is called, whoever calls.
pub(super) struct Concerning<'b> {
    deny: Vec<&'b Rule>,
    allow: Vec<&'b Rule>,
}

impl<'b> Concerning<'b> {
    pub(super) fn of(flow: &Flow<'b>) -> Self {
        let about = |rules: &'b [Rule], effect| {
            let about = rules.iter().filter(|it| flow.matches_target(it, effect));
            about.collect()
        };
        Self {
            deny: about(&flow.bundle.deny, Effect::Deny),
            allow: about(&flow.bundle.allow, Effect::Allow),
        }
    }

    /// Returns all of them, denies first.
    pub(super) fn all(&self) -> impl Iterator<Item = &'b Rule> {
        self.deny.iter().chain(&self.allow).copied()
    }

    /// Returns how much there is to look at for one caller.
    fn size(&self) -> usize {
        let size = |rule: &Rule| {
            let entries = rule.http.iter();
            1 + entries.map(|entry| 1 + entry.headers.len()).sum::<usize>()
        };
        self.all().map(size).sum()
    }
}

fn conditions(rules: &[Perhaps<'_>]) -> usize {
    let cases = rules.iter().flat_map(|rule| &rule.cases);
    cases.map(|case| 1 + case.0.len()).sum()
}

/// Decides for each caller, and puts those together of whom the same is to be said: first those who may.
pub(super) fn ruled<'q, 'b>(
    call: &PartlyKnown<'b>,
    rules: &Concerning<'b>,
    callers: &[Caller<'q>],
    steps: &mut Steps,
) -> Vec<Group<'q, 'b>>
where
    'q: 'b,
{
    if !steps.take(callers.len(), rules.size()) {
        return vec![(callers.to_vec(), Ruled::TooMany)];
    }
    let mut groups: Vec<Group<'q, 'b>> = Vec::new();
    for caller in callers {
        let call = PartlyKnown {
            caller: *caller,
            ..*call
        };
        let mut ruled = rule_for(&call, rules, steps);
        if !steps.take(groups.len(), ruled.size()) {
            ruled = Ruled::TooMany;
        }
        match groups.iter_mut().find(|(_, known)| *known == ruled) {
            Some((alike, _)) => alike.push(*caller),
            None => groups.push((vec![*caller], ruled)),
        }
    }
    groups.sort_by_key(|(_, ruled)| Reverse(ruled.verdict()));
    groups
}

fn rule_for<'b>(call: &PartlyKnown<'b>, rules: &Concerning<'b>, steps: &mut Steps) -> Ruled<'b> {
    let perhaps = |rules: &[&'b Rule], effect| -> Vec<Perhaps<'b>> {
        let cases = rules.iter().map(|rule| Perhaps {
            rule,
            effect,
            cases: call.cases(rule, effect),
        });
        cases.filter(|it| !it.cases.is_empty()).collect()
    };
    let mut denies = perhaps(&rules.deny, Effect::Deny);
    let is_sure = |it: &&Perhaps<'b>| it.cases.iter().any(Case::is_sure);
    if let Some(deny) = denies.iter().find(is_sure) {
        return Ruled::Denied(Some(deny.rule));
    }
    let mut allows = perhaps(&rules.allow, Effect::Allow);
    if !steps.take(conditions(&allows), conditions(&denies)) {
        return Ruled::TooMany;
    }
    let overruled = leave_out_overruled(&mut allows, &denies);
    if allows.is_empty() {
        return Ruled::Denied(overruled);
    }
    leave_out_beside_the_point(&mut denies, &allows);
    match allows.iter().find(is_sure) {
        Some(allow) if denies.is_empty() => Ruled::Allowed(allow.rule),
        _ => {
            denies.extend(allows);
            Ruled::Depends(denies)
        }
    }
}

/// Leaves out what allows say that a deny always takes back; returns the first such deny.
fn leave_out_overruled<'b>(
    allows: &mut Vec<Perhaps<'b>>,
    denies: &[Perhaps<'b>],
) -> Option<&'b Rule> {
    let mut first = None;
    for allow in allows.iter_mut() {
        allow.cases.retain(|case| {
            let overrules = |deny: &&Perhaps<'b>| deny.cases.iter().any(|it| case.implies(it));
            let deny = denies.iter().find(overrules);
            first = first.or(deny.map(|deny| deny.rule));
            deny.is_none()
        });
    }
    allows.retain(|allow| !allow.cases.is_empty());
    first
}

/// Leaves out what denies say of calls that no allow is about.
fn leave_out_beside_the_point(denies: &mut Vec<Perhaps<'_>>, allows: &[Perhaps<'_>]) {
    for deny in denies.iter_mut() {
        deny.cases.retain(|case| {
            let mut all = allows.iter().flat_map(|allow| &allow.cases);
            !all.all(|allow| allow.excludes(case))
        });
    }
    denies.retain(|deny| !deny.cases.is_empty());
}
