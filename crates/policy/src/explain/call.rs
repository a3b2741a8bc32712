//! Why a connection or a request is allowed or denied: the rule that decided, and those that match
//! except for one thing, which is named.

use std::cmp::Reverse;

use model::name::Name;
use model::rule::{Bundle, HttpMatch, Rule, Selector, Traffic};

use super::{called, described, host_reason, some_of, traffic_asked};
use crate::call::{RequestFacts, Ruling, Target};
use crate::reference::call::{KnownCall, Matching, matches_path};
use crate::reference::{Call, Effect, decide_call, may_vouch};
use crate::request_match::{matches_header, matches_host, matches_method};
use crate::table::RuleInfo;
use crate::window::Window;

/// A decision about a call with what surrounds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestExplained {
    /// Whether the call may pass.
    pub allowed: bool,
    /// The rule that decided, if one did.
    pub rule: Option<RuleInfo>,
    /// What was decided and by what, as a sentence: "denied by rule `no-admin` (policy.yaml:12)".
    pub decision: String,
    /// One sentence each, the most useful first; at most as many as for packets.
    pub near_misses: Vec<String>,
}

impl RequestExplained {
    /// Returns what is said of hosts that this one knows nothing of.
    pub(crate) fn of_strangers() -> Self {
        Self {
            allowed: false,
            rule: None,
            decision: "denied: no rule allows it".to_owned(),
            near_misses: vec!["one of the two hosts is not known here".to_owned()],
        }
    }
}

/// Decides as [`decide_call`], and says which rules nearly decided otherwise.
pub fn explain_call(bundle: &Bundle, call: &Call<'_>) -> RequestExplained {
    let ruling = decide_call(bundle, call);
    let decision = match ruling {
        Ruling::Allow(rule) => format!("allowed by rule {}", called(rule)),
        Ruling::DenyByRule(rule) => format!("denied by rule {}", called(rule)),
        Ruling::DenyByDefault => "denied: no rule allows it".to_owned(),
        Ruling::DenyUnknownWorkload(rule) => format!(
            "denied: who on {} calls is not known, and rule {} has to know",
            call.from.name,
            called(rule)
        ),
    };
    let mut near_misses = match KnownCall::of(bundle, call) {
        None => vec![not_offered(call)],
        Some(known) => near_misses(bundle, call, &known, ruling),
    };
    near_misses.truncate(super::Explained::NEAR_MISSES_MAX);
    RequestExplained {
        allowed: ruling.is_allowed(),
        rule: ruling.rule().map(|rule| RuleInfo {
            id: rule.id.clone(),
            source: rule.source.clone(),
        }),
        decision,
        near_misses,
    }
}

fn not_offered(call: &Call<'_>) -> String {
    match call.target {
        Target::Service(name) => {
            format!(
                "{} is not an endpoint of service {name}",
                described(call.to)
            )
        }
        Target::Port(port) => format!("{} has no tcp {port}", call.to.name),
    }
}

fn near_misses(
    bundle: &Bundle,
    call: &Call<'_>,
    known: &KnownCall<'_>,
    ruling: Ruling<&Rule>,
) -> Vec<String> {
    let allows = |said: fn(&Rule) -> String| -> Vec<String> {
        let matching = bundle.allow.iter().filter(|rule| {
            known.matches(rule, Effect::Allow) == Matching::Yes && ruling.rule() != Some(*rule)
        });
        matching.map(said).collect()
    };
    match ruling {
        Ruling::Allow(_) => allows(|rule| format!("rule {} allows it too", called(rule))),
        Ruling::DenyByRule(_) => allows(|rule| {
            format!(
                "rule {} would allow it, but a deny always wins",
                called(rule)
            )
        }),
        Ruling::DenyUnknownWorkload(_) | Ruling::DenyByDefault => {
            let mut misses: Vec<Miss> = bundle
                .allow
                .iter()
                .filter_map(|rule| Miss::of(rule, call, known))
                .collect();
            misses.sort_by_key(|miss| miss.distance);
            let nearest = misses.first().map_or(0, |miss| miss.distance.differences);
            misses.retain(|miss| miss.distance.differences == nearest);
            misses.truncate(NEAR_MISSES_MAX);
            let told: Vec<String> = misses.into_iter().map(|miss| miss.text).collect();
            if told.is_empty() {
                vec![nothing_is_near(call, known)]
            } else {
                told
            }
        }
    }
}

/// Fewer than for packets: who is refused one request has mostly one rule in mind.
const NEAR_MISSES_MAX: usize = 3;

/// An allow that nearly matches.
struct Miss {
    distance: Distance,
    text: String,
}

