//! One call for people: names in place of ids, the rule with its file and line, and what nearly
//! decided otherwise.

use std::time::Duration;

use model::catalogue::Catalogue;
use model::ids::HostId;
use model::local::{CallExplained, CallPart};
use model::rule::ip_protocol;
use policy::{Headers, Question, RequestFacts, Target};

use super::record::Record;
use super::{Known, host_name};
use crate::left_out::left_out;
use crate::marks::Aim;
use crate::refusal::Reason;
use crate::report::Side;
use crate::stages::Stage;

/// Explains a call by the policy that decided it, if it is still known.
pub(super) fn explain(call: &Record, known: &[Known]) -> CallExplained {
    let then = known.iter().find(|it| it.gate.version() == call.policy);
    let catalogue = then.or(known.first()).map(|it| &*it.catalogue);
    let name = |host| host_name(host, catalogue);
    let decision = decision(call, then);
    CallExplained {
        id: call.id.to_string(),
        part: match call.side {
            Side::Source => CallPart::Source,
            Side::Destination => CallPart::Destination,
        },
        began_millis: millis(call.began.unix.since_epoch()),
        from: name(call.from),
        workload: call.workload.as_ref().map(ToString::to_string),
        to: match (&call.aim, call.dialled) {
            (Aim::Port(port), Some(host)) => format!("{}:{port}", name(host)),
            (aim, _) => aim.to_string(),
        },
        service: catalogue.and_then(|catalogue| service_dialled(call, catalogue)),
        method: call.method.as_ref().map(ToString::to_string),
        path: call.method.as_ref().map(|_| call.path.clone()),
        status: Some(call.status).filter(|status| *status != 0),
        grpc_status: call.grpc_status,
        reason: call.reason.map(|reason| reason.name().to_owned()),
        policy: call.policy,
        decision: decision.sentence,
        rule: decision.rule,
        source: decision.source,
        near_misses: decision.near_misses,
        tried: call.tried.iter().copied().map(name).collect(),
        choice: call
            .choice
            .map(|it| match then.and_then(|known| others(call, known)) {
                Some(others) => format!("{}; {others}", choice(it)),
                None => choice(it),
            }),
        gave_up: call.gave_up.map(|why| why.name().to_owned()),
        queue_micros: of_stage(call, Stage::Queue).unwrap_or(0),
        answer_micros: micros(call.stages.answer()),
        connect_micros: of_stage(call, Stage::Connect),
        tunnel_micros: of_stage(call, Stage::Tunnel),
        server_queue_micros: of_stage(call, Stage::ServerQueue),
        first_byte_micros: of_stage(call, Stage::FirstByte),
        body_micros: of_stage(call, Stage::Body).unwrap_or(0),
        request_bytes: call.request_bytes,
        answer_bytes: call.answer_bytes,
    }
}

struct Decision {
    sentence: String,
    rule: Option<String>,
    source: Option<String>,
    near_misses: Vec<String>,
}

fn decision(call: &Record, then: Option<&Known>) -> Decision {
    let rule = call.rule.as_ref();
    let rule_of = |verb: &str| {
        let rule = rule.map(|rule| format!("rule {} ({})", rule.id, rule.source));
        rule.map(|rule| format!("{verb} by {rule}"))
    };
    let default = || "denied: no rule allows it".to_owned();
    Decision {
        sentence: match call.reason {
            Some(Reason::CutByPolicy) => format!(
                "{} when it began, and not any more since the policy has changed",
                rule_of("allowed").unwrap_or_else(|| "allowed".to_owned())
            ),
            Some(Reason::UnknownWorkload) => rule_of("denied").map_or_else(default, |it| {
                format!("{it}, which has to know the workload")
            }),
            Some(Reason::ClaimRefused) => {
                "denied: the calling host may not speak for the workload".to_owned()
            }
            Some(reason) if reason.is_of_policy() => rule_of("denied").unwrap_or_else(default),
            _ => rule_of("allowed").unwrap_or_else(|| "the policy was not asked".to_owned()),
        },
        rule: rule.map(|rule| rule.id.to_string()),
        source: rule.map(|rule| rule.source.to_string()),
        near_misses: then
            .map(|known| near_misses(call, known))
            .unwrap_or_default(),
    }
}

