//! A call of which not everything is known, held against rules: what of them matches, what does not,
//! and what nobody can tell yet.

use model::name::Name;
use model::rule::{
    HeaderMatch, HeaderValue, HostPattern, HttpMatch, Method, PathPattern, Rule, When,
};
use model::time::UnixTime;

use crate::call::{Headers, RequestFacts};
use crate::reference::call::{KnownCall, Matching, matches_path};
use crate::reference::{Effect, Flow};
use crate::request_match::{matches_header, matches_host, matches_method};
use crate::window::{self, Window};

/// A call, as far as it is known.
#[derive(Clone, Copy)]
pub(crate) struct PartlyKnown<'q> {
    pub(crate) flow: Flow<'q>,
    pub(crate) caller: Caller<'q>,
    pub(crate) carries: Carries<'q>,
    pub(crate) moment: Moment,
    /// What is not known was once, and decided.
    pub(crate) forgets: bool,
}

/// Who on its host calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller<'q> {
    /// It was not said, and may be whoever runs there.
    Anybody,
    /// A process that is of no workload.
    Nobody,
    /// One that is said to be of a workload which its host may not run: nobody, too.
    Pretender(&'q Name),
    /// One that the policy places there.
    Workload(&'q Name),
}

/// What a connection carries.
#[derive(Clone, Copy)]
pub(crate) enum Carries<'q> {
    Bytes,
    Request(KnownRequest<'q>),
    /// One or the other.
    Either(KnownRequest<'q>),
}

/// What is known of a request; `None`: it may be anything.
#[derive(Clone, Copy)]
pub(crate) struct KnownRequest<'q> {
    pub(crate) method: Option<&'q str>,
    pub(crate) path: Option<&'q str>,
    pub(crate) host: Option<&'q str>,
    pub(crate) headers: &'q dyn Headers,
}

/// When it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    At(UnixTime),
    /// It was not said.
    Any,
    /// Nobody looks at the time, so that windows close.
    NotAsked,
}

impl<'q> KnownRequest<'q> {
    /// Takes a request whose host may not have been kept.
    pub(crate) fn of(request: &RequestFacts<'q>) -> Self {
        Self {
            method: Some(request.method),
            path: Some(request.path),
            host: Some(request.host).filter(|host| !host.is_empty()),
            headers: request.headers,
        }
    }
}