/// How far a rule is from allowing a call. Those are told that are nearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Distance {
    differences: usize,
    what: What,
    /// Segments of the path that are not as the rule has them.
    segments: usize,
}

/// What differs: wrong requests come first, then who calls, then when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Request,
    /// First the rules that would hold if the process were known.
    Caller(Reverse<Matching>),
    Time,
    Port,
}

impl Distance {
    const fn of(what: What, differences: usize) -> Self {
        Self {
            differences,
            what,
            segments: 0,
        }
    }
}

impl Miss {
    fn of(rule: &Rule, call: &Call<'_>, known: &KnownCall<'_>) -> Option<Self> {
        let target = known.flow.matches_target(rule, Effect::Allow);
        let from = known.matches_from(rule, Effect::Allow);
        let when = known.matches_when(rule, Effect::Allow);
        let http = known.matches_http(rule, Effect::Allow);
        let (distance, reason) = match (target, from, when, http) {
            (true, Matching::Yes, true, false) => request_reason(rule, known.request.as_ref()),
            (true, Matching::IfItIsTheWorkload | Matching::No, true, true) => {
                let reason = format!("`from`: {}", from_reason(rule, call, known));
                (Distance::of(What::Caller(Reverse(from)), 1), reason)
            }
            (true, Matching::Yes, false, true) => {
                (Distance::of(What::Time, 1), window_reason(rule, call))
            }
            // Told of where there is nothing nearer.
            (false, Matching::Yes, true, true) => {
                (Distance::of(What::Port, 2), target_reason(rule, known)?)
            }
            _ => return None,
        };
        let text = format!("rule {} matches except {reason}", called(rule));
        Some(Self { distance, text })
    }
}

/// Says what of the entry that comes closest does not match.
fn request_reason(rule: &Rule, request: Option<&RequestFacts<'_>>) -> (Distance, String) {
    let Some(request) = request else {
        let entries = rule.http.iter().map(HttpMatch::to_string);
        let reason = format!(
            "that it is for requests ({}), not for bytes",
            some_of(entries.collect(), ", ")
        );
        return (Distance::of(What::Request, 1), reason);
    };
    let entries = rule.http.iter().map(|entry| {
        let differences = differences(entry, request);
        let distance = Distance {
            segments: segments_apart(entry, request),
            ..Distance::of(What::Request, differences.len())
        };
        (distance, differences.join(" and "))
    });
    let closest = entries.min_by_key(|(distance, _)| *distance);
    closest.expect("a rule without entries matches each request")
}

/// Returns how many segments of the path are not as the pattern begins; none where it matches.
fn segments_apart(entry: &HttpMatch, request: &RequestFacts<'_>) -> usize {
    if matches_path(&entry.path, request.path) {
        return 0;
    }
    let wanted = entry.path.as_str().split('/').skip(1);
    let asked = request.path.split('/').skip(1);
    let alike = asked.clone().zip(wanted);
    let alike = alike.take_while(|(asked, wanted)| asked == wanted || *wanted == "*");
    1 + asked.count() - alike.count()
}

fn differences(entry: &HttpMatch, request: &RequestFacts<'_>) -> Vec<String> {
    let mut differences = Vec::new();
    if !matches_method(&entry.methods, request.method, Effect::Allow) {
        let methods: Vec<&str> = entry.methods.iter().map(AsRef::as_ref).collect();
        let (allowed, method) = (methods.join(","), request.method);
        differences.push(format!("the method: it allows {allowed}, not {method}"));
    }
    if !matches_path(&entry.path, request.path) {
        let (allowed, path) = (&entry.path, request.path);
        differences.push(format!("the path: it allows {allowed}, not {path}"));
    }
    if let Some(host) = entry
        .host
        .as_ref()
        .filter(|it| !matches_host(it, request.host))
    {
        differences.push(match request.host {
            "" => format!("perhaps the host, which was not kept: it allows {host}"),
            other => format!("the host: it allows {host}, not {other}"),
        });
    }
    let wrong = entry
        .headers
        .iter()
        .filter(|header| !matches_header(header, request.headers, Effect::Allow));
    // What the request says there stays unsaid: headers carry secrets.
    differences.extend(
        wrong.map(|header| match request.headers.knows(header.name.as_str()) {
            true => format!("a header: it needs `{header}`"),
            false => format!("perhaps a header, which was not kept: it needs `{header}`"),
        }),
    );
    differences
}

fn from_reason(rule: &Rule, call: &Call<'_>, known: &KnownCall<'_>) -> String {
    let reasons = rule.from.iter().map(|selector| match selector {
        Selector::Workload(name) => workload_reason(name, call, known),
        selector => host_reason(selector, call.from, &known.flow.bundle.services),
    });
    some_of(reasons.collect(), "; or ")
}