/// Asks the policy once more, for what it tells of rules that nearly matched. Only for denials: nobody
/// wonders about the others, and the policy that allowed a call knows nothing of what cut it.
fn near_misses(call: &Record, known: &Known) -> Vec<String> {
    let is_by_rule = match call.reason {
        Some(Reason::Denied) => call.rule.is_some(),
        Some(Reason::UnknownWorkload | Reason::ClaimRefused) => false,
        _ => return Vec::new(),
    };
    let to = call.dialled.or_else(|| call.tried.last().copied());
    let Some(to) = to.or_else(|| endpoint(call, known)) else {
        return Vec::new();
    };
    known.gate.near_misses(&question(call, to), is_by_rule)
}

/// Returns what the policy is asked of a call, as far as it was kept.
fn question(call: &Record, to: HostId) -> Question<'_> {
    let request = call.method.as_ref().map(|method| RequestFacts {
        method: method.as_str(),
        path: &call.path,
        host: "",
        headers: &NotKept,
    });
    Question {
        from: call.from,
        workload: call.workload.as_ref(),
        to,
        target: match &call.aim {
            Aim::Service(name) => Target::Service(name),
            Aim::Port(port) => Target::Port(*port),
        },
        request,
        at: call.began.unix,
    }
}

/// Says which endpoints the policy did not let the call go to.
fn others(call: &Record, known: &Known) -> Option<String> {
    let Aim::Service(name) = &call.aim else {
        return None;
    };
    let service = known.catalogue.services.get(name)?;
    let question = question(call, *call.tried.last()?);
    let name = |host| host_name(host, Some(&known.catalogue));
    left_out(&known.gate, &question, &service.endpoints, name)
}

/// Returns an endpoint that the call might have gone to, another host if there is one.
fn endpoint(call: &Record, known: &Known) -> Option<HostId> {
    let Aim::Service(name) = &call.aim else {
        return None;
    };
    let endpoints = &known.catalogue.services.get(name)?.endpoints;
    let mut others = endpoints.iter().filter(|host| **host != call.from);
    others.next().or(endpoints.first()).copied()
}

/// Returns the service that the host offers at the port that was dialled.
fn service_dialled(call: &Record, catalogue: &Catalogue) -> Option<String> {
    let (Aim::Port(port), Some(host)) = (&call.aim, call.dialled) else {
        return None;
    };
    let mut services = catalogue.services.values();
    let service = services.find(|it| {
        let is_tcp = it.service.protocol.ip_protocol() == ip_protocol::TCP;
        is_tcp && it.service.port == *port && it.endpoints.contains(&host)
    });
    service.map(|it| it.service.name.to_string())
}

/// Headers are not kept of calls that have ended.
struct NotKept;

impl Headers for NotKept {
    fn each(&self, _: &str, _: &mut dyn FnMut(&[u8])) {}

    fn knows(&self, _: &str) -> bool {
        false
    }
}

fn choice(choice: traffic::Choice) -> String {
    let how = match choice.why {
        traffic::Why::LeastLoaded => "it had the least to do",
        traffic::Why::LesserOfTwo => "of two that were drawn it had less to do",
        traffic::Why::Sticky => "it is the one of the call's sticky key",
        traffic::Why::StickySpilled => "the one of the call's sticky key had too much to do",
        traffic::Why::Probe => "it had failed, and this call was to show whether it works again",
    };
    let all = if choice.using_all {
        "; fewer than half are well, so all get calls"
    } else {
        ""
    };
    format!("{how}, of {} that were ready{all}", choice.of)
}

