//! Why this host allows or denies a flow of its own: asked by an operator here, or by one at the
//! coordinator. The answer is what is in force, not what is on its way.

use std::net::IpAddr;

use model::admin::Decision;
use model::control::{Explanation, Refusal, RefusalCode};
use model::local::{LocalWhyReport, LocalWhyRequest};
use model::name::Name;
use model::pair::PairFacts;
use model::record::HostRecord;
use model::rule::{Bundle, FlowQuery, Rule, Service, ip_protocol};
use model::time::Now;
use policy::{Call, Target, explain, explain_call};

use super::Agent;
use crate::enrolment::Enrolment;
use crate::map::Map;
use crate::output::Output;

/// One end of a question: a host, and the service that it was named by.
#[derive(Clone, Copy)]
struct End<'m> {
    host: &'m HostRecord,
    service: Option<&'m Service>,
}

impl Agent {
    pub(super) fn explain_locally(
        &self,
        question: &LocalWhyRequest,
        now: Now,
    ) -> Result<LocalWhyReport, Refusal> {
        let map = self.map_or_refusal()?;
        let protocol = protocol_number(&question.protocol)?;
        let from = self.end(map, &question.from, None)?;
        let to = self.end(map, &question.to, Some(from.host))?;
        let me = map.me().host;
        if (from.host.host == me) == (to.host.host == me) {
            return Err(invalid(format!(
                "one of the two ends must be this host, {}, and the other one must not; ask the \
                 coordinator about others",
                map.me().name
            )));
        }
        let port = destination_port(question, protocol, to.service)?;
        let explained = explain(map.bundle(), from.host, to.host, protocol, port);
        let peer = if from.host.host == me {
            to.host
        } else {
            from.host
        };
        let mut notes = explained.near_misses.clone();
        notes.extend(protocol_note(to.service, protocol));
        if protocol == ip_protocol::TCP {
            let service = to.service.filter(|service| service.port == port);
            let target = service.map_or(Target::Port(port), |it| Target::Service(&it.name));
            notes.extend(notes_on_calls(
                map.bundle(),
                (from.host, to.host),
                target,
                now,
            ));
        }
        let rule = explained.decision.rule;
        Ok(LocalWhyReport {
            from: from.host.name.clone(),
            to: to.host.name.clone(),
            port,
            inbound: to.host.host == me,
            decision: Decision {
                allowed: explained.decision.allowed,
                rule: rule.map(|rule| rule.id.to_string()),
                rule_source: rule.map(|rule| rule.source.to_string()),
                version: map.policy_version(),
                notes,
            },
            pair: self.pair_facts(peer, now),
        })
    }

    /// Answers a coordinator; a flow that is not this host's is denied, and the note says why.
    pub(super) fn answer_coordinator(&mut self, id: u64, query: FlowQuery, now: Now) {
        let explanation = self.explain_for_coordinator(id, query, now);
        let is_here = self
            .staging
            .in_force()
            .is_some_and(|map| map.me().host == query.to);
        // What is denied tells nobody whether anything listens behind it.
        let listener_at = (is_here && explanation.allowed).then_some(query);
        self.out.push(Output::Explain {
            explanation,
            listener_at,
        });
    }

    fn explain_for_coordinator(&self, id: u64, query: FlowQuery, now: Now) -> Explanation {
        let mut explanation = Explanation {
            id,
            policy: Default::default(),
            allowed: false,
            rule: None,
            source: None,
            notes: Vec::new(),
            pair: None,
        };
        let Some(map) = self.staging.in_force() else {
            explanation
                .notes
                .push("no map is in force here yet".to_owned());
            return explanation;
        };
        explanation.policy = map.policy_version();
        let (Some(from), Some(to)) = (map.host(query.from), map.host(query.to)) else {
            explanation.notes.push(
                "the other host is not known here, so no packet passes between the two".to_owned(),
            );
            return explanation;
        };
        let explained = explain(map.bundle(), from, to, query.ip_protocol, query.port);
        explanation.allowed = explained.decision.allowed;
        explanation.rule = explained.decision.rule.map(|rule| rule.id.clone());
        explanation.source = explained.decision.rule.map(|rule| rule.source.clone());
        explanation.notes = explained.near_misses;
        if query.ip_protocol == ip_protocol::TCP {
            let target = Target::Port(query.port);
            let notes = notes_on_calls(map.bundle(), (from, to), target, now);
            explanation.notes.extend(notes);
        }
        let peer = if from.host == map.me().host { to } else { from };
        explanation.pair = Some(self.pair_facts(peer, now));
        explanation
    }

    /// Finds a peer by its name, with or without the fleet's suffix, or by an overlay address of it.
    pub(super) fn peer_called(&self, text: &str) -> Option<&HostRecord> {
        let map = self.staging.in_force()?;
        let called = match text.trim().parse() {
            Ok(address) => host_at(map, address),
            Err(_) => map.host_named(&name_in(map, text).ok()?),
        };
        called.filter(|host| host.host != map.me().host)
    }

    fn map_or_refusal(&self) -> Result<&Map, Refusal> {
        self.staging
            .in_force()
            .ok_or_else(|| match &self.enrolment {
                Enrolment::Member(_) => Refusal::new(
                    RefusalCode::Unavailable,
                    "no map is in force here yet; see `meshctl status`",
                ),
                _ => Refusal::new(
                    RefusalCode::NotFound,
                    "this host is not a member of a fleet; run `meshctl join`",
                ),
            })
    }

