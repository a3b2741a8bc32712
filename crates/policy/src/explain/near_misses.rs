//! Which allows come close to a call that is denied, and in what it differs from them: those are near
//! that differ in the fewest things, and of these it matters in which.

use model::name::Name;
use model::rule::{HttpMatch, PathPattern, Rule, Selector, Traffic, ip_protocol};

use super::{called, described, host_reason, some_of, traffic_asked};
use crate::partly_known::{Caller, Carries, Case, KnownRequest, Moment, Part, PartlyKnown};
use crate::reference::call::Matching;
use crate::reference::{Effect, may_vouch};
use crate::window::Window;

/// Returns the allows that match whatever is not known.
pub(super) fn allowing<'b>(call: &PartlyKnown<'b>) -> impl Iterator<Item = &'b Rule> {
    let call = *call;
    let allows = call.flow.bundle.allow.iter();
    allows.filter(move |rule| call.cases(rule, Effect::Allow).iter().any(Case::is_sure))
}

/// Returns which rules come close to allowing a call that is denied, nearest first; where a rule denies
/// it, those that would allow it.
pub(crate) fn near_misses(call: &PartlyKnown<'_>, is_by_rule: bool) -> Vec<String> {
    if is_by_rule {
        let losing = allowing(call).map(|rule| {
            format!(
                "rule {} would allow it, but a deny always wins",
                called(rule)
            )
        });
        return losing.take(super::Explained::NEAR_MISSES_MAX).collect();
    }
    let allows = call.flow.bundle.allow.iter();
    let mut misses: Vec<Miss> = allows.filter_map(|rule| Miss::of(rule, call)).collect();
    // Stable: of those alike, the first in the file comes first.
    misses.sort_by_key(|miss| miss.distance);
    let nearest = misses.first().map_or(0, |miss| miss.distance.differences);
    misses.retain(|miss| miss.distance.differences == nearest);
    misses.truncate(NEAR_MISSES_MAX);
    if misses.is_empty() {
        return vec![nothing_is_near(call)];
    }
    misses.into_iter().map(|miss| miss.text).collect()
}

/// Fewer than for packets: who is refused one request has mostly one rule in mind.
const NEAR_MISSES_MAX: usize = 3;
/// Rules that differ in more are not near.
const DIFFERENCES_MAX: usize = 2;
/// Another port is another thing: it counts for more than a wrong method.
const PORT_DIFFERENCES: usize = 2;

/// An allow that nearly matches.
struct Miss {
    distance: Distance,
    text: String,
}

/// How far a rule, by the closest entry of its `http`, is from allowing a call: first in how many
/// things it differs, then in which. Whatever stands above weighs more than all below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Distance {
    differences: usize,
    from: bool,
    port: bool,
    workload: bool,
    request: RequestDistance,
    time: bool,
}

/// How far an entry of `http` is from a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct RequestDistance {
    /// In how many things it differs.
    differences: usize,
    host: bool,
    /// Segments of the path that do not begin as the pattern does; none where it matches.
    segments: usize,
    method: bool,
    headers: usize,
}

impl Miss {
    /// `None`: the rule is about another host, or not near.
    fn of(rule: &Rule, call: &PartlyKnown<'_>) -> Option<Self> {
        let mut distance = Distance::default();
        let mut reasons = Vec::new();
        match call.matches_from(rule, Effect::Allow) {
            Matching::Yes => {}
            // Who calls is asked about, too.
            Matching::IfItIsTheWorkload if call.caller == Caller::Anybody => {}
            _ => {
                let is_here = may_call_from_there(rule, call);
                (distance.from, distance.workload) = (!is_here, is_here);
                distance.differences += 1;
                reasons.push(format!("`from`: {}", from_reason(rule, call)));
            }
        }
        if !call.flow.matches_target(rule, Effect::Allow) {
            distance.port = true;
            distance.differences += PORT_DIFFERENCES;
            reasons.push(port_reason(rule, call)?);
        }
        if let Some((apart, reason)) = request_miss(rule, call) {
            distance.request = apart;
            distance.differences += apart.differences;
            reasons.push(reason);
        }
        if call.holds_at(rule, Effect::Allow) == Some(false) {
            distance.time = true;
            distance.differences += 1;
            reasons.push(window_reason(rule, call.moment));
        }
        let is_of_request = distance.differences == distance.request.differences;
        let is_near = distance.differences <= DIFFERENCES_MAX || is_of_request;
        (distance.differences > 0 && is_near).then(|| Self {
            distance,
            text: format!(
                "rule {} matches except {}",
                called(rule),
                reasons.join(" and ")
            ),
        })
    }
}

/// Returns whether the rule names a workload that the host may run.
fn may_call_from_there(rule: &Rule, call: &PartlyKnown<'_>) -> bool {
    rule.from.iter().any(|from| match from {
        Selector::Workload(name) => may_vouch(call.flow.bundle, call.flow.from, name),
        _ => false,
    })
}

