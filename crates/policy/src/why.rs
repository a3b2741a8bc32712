//! Whether a call may pass of which not everything is known: always, never, or depending on what.
//! Who calls is tried for each workload that the host may run; what a request says and when it is
//! made stays open, and a rule that looks at it matches perhaps.

use std::collections::BTreeSet;

use model::admin::Decision;
use model::ids::PolicyVersion;
use model::name::Name;
use model::question::{CallFacts, Verdict};
use model::record::HostRecord;
use model::rule::{Bundle, Protocol, Rule, Selector, Service, Workload, ip_protocol};
use model::time::UnixTime;

use crate::call::Headers;
use crate::explain::{explain, near_misses};
use crate::partly_known::{Caller, Carries, KnownRequest, Moment, PartlyKnown};
use crate::reference::{Flow, decide, service_named};
use crate::table::RuleInfo;

mod callers;
mod endpoints;
mod sentences;
mod steps;

use callers::{Concerning, Group, Ruled, ruled};
pub use endpoints::why_at_any;
use steps::Steps;

/// A question about calls.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'q> {
    /// Where they come from.
    pub from: &'q HostRecord,
    /// Where they go.
    pub to: &'q HostRecord,
    /// TCP, UDP, ICMP or another number.
    pub ip_protocol: u8,
    /// The destination port; 0 where the protocol has none.
    pub port: u16,
    /// What else is known.
    pub facts: &'q CallFacts,
    /// What time it is, for those who read the answer.
    pub now: UnixTime,
}

/// What a policy says of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether all may pass, none, or some.
    pub verdict: Verdict,
    /// The rule that decides all; `None`: it depends, or no rule allows them.
    pub rule: Option<RuleInfo>,
    /// What it depends on, for people: `the method`, `the header x-debug`.
    pub depends_on: Vec<String>,
    /// One sentence each: who may, which rule says so and if what, and what comes close.
    pub notes: Vec<String>,
}

impl Answer {
    /// How many notes [`why`] gives at most; [`why_at_any`] adds up to four of its own.
    pub const NOTES_MAX: usize = 32;

    /// Returns it as programs tell it to each other.
    pub fn decision(self, version: PolicyVersion) -> Decision {
        Decision {
            allowed: self.verdict == Verdict::Allowed,
            verdict: Some(self.verdict),
            depends_on: self.depends_on,
            rule: self.rule.as_ref().map(|rule| rule.id.to_string()),
            rule_source: self.rule.map(|rule| rule.source.to_string()),
            version,
            notes: self.notes,
        }
    }
}

/// Says whether calls may pass that are as asked. `Allowed` and `Denied` hold for each of them. Where
/// there are too many rules to tell it depends on these, and a note says so.
pub fn why(bundle: &Bundle, asked: &Asked<'_>) -> Answer {
    why_within(bundle, asked, Steps::share(1), Detail::All)
}

/// What is worked out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Detail {
    All,
    /// What is decided, by which rule or depending on what: no notes.
    Decision,
}

fn why_within(bundle: &Bundle, asked: &Asked<'_>, steps: Steps, detail: Detail) -> Answer {
    let service = match service_of(bundle, asked) {
        Ok(service) => service,
        Err(note) => return denied(note),
    };
    let flow = Flow {
        from: asked.from,
        to: asked.to,
        ip_protocol: asked.ip_protocol,
        port: asked.port,
        bundle,
    };
    let rules = Concerning::of(&flow);
    let mut answer = if rules.all().any(Rule::needs_more_than_packets) {
        why_call(&flow, &rules, service, asked, steps, detail)
    } else {
        why_packets(&flow, detail)
    };
    if detail == Detail::Decision {
        return answer;
    }
    answer
        .notes
        .extend(what_does_not_count(bundle, service, asked));
    if answer.notes.len() > Answer::NOTES_MAX {
        let more = answer.notes.len() + 1 - Answer::NOTES_MAX;
        answer.notes.truncate(Answer::NOTES_MAX - 1);
        answer.notes.push(format!("and {more} more"));
    }
    answer
}