/// One thing that an entry of `http` says of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part<'r> {
    Method(&'r [Method]),
    Path(&'r PathPattern),
    Host(&'r HostPattern),
    Header(&'r HeaderMatch),
}

impl<'r> Part<'r> {
    /// Returns what an entry says.
    pub(crate) fn all(entry: &'r HttpMatch) -> impl Iterator<Item = Self> {
        let methods = (!entry.methods.is_empty()).then_some(Self::Method(&entry.methods));
        let path = (entry.path != PathPattern::any()).then_some(Self::Path(&entry.path));
        let host = entry.host.as_ref().map(Self::Host);
        let said = methods.into_iter().chain(path).chain(host);
        said.chain(entry.headers.iter().map(Self::Header))
    }

    /// Returns whether a request is so; `None`: that is not known.
    pub(crate) fn holds(self, request: &KnownRequest<'_>, effect: Effect) -> Option<bool> {
        match self {
            Self::Method(methods) => Some(matches_method(methods, request.method?, effect)),
            Self::Path(pattern) => Some(matches_path(pattern, request.path?)),
            Self::Host(pattern) => Some(matches_host(pattern, request.host?)),
            Self::Header(header) => {
                let is_known = request.headers.knows(header.name.as_str());
                is_known.then(|| matches_header(header, request.headers, effect))
            }
        }
    }

    /// Returns whether every request that is so in an allow is as the other says in a deny.
    fn implies(self, other: Self) -> bool {
        match (self, other) {
            (Self::Method(mine), Self::Method(others)) => {
                mine.iter().all(|method| others.contains(method))
            }
            (Self::Path(mine), Self::Path(others)) => covers(others, mine),
            (Self::Host(mine), Self::Host(others)) => {
                let is_one = !mine.as_str().starts_with("*.");
                mine == others || is_one && matches_host(others, mine.as_str())
            }
            (Self::Header(mine), Self::Header(others)) => {
                mine.name == others.name && says_at_least(&mine.value, &others.value)
            }
            _ => false,
        }
    }

    /// Returns whether no request is as both say.
    fn excludes(self, other: Self) -> bool {
        match (self, other) {
            (Self::Method(mine), Self::Method(others)) => {
                !mine.iter().any(|method| others.contains(method))
            }
            _ => false,
        }
    }
}

/// What is not known, and has to be for a rule to match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition<'r> {
    Request,
    Bytes,
    Part(Part<'r>),
    Time(&'r When),
}

impl Condition<'_> {
    fn implies(self, other: Self) -> bool {
        match (self, other) {
            (Self::Part(mine), Self::Part(others)) => mine.implies(others),
            (mine, other) => mine == other,
        }
    }

    fn excludes(self, other: Self) -> bool {
        match (self, other) {
            (Self::Part(mine), Self::Part(others)) => mine.excludes(others),
            (Self::Request, Self::Bytes) | (Self::Bytes, Self::Request) => true,
            _ => false,
        }
    }
}

/// Conditions that all have to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Case<'r>(pub(crate) Vec<Condition<'r>>);

impl Case<'_> {
    /// Returns whether it holds whatever is not known.
    pub(crate) const fn is_sure(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether the other, of a deny, holds wherever this one does.
    pub(crate) fn implies(&self, other: &Case<'_>) -> bool {
        let holds = |wanted: &Condition<'_>| self.0.iter().any(|it| it.implies(*wanted));
        other.0.iter().all(holds)
    }

    /// Returns whether the two never hold both.
    pub(crate) fn excludes(&self, other: &Case<'_>) -> bool {
        let mut all = self.0.iter();
        all.any(|it| other.0.iter().any(|wanted| it.excludes(*wanted)))
    }
}

impl<'q> PartlyKnown<'q> {
    /// Returns the cases in which a rule matches: none if it does not, a sure one if it does.
    pub(crate) fn cases<'r>(&self, rule: &'r Rule, effect: Effect) -> Vec<Case<'r>> {
        let is_from = match (self.matches_from(rule, effect), effect) {
            (Matching::Yes, _) | (Matching::IfItIsTheWorkload, Effect::Deny) => true,
            (Matching::IfItIsTheWorkload | Matching::No, _) => false,
        };
        if !is_from || !self.flow.matches_target(rule, effect) {
            return Vec::new();
        }
        let time = match self.holds_at(rule, effect) {
            Some(true) => None,
            Some(false) => return Vec::new(),
            None => rule.when.as_ref().map(Condition::Time),
        };
        let mut cases = self.request_cases(rule, effect);
        cases.iter_mut().for_each(|case| case.0.extend(time));
        if cases.iter().any(Case::is_sure) {
            return vec![Case::default()];
        }
        cases
    }

    pub(crate) fn matches_from(&self, rule: &Rule, effect: Effect) -> Matching {
        let known = KnownCall {
            flow: self.flow,
            workload: match self.caller {
                Caller::Workload(name) => Some(name),
                Caller::Anybody | Caller::Nobody | Caller::Pretender(_) => None,
            },
            request: None,
            at: None,
        };
        known.matches_from(rule, effect)
    }

    /// Returns whether it is made while the rule holds; `None`: that is not known.
    pub(crate) fn holds_at(&self, rule: &Rule, effect: Effect) -> Option<bool> {
        let Some(when) = &rule.when else {
            return Some(true);
        };
        match self.moment {
            Moment::At(at) => Some(Window::new(when).is_open(at, effect)),
            Moment::Any if window::zone(&when.zone).is_some() => None,
            Moment::Any | Moment::NotAsked => Some(effect == Effect::Deny),
        }
    }

    fn request_cases<'r>(&self, rule: &'r Rule, effect: Effect) -> Vec<Case<'r>> {
        let entries = |request: &KnownRequest<'_>| -> Vec<Case<'r>> {
            let cases = rule
                .http
                .iter()
                .map(|entry| case_of(entry, request, effect));
            cases.flatten().collect()
        };
        let is_deny = effect == Effect::Deny;
        match &self.carries {
            _ if rule.http.is_empty() => vec![Case::default()],
            Carries::Bytes if is_deny => vec![Case::default()],
            Carries::Bytes => Vec::new(),
            Carries::Request(request) => entries(request),
            Carries::Either(request) => {
                let mut cases = entries(request);
                // A deny is about bytes, too, since it cannot see what they are.
                if is_deny && cases.iter().any(Case::is_sure) {
                    return vec![Case::default()];
                }
                cases
                    .iter_mut()
                    .for_each(|case| case.0.insert(0, Condition::Request));
                cases.extend(is_deny.then(|| Case(vec![Condition::Bytes])));
                cases
            }
        }
    }
}

