//! The plain reading of rules about connections and requests, where more is known than packets
//! tell: who on a host calls, what is asked, when. A call of a service is a flow to its port at one
//! of its endpoints, so that every rule about that port there counts.

use model::name::Name;
use model::record::HostRecord;
use model::rule::{Bundle, HttpMatch, PathPattern, Rule, Selector, Service, ip_protocol};
use model::time::UnixTime;

use super::{Effect, Flow, selects, service_named};
use crate::call::{RequestFacts, Ruling, Target};
use crate::request_match::{matches_header, matches_host, matches_method};
use crate::window::Window;

/// A question about a connection or a request, with what is needed to answer it.
#[derive(Clone, Copy)]
pub struct Call<'q> {
    /// Where it comes from.
    pub from: &'q HostRecord,
    /// Who on it calls, as that host says.
    pub workload: Option<&'q Name>,
    /// Where it goes.
    pub to: &'q HostRecord,
    /// What is called there.
    pub target: Target<'q>,
    /// The request; `None`: bytes, or a request that was not seen yet.
    pub request: Option<RequestFacts<'q>>,
    /// When it is asked; `None`: at an unknown time.
    pub at: Option<UnixTime>,
}

/// Decides a call: the first deny of the bundle that matches decides, else the first allow, else it
/// is denied. A deny that names a workload which the host may run matches also when it is not known
/// who calls.
pub fn decide_call<'b>(bundle: &'b Bundle, call: &Call<'_>) -> Ruling<&'b Rule> {
    match KnownCall::of(bundle, call) {
        Some(question) => decide_known(bundle, &question),
        None => Ruling::DenyByDefault,
    }
}

/// Decides whether `from` may open a flow to `port` of `to` where it says which workload on it does;
/// `None`: nobody knows. As far as packets tell: what asks for more closes.
pub fn decide_claimed<'b>(
    bundle: &'b Bundle,
    from: &HostRecord,
    workload: Option<&Name>,
    to: &HostRecord,
    ip_protocol: u8,
    port: u16,
) -> Ruling<&'b Rule> {
    let question = KnownCall {
        flow: Flow {
            from,
            to,
            ip_protocol,
            port,
            bundle,
        },
        workload: workload.filter(|name| may_vouch(bundle, from, name)),
        request: None,
        at: None,
    };
    decide_known(bundle, &question)
}

fn decide_known<'b>(bundle: &'b Bundle, question: &KnownCall<'_>) -> Ruling<&'b Rule> {
    for rule in &bundle.deny {
        match question.matches(rule, Effect::Deny) {
            Matching::Yes => return Ruling::DenyByRule(rule),
            Matching::IfItIsTheWorkload => return Ruling::DenyUnknownWorkload(rule),
            Matching::No => {}
        }
    }
    let allows = |wanted: Matching| {
        let mut allows = bundle.allow.iter();
        allows.find(|rule| question.matches(rule, Effect::Allow) == wanted)
    };
    if let Some(rule) = allows(Matching::Yes) {
        return Ruling::Allow(rule);
    }
    match allows(Matching::IfItIsTheWorkload) {
        Some(rule) => Ruling::DenyUnknownWorkload(rule),
        None => Ruling::DenyByDefault,
    }
}

/// Returns whether the policy places the workload on the host: only then may it vouch for it.
pub fn may_vouch(bundle: &Bundle, host: &HostRecord, workload: &Name) -> bool {
    Selector::Workload(workload.clone()).matches(host, bundle)
}

/// Whether a rule, or a part of it, matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Matching {
    No,
    /// Nobody knows who calls, and somebody on that host would match.
    IfItIsTheWorkload,
    Yes,
}

/// A call, with the port that it goes to and a workload that may be believed.
pub(crate) struct KnownCall<'q> {
    pub(crate) flow: Flow<'q>,
    pub(crate) workload: Option<&'q Name>,
    pub(crate) request: Option<RequestFacts<'q>>,
    pub(crate) at: Option<UnixTime>,
}