/// Returns the service that is called.
///
/// # Errors
/// The host does not offer it, and why calls of it are denied.
fn service_of<'b>(bundle: &'b Bundle, asked: &Asked<'_>) -> Result<Option<&'b Service>, String> {
    let Some(name) = &asked.facts.service else {
        return Ok(None);
    };
    let service = service_named(bundle, name, asked.ip_protocol).filter(|it| it.port == asked.port);
    let is_there = |service: &Service| {
        let mut endpoints = service.endpoints.iter();
        endpoints.any(|endpoint| endpoint.selects(asked.to))
    };
    match service {
        Some(service) if is_there(service) => Ok(Some(service)),
        Some(_) => Err(format!(
            "{} is not an endpoint of service {name}",
            asked.to.name
        )),
        None => Err(format!("this policy has no service {name} there")),
    }
}

fn denied(note: String) -> Answer {
    Answer {
        verdict: Verdict::Denied,
        rule: None,
        depends_on: Vec::new(),
        notes: vec![note],
    }
}

/// No rule asks for more than packets tell.
fn why_packets(flow: &Flow<'_>, detail: Detail) -> Answer {
    let Flow {
        from,
        to,
        ip_protocol,
        port,
        bundle,
    } = *flow;
    let (decision, notes) = match detail {
        Detail::All => {
            let explained = explain(bundle, from, to, ip_protocol, port);
            (explained.decision, explained.near_misses)
        }
        Detail::Decision => (decide(bundle, from, to, ip_protocol, port), Vec::new()),
    };
    Answer {
        verdict: match decision.allowed {
            true => Verdict::Allowed,
            false => Verdict::Denied,
        },
        rule: decision.rule.map(RuleInfo::of),
        depends_on: Vec::new(),
        notes,
    }
}

fn why_call(
    flow: &Flow<'_>,
    rules: &Concerning<'_>,
    service: Option<&Service>,
    asked: &Asked<'_>,
    mut steps: Steps,
    detail: Detail,
) -> Answer {
    let call = PartlyKnown {
        flow: *flow,
        caller: Caller::Anybody,
        carries: carries(service, asked),
        moment: match asked.facts.at_secs {
            _ if asked.ip_protocol != ip_protocol::TCP => Moment::NotAsked,
            Some(at) => Moment::At(UnixTime::from_secs(at)),
            None => Moment::Any,
        },
        forgets: false,
    };
    let callers = callers(flow, rules, asked);
    let groups = ruled(&call, rules, &callers, &mut steps);
    let verdicts: BTreeSet<Verdict> = groups.iter().map(|(_, ruled)| ruled.verdict()).collect();
    let verdict = match verdicts.len() {
        1 => verdicts.into_iter().next().unwrap_or(Verdict::Denied),
        _ => Verdict::Depends,
    };
    let mut depends_on: Vec<String> = Vec::new();
    if verdict == Verdict::Depends {
        let is_of_caller = groups
            .iter()
            .any(|(_, it)| it.verdict() != groups[0].1.verdict());
        depends_on.extend(is_of_caller.then(|| "which workload calls".to_owned()));
        depends_on.extend(sentences::depends_on(groups.iter().map(|(_, ruled)| ruled)));
    }
    let notes = match detail {
        Detail::All => notes_of_call(&call, rules, &groups, asked.now),
        Detail::Decision => Vec::new(),
    };
    let rule = groups.iter().find_map(|(_, ruled)| ruled.rule());
    Answer {
        verdict,
        rule: rule
            .filter(|_| verdict != Verdict::Depends)
            .map(RuleInfo::of),
        depends_on,
        notes,
    }
}

/// Says who may, by which rules, and what comes close where nobody may.
fn notes_of_call(
    call: &PartlyKnown<'_>,
    rules: &Concerning<'_>,
    groups: &[Group<'_, '_>],
    now: UnixTime,
) -> Vec<String> {
    let mut notes = sentences::notes(groups, now);
    if groups.iter().any(|(_, ruled)| *ruled == Ruled::TooMany) {
        let rules = rules.all().count();
        notes.insert(
            0,
            format!(
                "{rules} rules are about it, too many to tell: say more of the call, as its workload, method or path"
            ),
        );
    }
    let mut verdicts = groups.iter().map(|(_, ruled)| ruled.verdict());
    if verdicts.all(|verdict| verdict == Verdict::Denied) {
        let mut callers = groups.iter().flat_map(|(callers, _)| callers);
        let caller = match (callers.next(), callers.next()) {
            (Some(only), None) => *only,
            _ => Caller::Anybody,
        };
        let by_rule = groups
            .iter()
            .all(|(_, it)| matches!(it, Ruled::Denied(Some(_))));
        notes.extend(near_misses(&PartlyKnown { caller, ..*call }, by_rule));
    }
    notes
}