/// Says what of the entry that comes closest does not match; `None`: the requests match.
fn request_miss(rule: &Rule, call: &PartlyKnown<'_>) -> Option<(RequestDistance, String)> {
    if rule.http.is_empty() {
        return None;
    }
    let request = match &call.carries {
        Carries::Request(request) | Carries::Either(request) => request,
        Carries::Bytes => {
            let entries = rule.http.iter().map(HttpMatch::to_string);
            let entries = some_of(entries.collect(), ", ");
            let reason = format!("that it is for requests ({entries}), not for bytes");
            let apart = RequestDistance {
                differences: 1,
                ..RequestDistance::default()
            };
            return Some((apart, reason));
        }
    };
    let entries = rule
        .http
        .iter()
        .map(|entry| differences(entry, request, call.forgets));
    // Of those alike, the first.
    let (apart, reasons) = entries.min_by_key(|(apart, _)| *apart)?;
    (apart.differences > 0).then(|| (apart, reasons.join(" and ")))
}

/// Returns in what an entry differs from a request. What is not known does not differ, unless it was
/// known once: then it may have been that.
fn differences(
    entry: &HttpMatch,
    request: &KnownRequest<'_>,
    forgets: bool,
) -> (RequestDistance, Vec<String>) {
    let mut apart = RequestDistance::default();
    let mut reasons = Vec::new();
    for part in Part::all(entry) {
        let holds = part.holds(request, Effect::Allow);
        if holds == Some(true) || holds.is_none() && !forgets {
            continue;
        }
        let (perhaps, not_kept) = match holds {
            Some(_) => ("", ""),
            None => ("perhaps ", ", which was not kept"),
        };
        apart.differences += 1;
        reasons.push(match part {
            Part::Method(methods) => {
                apart.method = true;
                let methods: Vec<&str> = methods.iter().map(AsRef::as_ref).collect();
                let (allowed, method) = (methods.join(","), request.method.unwrap_or("another"));
                format!("the method: it allows {allowed}, not {method}")
            }
            Part::Path(pattern) => {
                let path = request.path.unwrap_or_default();
                apart.segments = segments_apart(pattern, path);
                format!("the path: it allows {pattern}, not {path}")
            }
            Part::Host(pattern) => {
                apart.host = true;
                let not = request.host.map(|host| format!(", not {host}"));
                let not = not.unwrap_or_default();
                format!("{perhaps}the host{not_kept}: it allows {pattern}{not}")
            }
            // What the request says there stays unsaid: headers carry secrets.
            Part::Header(header) => {
                apart.headers += 1;
                format!("{perhaps}a header{not_kept}: it needs `{header}`")
            }
        });
    }
    (apart, reasons)
}

/// Returns how many segments of a path, at least one, do not begin as a pattern that it does not match.
fn segments_apart(pattern: &PathPattern, path: &str) -> usize {
    let wanted = pattern.as_str().split('/').skip(1);
    let asked = path.split('/').skip(1);
    let alike = asked.clone().zip(wanted);
    let alike = alike.take_while(|(asked, wanted)| asked == wanted || *wanted == "*");
    1 + asked.count() - alike.count()
}

fn from_reason(rule: &Rule, call: &PartlyKnown<'_>) -> String {
    let reasons = rule.from.iter().map(|selector| match selector {
        Selector::Workload(name) => workload_reason(name, call),
        selector => host_reason(selector, call.flow.from, &call.flow.bundle.services),
    });
    some_of(reasons.collect(), "; or ")
}

fn workload_reason(name: &Name, call: &PartlyKnown<'_>) -> String {
    let (bundle, host) = (call.flow.bundle, &call.flow.from.name);
    let Some(workload) = bundle.workload(name) else {
        return format!("workload {name} is not in this policy");
    };
    if !may_vouch(bundle, call.flow.from, name) {
        let hosts = workload.hosts.iter().map(Selector::to_string);
        let hosts = some_of(hosts.collect(), " or ");
        return format!("{host} does not run workload {name} ({hosts} does)");
    }
    match call.caller {
        Caller::Workload(caller) => {
            format!("it is for workload {name}, and {caller} calls")
        }
        Caller::Pretender(claimed) => format!(
            "it is for workload {name}, and {host} may not vouch for {claimed}, which it says calls"
        ),
        Caller::Nobody | Caller::Anybody => format!(
            "it is for workload {name}, and who on {host} calls is not known: no workload of the \
             policy, or a process that is gone"
        ),
    }
}