fn workload_reason(name: &Name, call: &Call<'_>, known: &KnownCall<'_>) -> String {
    let (bundle, host) = (known.flow.bundle, &call.from.name);
    let Some(workload) = bundle.workload(name) else {
        return format!("workload {name} is not in this policy");
    };
    if !may_vouch(bundle, call.from, name) {
        let hosts = workload.hosts.iter().map(Selector::to_string);
        let hosts = some_of(hosts.collect(), " or ");
        return format!("{host} does not run workload {name} ({hosts} does)");
    }
    match (call.workload, known.workload) {
        (Some(claimed), None) => format!(
            "it is for workload {name}, and {host} may not vouch for {claimed}, which it says calls"
        ),
        (_, None) => format!(
            "it is for workload {name}, and who on {host} calls is not known: no workload of the \
             policy, or a process that is gone"
        ),
        (_, Some(caller)) => format!("it is for workload {name}, and {caller} calls"),
    }
}

fn window_reason(rule: &Rule, call: &Call<'_>) -> String {
    let Some(when) = &rule.when else {
        return String::new();
    };
    let Some(at) = call.at else {
        return format!("the time: it holds {when}, and no time was said");
    };
    match Window::new(when).shown(at) {
        Some(now) => format!("the time: it holds {when}, and there it is {now}"),
        None => format!(
            "the time: this program does not know the zone {}",
            when.zone
        ),
    }
}

/// Says of a rule that allows this caller other ports of that host that this one is none of them. Rules
/// about other hosts are not near, nor are those for everybody, as for ping or for monitoring.
fn target_reason(rule: &Rule, known: &KnownCall<'_>) -> Option<String> {
    let is_broad = |selectors: &[Selector]| selectors.contains(&Selector::Any);
    let has_ports = match &rule.traffic {
        Traffic::Ports { tcp, .. } => !tcp.is_empty(),
        Traffic::Service | Traffic::All => true,
    };
    let is_near = has_ports && !is_broad(&rule.from) && !is_broad(&rule.to);
    let is_there = is_near && known.flow.matches_to(rule, Effect::Allow);
    is_there.then(|| {
        let asked = traffic_asked(known.flow.ip_protocol, known.flow.port);
        format!("the port: it is not about {asked}")
    })
}

fn nothing_is_near(call: &Call<'_>, known: &KnownCall<'_>) -> String {
    let asked = traffic_asked(known.flow.ip_protocol, known.flow.port);
    let caller = match known.workload {
        Some(workload) => format!("workload {workload} on {}", described(call.from)),
        None => described(call.from),
    };
    format!(
        "no rule comes close to allowing {caller} {asked} of {}",
        described(call.to)
    )
}

#[cfg(test)]
mod tests {
    use crate::{SourceFile, load, run_tests};

    const RULES: &str = "\
fleet: prod
workloads:
  web: { unit: web.service, hosts: \"role=edge\" }
  batch: { unit: batch.service, hosts: \"role=batch\" }
services:
  orders: { port: 8080, protocol: http, endpoints: [\"role=app\"] }
allow:
  - { id: ping, from: any, to: any, icmp: true }
  - { id: ssh, from: any, to: any, tcp: [22] }
  - { id: health, from: web, to: orders, http: [\"GET /health\"] }
  - { id: items, from: web, to: orders, http: [\"GET /v1/items/*\"] }
  - { id: purge, from: batch, to: orders, http: [\"DELETE /v1/items/*\"] }
  - { id: debug, from: web, to: \"role=app\", tcp: [9000] }
tests:
";

    /// Returns the rules that are told of as near misses, in their order.
    fn near(test: &str) -> Vec<String> {
        let file = SourceFile {
            path: "policy.yaml".to_owned(),
            text: format!("{RULES}  - {{ allow: \"{test}\" }}\n"),
        };
        let checked = load(&[file]).unwrap_or_else(|errors| panic!("{}", errors[0].render()));
        let message = run_tests(&checked, None).remove(0).message;
        let lines = message
            .lines()
            .filter(|line| line.contains(" matches except "));
        let rules = lines.filter_map(|line| line.split('`').nth(1));
        rules.map(str::to_owned).collect()
    }

    #[test]
    fn the_nearest_rules_are_told_and_no_others() {
        assert_eq!(near("web -> orders DELETE /v1/items/7"), ["items", "purge"]);
        assert_eq!(
            near("web -> orders GET /v1/items/7/notes"),
            ["items", "health"]
        );
        // Two things differ in each; there is nothing nearer.
        assert_eq!(
            near("web -> orders PUT /nothing"),
            ["health", "items", "debug"]
        );
        assert!(near("batch -> orders:8081").is_empty());
    }
}