/// Returns what may be carried there, with what is known of it.
fn carries<'q>(service: Option<&Service>, asked: &Asked<'q>) -> Carries<'q> {
    let facts = asked.facts;
    let request = KnownRequest {
        method: facts.method.as_ref().map(AsRef::as_ref),
        path: facts.path.as_ref().map(AsRef::as_ref),
        host: facts.host.as_ref().map(AsRef::as_ref),
        headers: facts,
    };
    if asked.ip_protocol != ip_protocol::TCP {
        return Carries::Bytes;
    }
    match service.map_or(Protocol::Auto, |service| service.protocol) {
        Protocol::Tcp | Protocol::Udp => Carries::Bytes,
        Protocol::Http | Protocol::Grpc => Carries::Request(request),
        Protocol::Auto if facts.is_of_request() => Carries::Request(request),
        Protocol::Auto => Carries::Either(request),
    }
}

impl Headers for CallFacts {
    fn each(&self, name: &str, look: &mut dyn FnMut(&[u8])) {
        let named = self
            .headers
            .iter()
            .filter(|header| header.name.as_str() == name);
        let values = named.filter_map(|header| header.value.as_ref());
        values.for_each(|value| look(value.as_str().as_bytes()));
    }

    fn knows(&self, name: &str) -> bool {
        self.headers
            .iter()
            .any(|header| header.name.as_str() == name)
    }
}

/// Returns who may call, as far as rules about what is called tell callers apart.
fn callers<'q>(flow: &Flow<'q>, rules: &Concerning<'_>, asked: &Asked<'q>) -> Vec<Caller<'q>> {
    let has_sender = matches!(asked.ip_protocol, ip_protocol::TCP | ip_protocol::UDP);
    let named: BTreeSet<&Name> = rules
        .all()
        .flat_map(|rule| &rule.from)
        .filter_map(|from| match from {
            Selector::Workload(name) => Some(name),
            _ => None,
        })
        .collect();
    if !has_sender || named.is_empty() {
        return vec![Caller::Nobody];
    }
    let may_run = |workload: &&'q Workload| {
        let mut hosts = workload.hosts.iter();
        hosts.any(|hosts| hosts.selects(flow.from))
    };
    let running: BTreeSet<&'q Name> = flow
        .bundle
        .workloads
        .iter()
        .filter(may_run)
        .map(|workload| &workload.name)
        .collect();
    if let Some(said) = &asked.facts.workload {
        let caller = match running.get(said) {
            Some(name) => Caller::Workload(name),
            None => Caller::Pretender(said),
        };
        return vec![caller];
    }
    // Of those that no rule tells apart one stands for all.
    let told_apart = running.iter().filter(|name| named.contains(*name));
    let other = running.iter().find(|name| !named.contains(*name));
    let workloads = told_apart.chain(other).map(|name| Caller::Workload(name));
    workloads.chain([Caller::Nobody]).collect()
}

/// Says what of the question makes no difference, though who asks may think so.
fn what_does_not_count(
    bundle: &Bundle,
    service: Option<&Service>,
    asked: &Asked<'_>,
) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(name) = &asked.facts.workload
        && !crate::may_vouch(bundle, asked.from, name)
    {
        let from = &asked.from.name;
        let places = match bundle.workload(name) {
            None => "this policy does not have it".to_owned(),
            Some(workload) => {
                let hosts: Vec<String> = workload.hosts.iter().map(ToString::to_string).collect();
                format!("its hosts are {}", hosts.join(" and "))
            }
        };
        notes.push(format!(
            "{from} may not run workload {name} ({places}): who calls there is not of it"
        ));
    }
    if asked.facts.is_of_request() && matches!(carries(service, asked), Carries::Bytes) {
        let what = service.map_or_else(
            || "what is sent there".to_owned(),
            |service| format!("service {} ({})", service.name, service.protocol.as_str()),
        );
        notes.push(format!(
            "nobody looks for requests in {what}: what was said of one makes no difference"
        ));
    }
    notes
}