fn window_reason(rule: &Rule, moment: Moment) -> String {
    let Some(when) = &rule.when else {
        return String::new();
    };
    let Moment::At(at) = moment else {
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

/// Says of a rule about other ports of that host that this one is none of them; `None`: it is not near.
/// Rules about other hosts are not near, nor are those for everybody, as for ping or for monitoring.
fn port_reason(rule: &Rule, call: &PartlyKnown<'_>) -> Option<String> {
    let is_broad = |selectors: &[Selector]| selectors.contains(&Selector::Any);
    let is_udp = call.flow.ip_protocol == ip_protocol::UDP;
    let has_ports = match &rule.traffic {
        Traffic::Ports { udp, .. } if is_udp => !udp.is_empty(),
        Traffic::Ports { tcp, .. } => !tcp.is_empty(),
        Traffic::Service | Traffic::All => true,
    };
    let is_near = has_ports && !is_broad(&rule.from) && !is_broad(&rule.to);
    let is_there = is_near && call.flow.matches_to(rule, Effect::Allow);
    is_there.then(|| {
        let asked = traffic_asked(call.flow.ip_protocol, call.flow.port);
        format!("the port: it is not about {asked}")
    })
}

fn nothing_is_near(call: &PartlyKnown<'_>) -> String {
    let asked = traffic_asked(call.flow.ip_protocol, call.flow.port);
    let caller = match call.caller {
        Caller::Workload(workload) => {
            format!("workload {workload} on {}", described(call.flow.from))
        }
        _ => described(call.flow.from),
    };
    format!(
        "no rule comes close to allowing {caller} {asked} of {}",
        described(call.flow.to)
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

    /// Returns what is told of rules from `web` to `orders` with these entries of `http`.
    fn told(rules: &[(&str, &str)], test: &str) -> Vec<String> {
        let rules = rules.iter().map(|(id, http)| {
            format!("  - {{ id: {id}, from: web, to: orders, http: [{http}] }}\n")
        });
        let (before, _) = RULES.split_once("  - { id: ping").unwrap();
        let file = SourceFile {
            path: "policy.yaml".to_owned(),
            text: format!(
                "{before}{}tests:\n  - {{ allow: \"web -> orders {test}\" }}\n",
                rules.collect::<String>()
            ),
        };
        let checked = load(&[file]).unwrap_or_else(|errors| panic!("{}", errors[0].render()));
        let message = run_tests(&checked, None).remove(0).message;
        let lines = message
            .lines()
            .filter(|line| line.contains("matches except"));
        lines.map(|line| line.trim().to_owned()).collect()
    }

    #[test]
    fn of_entries_that_differ_in_as_much_the_one_with_the_longest_path_alike_is_named() {
        for entries in [
            "\"GET /health\", \"GET /v1/items/*\", \"GET /v1/users\"",
            "\"GET /v1/users\", \"GET /v1/items/*\", \"GET /health\"",
        ] {
            let told = told(&[("one", entries)], "GET /v1/items/7/notes");
            let path = "the path: it allows /v1/items/*, not /v1/items/7/notes";
            assert!(
                told[0].ends_with(&format!("matches except {path}")),
                "{told:?}"
            );
        }
    }

    #[test]
    fn a_path_that_matches_is_nearer_than_a_method_that_does() {
        for entries in [
            "\"GET /v1/items\", \"POST /v2\"",
            "\"POST /v2\", \"GET /v1/items\"",
        ] {
            let told = told(&[("one", entries)], "POST /v1/items");
            let method = "the method: it allows GET, not POST";
            assert!(
                told[0].ends_with(&format!("matches except {method}")),
                "{told:?}"
            );
        }
    }

    #[test]
    fn of_those_alike_the_first_in_the_file_comes_first() {
        let (one, two) = ("\"GET /a\", \"PUT /a\"", "\"GET /b\"");
        let first = |rules: &[(&str, &str)]| {
            let told = told(rules, "GET /c");
            let ids = told.iter().filter_map(|line| line.split('`').nth(1));
            ids.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(first(&[("one", one), ("two", two)]), "one two");
        assert_eq!(first(&[("two", two), ("one", one)]), "two one");
        // Of entries, too.
        let told = told(&[("one", one)], "DELETE /a");
        assert!(told[0].contains("it allows GET, not DELETE"), "{told:?}");
    }

    #[test]
    fn one_difference_is_nearer_than_two_whatever_they_are() {
        let host = "{ path: \"/v1/items\", host: a.example }";
        let told = told(&[("one", "\"PUT /v1/*\""), ("two", host)], "GET /v1/items");
        // Both differ in one: a wrong method comes before a wrong host.
        assert_eq!(told.len(), 2);
        assert!(
            told[0].contains("`one`") && told[1].contains("`two`"),
            "{told:?}"
        );
        let far = "{ methods: [PUT], path: \"/v1/users\" }";
        let told = self::told(&[("far", far), ("two", host)], "GET /v1/items");
        assert!(told.len() == 1 && told[0].contains("`two`"), "{told:?}");
    }
}