fn of_stage(call: &Record, stage: Stage) -> Option<u64> {
    call.stages.of(stage).map(micros)
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

fn millis(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use http::Method;
    use model::address::OverlayPrefixes;
    use model::catalogue::CatalogueService;
    use model::ids::{FleetId, PolicyVersion};
    use model::rule::{
        Bundle, HeaderMatch, HeaderValue, HttpMatch, Protocol, Rule, Selector, Service, Source,
        Traffic, TrafficSettings,
    };

    use super::*;
    use crate::some_hosts::{host, record};

    /// Anybody, with these requests.
    fn rule(id: &str, http: HttpMatch) -> Rule {
        Rule {
            id: id.parse().unwrap(),
            from: vec![Selector::Any],
            to: vec![Selector::Any],
            traffic: Traffic::All,
            http: vec![http],
            when: None,
            source: Source::default(),
        }
    }

    fn entry(path: &str) -> HttpMatch {
        HttpMatch {
            methods: Vec::new(),
            path: path.parse().unwrap(),
            host: None,
            headers: Vec::new(),
        }
    }

    /// What nearly allowed a `GET /v1/items` from host 1 to port 80 of host 2.
    fn near_misses(bundle: &Bundle) -> Vec<String> {
        explained(bundle).near_misses
    }

    /// Such a dial, which the source refused.
    fn explained(bundle: &Bundle) -> CallExplained {
        let (me, other) = (record(1), record(2));
        let prefixes = OverlayPrefixes::derived_from(FleetId::from_bytes([1; 16]));
        let named = |service: &Service| {
            let known = CatalogueService {
                service: service.clone(),
                addresses: record(9).addresses,
                endpoints: vec![other.host],
            };
            (service.name.clone(), known)
        };
        let catalogue = Catalogue {
            fleet_name: "prod".parse().unwrap(),
            suffix: "mesh".to_owned(),
            me: me.host,
            policy_version: PolicyVersion(1),
            service_prefixes: prefixes.services(),
            services: bundle.services.iter().map(named).collect(),
            hosts: std::collections::BTreeMap::new(),
        };
        let gate = policy::Gate::compile(&me, &[&other], bundle, PolicyVersion(1));
        let known = Known {
            catalogue: catalogue.into(),
            gate: gate.into(),
        };
        let aim = Aim::Port(80);
        let mut report = crate::observe::tests::report(1);
        (report.aim, report.from, report.workload) = (&aim, me.host, None);
        report.dialled = Some(host(2));
        (report.tried, report.method) = (&[], Some(&Method::GET));
        (report.status, report.reason) = (403, Some(Reason::Denied));
        explain(&Record::of(&report), &[known])
    }

    #[test]
    fn a_refused_dial_is_of_the_host_that_was_dialled_and_names_the_service_there() {
        let web = Service {
            name: "web".parse().unwrap(),
            port: 80,
            protocol: Protocol::Http,
            endpoints: vec![Selector::Any],
            workloads: Vec::new(),
            addresses: None,
            settings: TrafficSettings::default(),
            source: Source::default(),
        };
        let to_two = Rule {
            to: vec![Selector::Host {
                name: record(2).name,
                id: Some(host(2)),
            }],
            ..rule("to-two", entry("/admin"))
        };
        let told = explained(&Bundle {
            services: vec![web],
            allow: vec![to_two],
            ..Bundle::default()
        });
        // What is not in the catalogue goes by its id.
        assert_eq!(told.to, format!("{}:80", host_name(host(2), None)));
        assert_eq!(told.service.as_deref(), Some("web"));
        assert!(
            told.near_misses[0].contains("`to-two`") && told.near_misses[0].contains("the path"),
            "{:?}",
            told.near_misses
        );
    }

    #[test]
    fn headers_that_are_not_kept_are_perhaps_what_differed() {
        let wanted = HttpMatch {
            headers: vec![HeaderMatch {
                name: "x-key".parse().unwrap(),
                value: HeaderValue::Present,
            }],
            ..entry("/admin")
        };
        let bundle = Bundle {
            allow: vec![rule("admin", wanted)],
            ..Bundle::default()
        };
        let near = near_misses(&bundle).join("\n");
        assert!(
            near.contains("perhaps a header, which was not kept: it needs `x-key: *`"),
            "{near}"
        );
    }

    #[test]
    fn a_deny_that_looks_at_a_header_which_was_not_kept_hides_no_near_miss() {
        let debug = HttpMatch {
            headers: vec![HeaderMatch {
                name: "x-debug".parse().unwrap(),
                value: HeaderValue::Present,
            }],
            ..entry("/**")
        };
        let bundle = Bundle {
            allow: vec![rule("admin", entry("/admin"))],
            deny: vec![rule("no-debug", debug)],
            ..Bundle::default()
        };
        let near = near_misses(&bundle).join("\n");
        assert!(
            near.contains("`admin`") && near.contains("the path"),
            "{near}"
        );
    }

    #[test]
    fn what_was_denied_for_its_host_is_not_told_of_rules_that_allow_it() {
        let denied = HttpMatch {
            host: Some("orders.example".parse().unwrap()),
            ..entry("/**")
        };
        let bundle = Bundle {
            allow: vec![rule("one", entry("/v1/**")), rule("two", entry("/**"))],
            deny: vec![rule("no-such-host", denied)],
            ..Bundle::default()
        };
        assert_eq!(near_misses(&bundle), Vec::<String>::new());
    }
}