/// `None`: the entry does not match.
fn case_of<'r>(
    entry: &'r HttpMatch,
    request: &KnownRequest<'_>,
    effect: Effect,
) -> Option<Case<'r>> {
    let mut case = Case::default();
    for part in Part::all(entry) {
        match part.holds(request, effect) {
            Some(true) => {}
            Some(false) => return None,
            None => case.0.push(Condition::Part(part)),
        }
    }
    Some(case)
}

/// Returns whether a pattern matches every path that the other one does.
fn covers(wide: &PathPattern, narrow: &PathPattern) -> bool {
    fn segments(pattern: &PathPattern) -> Vec<&str> {
        let segments = pattern.as_str().split('/');
        segments.filter(|segment| !segment.is_empty()).collect()
    }
    fn covers(wide: &[&str], narrow: &[&str]) -> bool {
        match (wide, narrow) {
            (["**"], _) | ([], []) => true,
            ([wanted, wide @ ..], [segment, narrow @ ..]) => {
                let is_one = *segment != "**";
                is_one && (*wanted == "*" || wanted == segment) && covers(wide, narrow)
            }
            _ => false,
        }
    }
    covers(&segments(wide), &segments(narrow))
}

/// Returns whether all values of a header that are as one says are as the other does, too.
fn says_at_least(mine: &HeaderValue, others: &HeaderValue) -> bool {
    match (mine, others) {
        (_, HeaderValue::Present) => true,
        (HeaderValue::Exact(mine), HeaderValue::Exact(others)) => mine == others,
        (HeaderValue::Exact(mine) | HeaderValue::Prefix(mine), HeaderValue::Prefix(others)) => {
            mine.as_str().starts_with(others.as_str())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_a_pattern_covers_it_matches(
            wide in "(/(a|b|\\*)){0,3}(/|/\\*\\*)?",
            narrow in "(/(a|b|\\*)){0,3}(/|/\\*\\*)?",
            path in "(/(a|b|c)){0,4}/?",
        ) {
            let (Ok(wide), Ok(narrow)) = (wide.parse(), narrow.parse()) else { return Ok(()) };
            if covers(&wide, &narrow) && matches_path(&narrow, &path) {
                prop_assert!(matches_path(&wide, &path), "{wide} {narrow} {path}");
            }
        }
    }

    #[test]
    fn patterns_cover_those_that_say_more() {
        let covers =
            |wide: &str, narrow: &str| covers(&wide.parse().unwrap(), &narrow.parse().unwrap());
        for (wide, narrow) in [
            ("/**", "/v1/*"),
            ("/v1/**", "/v1"),
            ("/v1/*", "/v1/items"),
            ("/v1/items/", "/v1/items"),
        ] {
            assert!(covers(wide, narrow), "{wide} {narrow}");
        }
        for (wide, narrow) in [("/v1/*", "/v1/**"), ("/v1/items", "/v1/*"), ("/v1", "/v2")] {
            assert!(!covers(wide, narrow), "{wide} {narrow}");
        }
    }
}