    /// Finds who a name means. A service means this host when it is an endpoint of it and the
    /// other end is another host, else its first endpoint.
    fn end<'m>(
        &self,
        map: &'m Map,
        text: &str,
        other: Option<&HostRecord>,
    ) -> Result<End<'m>, Refusal> {
        if let Ok(address) = text.trim().parse() {
            let mut services = map.bundle().services.iter();
            let has_it = |it: &&Service| it.addresses.is_some_and(|own| own.contains(address));
            if let Some(service) = services.find(has_it) {
                return endpoint_of(service, map, other);
            }
            let host = host_at(map, address).ok_or_else(|| {
                let text = format!(
                    "no host that this one knows has the overlay address {address}; it knows those \
                     that its rules concern, see `meshctl peers`"
                );
                Refusal::new(RefusalCode::NotFound, text)
            })?;
            return Ok(End {
                host,
                service: None,
            });
        }
        let name = name_in(map, text)?;
        if let Some(host) = map.host_named(&name) {
            return Ok(End {
                host,
                service: None,
            });
        }
        let service = map
            .bundle()
            .services
            .iter()
            .find(|service| service.name == name);
        let Some(service) = service else {
            return Err(Refusal::new(
                RefusalCode::NotFound,
                format!(
                    "{name} is neither a host nor a service that this host knows; it knows those \
                     that its rules concern, see `meshctl peers`"
                ),
            ));
        };
        endpoint_of(service, map, other)
    }

    /// What is known here of a peer and the tunnel to it. Who listens is the program's to find out.
    fn pair_facts(&self, peer: &HostRecord, now: Now) -> PairFacts {
        let paths = self.paths.get(peer.host);
        PairFacts {
            addresses: vec![peer.addresses.v4.into(), peer.addresses.v6.into()],
            endpoint: paths.and_then(|paths| paths.endpoint()),
            answers: paths.is_some_and(|paths| paths.is_live()),
            last_handshake_secs: paths
                .and_then(|paths| paths.last_handshake)
                .map(|at| now.monotonic.saturating_since(at).as_secs()),
            last_drop: self.last_denials.with(peer.host, now.monotonic),
            listener: None,
        }
    }
}

fn endpoint_of<'m>(
    service: &'m Service,
    map: &'m Map,
    other: Option<&HostRecord>,
) -> Result<End<'m>, Refusal> {
    let is_endpoint = |host: &&HostRecord| {
        let mut endpoints = service.endpoints.iter();
        other.is_none_or(|other| other.host != host.host) && endpoints.any(|it| it.selects(host))
    };
    let host = map.hosts().find(is_endpoint).ok_or_else(|| {
        let name = &service.name;
        Refusal::new(
            RefusalCode::NotFound,
            format!("no host that this one knows is an endpoint of service {name}"),
        )
    })?;
    Ok(End {
        host,
        service: Some(service),
    })
}

/// Returns how a call is decided, where it takes more than packets to know: nothing of what is asked
/// here says which request it will be, or which process makes it.
fn notes_on_calls(
    bundle: &Bundle,
    (from, to): (&HostRecord, &HostRecord),
    target: Target<'_>,
    now: Now,
) -> Vec<String> {
    let mut rules = bundle.allow.iter().chain(&bundle.deny);
    if !rules.any(Rule::needs_more_than_packets) {
        return Vec::new();
    }
    let explained = explain_call(
        bundle,
        &Call {
            from,
            workload: None,
            to,
            target,
            request: None,
            at: Some(now.unix),
        },
    );
    let what = match target {
        Target::Service(name) => format!("calls of {name}"),
        Target::Port(port) => format!("calls of tcp {port}"),
    };
    let decided = format!(
        "{what}, by a process and with a request that nobody knows yet: {}",
        explained.decision
    );
    std::iter::once(decided)
        .chain(explained.near_misses)
        .collect()
}

fn host_at(map: &Map, address: IpAddr) -> Option<&HostRecord> {
    map.hosts().find(|host| host.addresses.contains(address))
}

fn name_in(map: &Map, text: &str) -> Result<Name, Refusal> {
    let text = text.trim().trim_end_matches('.').to_ascii_lowercase();
    let suffix = format!(".{}", map.statement().dns_suffix);
    let label = text.strip_suffix(&suffix).unwrap_or(&text);
    label
        .parse()
        .map_err(|error: model::name::InvalidName| invalid(error.to_string()))
}

fn protocol_number(text: &str) -> Result<u8, Refusal> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(ip_protocol::TCP),
        "udp" => Ok(ip_protocol::UDP),
        "icmp" => Ok(ip_protocol::ICMP),
        other => Err(invalid(format!(
            "unknown protocol {other:?}: tcp, udp or icmp"
        ))),
    }
}

fn destination_port(
    question: &LocalWhyRequest,
    protocol: u8,
    service: Option<&Service>,
) -> Result<u16, Refusal> {
    if protocol == ip_protocol::ICMP {
        return Ok(0);
    }
    question
        .port
        .or(service.map(|service| service.port))
        .ok_or_else(|| invalid(format!("which port of {0}? Say {0}:PORT", question.to)))
}

fn protocol_note(service: Option<&Service>, protocol: u8) -> Option<String> {
    let service = service.filter(|service| service.protocol.ip_protocol() != protocol)?;
    let speaks = crate::denials::protocol_name(service.protocol.ip_protocol());
    Some(format!("service {} speaks {speaks}", service.name))
}

fn invalid(message: String) -> Refusal {
    Refusal::new(RefusalCode::Invalid, message)
}