impl<'q> KnownCall<'q> {
    /// `None`: the host does not offer what is called.
    pub(crate) fn of(bundle: &'q Bundle, call: &Call<'q>) -> Option<Self> {
        let port = match call.target {
            Target::Port(port) => port,
            Target::Service(name) => called(bundle, name, call.to)?.port,
        };
        let believed = |name: &&Name| may_vouch(bundle, call.from, name);
        Some(Self {
            flow: Flow {
                from: call.from,
                to: call.to,
                ip_protocol: ip_protocol::TCP,
                port,
                bundle,
            },
            workload: call.workload.filter(believed),
            request: call.request,
            at: call.at,
        })
    }

    pub(crate) fn matches(&self, rule: &Rule, effect: Effect) -> Matching {
        if self.flow.matches_target(rule, effect)
            && self.matches_when(rule, effect)
            && self.matches_http(rule, effect)
        {
            self.matches_from(rule, effect)
        } else {
            Matching::No
        }
    }

    pub(crate) fn matches_from(&self, rule: &Rule, effect: Effect) -> Matching {
        let matches = |selector: &Selector| match selector {
            Selector::Workload(name) => self.matches_workload(name, effect),
            selector if selects(selector, self.flow.from, self.flow.bundle, effect) => {
                Matching::Yes
            }
            _ => Matching::No,
        };
        let all = rule.from.iter().map(matches);
        all.max().unwrap_or(Matching::No)
    }

    fn matches_workload(&self, name: &Name, effect: Effect) -> Matching {
        let bundle = self.flow.bundle;
        if bundle.workload(name).is_none() {
            // What is not described closes.
            return match effect {
                Effect::Allow => Matching::No,
                Effect::Deny => Matching::Yes,
            };
        }
        match self.workload {
            _ if !may_vouch(bundle, self.flow.from, name) => Matching::No,
            None => Matching::IfItIsTheWorkload,
            Some(caller) if caller == name => Matching::Yes,
            Some(_) => Matching::No,
        }
    }

    pub(crate) fn matches_when(&self, rule: &Rule, effect: Effect) -> bool {
        match (&rule.when, self.at) {
            (None, _) => true,
            (Some(when), Some(at)) => Window::new(when).is_open(at, effect),
            (Some(_), None) => effect == Effect::Deny,
        }
    }

    /// What is no request, or was not seen yet, is none of those that an allow is about, and may be
    /// any that a deny is about.
    pub(crate) fn matches_http(&self, rule: &Rule, effect: Effect) -> bool {
        if rule.http.is_empty() {
            return true;
        }
        match &self.request {
            None => effect == Effect::Deny,
            Some(request) => {
                let mut entries = rule.http.iter();
                entries.any(|entry| matches_request(entry, request, effect))
            }
        }
    }
}

/// Returns the service of a name, if the host is an endpoint of it.
fn called<'b>(bundle: &'b Bundle, name: &Name, host: &HostRecord) -> Option<&'b Service> {
    let service = service_named(bundle, name, ip_protocol::TCP)?;
    let mut endpoints = service.endpoints.iter();
    endpoints.any(|it| it.selects(host)).then_some(service)
}

fn matches_request(entry: &HttpMatch, request: &RequestFacts<'_>, effect: Effect) -> bool {
    matches_method(&entry.methods, request.method, effect)
        && matches_path(&entry.path, request.path)
        && entry
            .host
            .as_ref()
            .is_none_or(|pattern| matches_host(pattern, request.host))
        && entry
            .headers
            .iter()
            .all(|header| matches_header(header, request.headers, effect))
}

/// Segment by segment, without the empty ones that slashes at the ends make.
pub(crate) fn matches_path(pattern: &PathPattern, path: &str) -> bool {
    let segments = |text: &str| -> Vec<String> {
        let parts = text.split('/').filter(|segment| !segment.is_empty());
        parts.map(str::to_owned).collect()
    };
    fn covers(pattern: &[String], path: &[String]) -> bool {
        match (pattern, path) {
            ([rest], _) if rest == "**" => true,
            ([], []) => true,
            ([wanted, pattern @ ..], [segment, path @ ..]) => {
                (wanted == "*" || wanted == segment) && covers(pattern, path)
            }
            _ => false,
        }
    }
    let is_any = *pattern == PathPattern::any();
    is_any || path.starts_with('/') && covers(&segments(pattern.as_str()), &segments(path))
}
