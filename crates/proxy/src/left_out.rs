//! Why an endpoint did not get a call that another one got: the policy does not let it go there.

use model::ids::HostId;
use policy::{Gate, Question};

/// So many are named, of however many.
const NAMED_MAX: usize = 4;

/// Says which of the endpoints a call could not go to, by the rules that let it go to `question.to`;
/// `None`: it could go to all, or rules look at what is not kept of it: its headers and host.
pub(crate) fn left_out(
    gate: &Gate,
    question: &Question<'_>,
    endpoints: &[HostId],
    name: impl Fn(HostId) -> String,
) -> Option<String> {
    if gate.is_one_for_all(question.target)
        || gate.needs_headers(question.target)
        || !gate.decide(question).is_allowed()
    {
        return None;
    }
    let others = endpoints.iter().filter(|host| **host != question.to);
    let mut denied = others.filter_map(|host| {
        let ruling = gate.decide(&Question {
            to: *host,
            ..*question
        });
        let why = || match ruling.rule().map(|rule| gate.rule(rule)) {
            Some(rule) => format!("denied by rule {} ({})", rule.id, rule.source),
            None => "no rule allows it".to_owned(),
        };
        (!ruling.is_allowed()).then(|| format!("{}: {}", name(*host), why()))
    });
    let named: Vec<String> = denied.by_ref().take(NAMED_MAX).collect();
    let more = match denied.count() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!named.is_empty()).then(|| format!("left out: {}{more}", named.join(", ")))
}

#[cfg(test)]
mod tests {
    use model::ids::PolicyVersion;
    use model::name::Name;
    use model::rule::{
        Bundle, HeaderMatch, HeaderValue, HttpMatch, PathPattern, Protocol, Rule, Selector,
        Service, Source, Traffic, TrafficSettings,
    };
    use model::time::UnixTime;
    use policy::{RequestFacts, Target};

    use super::*;
    use crate::some_hosts::{host, record};

    fn selector(number: u8) -> Selector {
        Selector::Host {
            name: record(number).name,
            id: Some(host(number)),
        }
    }

    fn rule(id: &str, to: Selector, traffic: Traffic) -> Rule {
        Rule {
            id: id.parse().unwrap(),
            from: vec![Selector::Any],
            to: vec![to],
            traffic,
            http: Vec::new(),
            when: None,
            source: Source::default(),
        }
    }

    /// Of the endpoints, the hosts from 2 on, some are denied.
    fn said(denied: &[u8]) -> Option<String> {
        let denies = denied
            .iter()
            .map(|number| rule("not-there", selector(*number), Traffic::All));
        let all = rule("all", Selector::Service(orders()), Traffic::Service);
        said_by(vec![all], denies.collect())
    }

    fn orders() -> Name {
        "orders".parse().unwrap()
    }

    fn said_by(allow: Vec<Rule>, deny: Vec<Rule>) -> Option<String> {
        let orders = orders();
        let endpoints = [2, 3, 4, 5, 6, 7, 8];
        let service = Service {
            name: orders.clone(),
            port: 80,
            protocol: Protocol::Http,
            endpoints: endpoints.map(selector).to_vec(),
            workloads: Vec::new(),
            addresses: None,
            settings: TrafficSettings::default(),
            source: Source::default(),
        };
        let bundle = Bundle {
            services: vec![service],
            allow,
            deny,
            ..Bundle::default()
        };
        let peers = endpoints.map(record);
        let peers: Vec<_> = peers.iter().collect();
        let gate = Gate::compile(&record(1), &peers, &bundle, PolicyVersion(1));
        let question = Question {
            from: host(1),
            workload: None,
            to: host(2),
            target: Target::Service(&orders),
            request: Some(RequestFacts {
                method: "GET",
                path: "/",
                host: "",
                headers: &[("x-other", "1")],
            }),
            at: UnixTime::from_secs(0),
        };
        let name = |host: HostId| format!("vm-{}", host.as_bytes()[0]);
        left_out(&gate, &question, &endpoints.map(host), name)
    }

    #[test]
    fn those_are_named_that_a_call_could_not_go_to() {
        assert_eq!(said(&[]), None);
        let one = said(&[3]).unwrap();
        assert!(
            one.starts_with("left out: vm-3: denied by rule not-there (") && one.ends_with(')'),
            "{one}"
        );
        let many = said(&[3, 4, 5, 6, 7, 8]).unwrap();
        assert!(
            many.ends_with(" and 2 more") && !many.contains("vm-7"),
            "{many}"
        );
        // It would not have gone where it went: the policy is another by now.
        assert_eq!(said(&[2]), None);
    }

    #[test]
    fn nobody_is_named_where_it_was_up_to_headers_that_are_not_kept() {
        let entry = HttpMatch {
            methods: Vec::new(),
            path: PathPattern::any(),
            host: None,
            headers: Vec::new(),
        };
        let allowed_for = |entry: HttpMatch| {
            let mut three = rule("three", selector(3), Traffic::All);
            three.http = vec![entry];
            said_by(vec![rule("two", selector(2), Traffic::All), three], vec![])
        };
        let said = allowed_for(entry.clone()).unwrap();
        assert!(said.starts_with("left out: vm-4: "), "{said}");
        let for_host = HttpMatch {
            host: Some("orders.example".parse().unwrap()),
            ..entry.clone()
        };
        assert_eq!(allowed_for(for_host), None);
        let for_header = HttpMatch {
            headers: vec![HeaderMatch {
                name: "x-debug".parse().unwrap(),
                value: HeaderValue::Present,
            }],
            ..entry
        };
        assert_eq!(allowed_for(for_header), None);
    }
}
