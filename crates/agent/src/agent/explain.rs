//! Why this host allows or denies a flow of its own: asked by an operator here, or by one at the
//! coordinator. The answer is what is in force, not what is on its way.

use std::net::IpAddr;

use model::control::{Explanation, Refusal, RefusalCode};
use model::local::{LocalWhyReport, LocalWhyRequest};
use model::name::Name;
use model::pair::PairFacts;
use model::question::{CallFacts, Verdict};
use model::record::HostRecord;
use model::rule::{FlowQuery, Service, ip_protocol};
use model::time::Now;
use policy::{Asked, why, why_at_any};

use super::Agent;
use crate::enrolment::Enrolment;
use crate::map::Map;
use crate::output::Output;

/// One end of a question: a host, or those that offer the service by which they were named.
struct End<'m> {
    /// At least one.
    hosts: Vec<&'m HostRecord>,
    service: Option<&'m Service>,
}

impl<'m> End<'m> {
    fn of(host: &'m HostRecord) -> Self {
        Self {
            hosts: vec![host],
            service: None,
        }
    }
}

impl Agent {
    pub(super) fn explain_locally(
        &self,
        question: &LocalWhyRequest,
        now: Now,
    ) -> Result<LocalWhyReport, Refusal> {
        let map = self.map_or_refusal()?;
        let from = self.end(map, &question.from, None)?;
        let to = self.end(map, &question.to, Some(from.hosts[0]))?;
        let (source, me) = (from.hosts[0], map.me());
        let is_here = |host: &HostRecord| host.host == me.host;
        if is_here(source) == is_here(to.hosts[0]) {
            return Err(invalid(format!(
                "one of the two ends must be this host, {}, and the other one must not; ask the \
                 coordinator about others",
                me.name
            )));
        }
        let protocol = match (&*question.protocol, to.service) {
            ("", Some(service)) => service.protocol.ip_protocol(),
            ("", None) => ip_protocol::TCP,
            (said, _) => protocol_number(said)?,
        };
        let port = destination_port(question, protocol, to.service)?;
        // Another port of its endpoints is no call of the service.
        let is_called = |it: &&Service| (it.protocol.ip_protocol(), it.port) == (protocol, port);
        let called = to.service.filter(is_called).map(|it| it.name.clone());
        let facts = CallFacts {
            service: called.clone(),
            ..question.call.clone()
        };
        let asked = Asked {
            from: source,
            to: to.hosts[0],
            ip_protocol: protocol,
            port,
            facts: &facts,
            now: now.unix,
        };
        // What comes in comes here.
        let endpoints = match is_here(to.hosts[0]) {
            true => &to.hosts[..1],
            false => &to.hosts[..],
        };
        let (reached, mut answer) = why_at_any(map.bundle(), &asked, endpoints);
        answer.notes.extend(protocol_note(to.service, protocol));
        let peer = if is_here(source) { reached } else { source };
        Ok(LocalWhyReport {
            from: source.name.clone(),
            to: reached.name.clone(),
            protocol: crate::denials::protocol_name(protocol),
            port,
            service: called,
            inbound: is_here(reached),
            decision: answer.decision(map.policy_version()),
            pair: self.pair_facts(peer, now),
        })
    }

    /// Answers a coordinator; a flow that is not this host's is denied, and the note says why.
    pub(super) fn answer_coordinator(
        &mut self,
        id: u64,
        query: FlowQuery,
        call: Option<&CallFacts>,
        now: Now,
    ) {
        let explanation = self.explain_for_coordinator(id, query, call, now);
        let is_here = self
            .staging
            .in_force()
            .is_some_and(|map| map.me().host == query.to);
        let verdict = match explanation.allowed {
            true => Some(Verdict::Allowed),
            false => explanation.verdict,
        };
        // What is denied tells nobody whether anything listens behind it.
        let may_pass = verdict.is_some_and(|verdict| verdict != Verdict::Denied);
        let listener_at = (is_here && may_pass).then_some(query);
        self.out.push(Output::Explain {
            explanation,
            listener_at,
        });
    }

    fn explain_for_coordinator(
        &self,
        id: u64,
        query: FlowQuery,
        call: Option<&CallFacts>,
        now: Now,
    ) -> Explanation {
        let mut explanation = Explanation {
            id,
            policy: Default::default(),
            allowed: false,
            verdict: Some(Verdict::Denied),
            depends_on: Vec::new(),
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
        // An older coordinator says nothing of the call.
        let nothing = CallFacts::default();
        let asked = Asked {
            from,
            to,
            ip_protocol: query.ip_protocol,
            port: query.port,
            facts: call.unwrap_or(&nothing),
            now: now.unix,
        };
        let answer = why(map.bundle(), &asked);
        explanation.allowed = answer.verdict == Verdict::Allowed;
        explanation.verdict = Some(answer.verdict);
        explanation.depends_on = answer.depends_on;
        (explanation.rule, explanation.source) = match answer.rule {
            Some(rule) => (Some(rule.id), Some(rule.source)),
            None => (None, None),
        };
        explanation.notes = answer.notes;
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

    /// Finds who a name means. A service means the endpoints that are not the other end, this host first
    /// when it is one.
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
                return endpoints_of(service, map, other);
            }
            let host = host_at(map, address).ok_or_else(|| {
                let text = format!(
                    "no host that this one knows has the overlay address {address}; it knows those \
                     that its rules concern, see `meshctl peers`"
                );
                Refusal::new(RefusalCode::NotFound, text)
            })?;
            return Ok(End::of(host));
        }
        let name = name_in(map, text)?;
        if let Some(host) = map.host_named(&name) {
            return Ok(End::of(host));
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
        endpoints_of(service, map, other)
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

fn endpoints_of<'m>(
    service: &'m Service,
    map: &'m Map,
    other: Option<&HostRecord>,
) -> Result<End<'m>, Refusal> {
    let is_endpoint = |host: &&HostRecord| {
        let mut endpoints = service.endpoints.iter();
        other.is_none_or(|other| other.host != host.host) && endpoints.any(|it| it.selects(host))
    };
    let hosts: Vec<&HostRecord> = map.hosts().filter(is_endpoint).collect();
    if hosts.is_empty() {
        let name = &service.name;
        return Err(Refusal::new(
            RefusalCode::NotFound,
            format!("no host that this one knows is an endpoint of service {name}"),
        ));
    }
    Ok(End {
        hosts,
        service: Some(service),
    })
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
