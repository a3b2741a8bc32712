//! Why a flow is allowed or denied: what the policy says, and what each end says that it enforces.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use model::admin::{Decision, EndAnswer, EndReport, WhyReport, WhyRequest};
use model::control::{Explanation, RefusalCode, ToHost};
use model::ids::HostId;
use model::name::Name;
use model::question::CallFacts;
use model::record::HostRecord;
use model::rule::{FlowQuery, Service, ip_protocol};
use model::time::{Instant, Now};

use crate::config::FleetLimits;
use crate::fleet::Fleet;
use crate::output::{Rejection, Reply};
use crate::state::Host;
use crate::work::{Origin, Plan};

/// How long the ends may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// A question that hosts have to be asked.
#[derive(Debug)]
pub(crate) struct Question {
    query: FlowQuery,
    facts: CallFacts,
    report: WhyReport,
}

/// The questions under way.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    last: u64,
    open: BTreeMap<u64, Asked>,
}

#[derive(Debug)]
struct Asked {
    origin: Origin,
    question: Question,
    deadline: Instant,
    source: Awaited,
    destination: Awaited,
}

/// What is known of one end's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    Pending,
    Done,
}

impl Questions {
    /// Returns when the first question is no longer waited for.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        // They wait equally long, so the first asked is the first due.
        self.open.first_key_value().map(|(_, asked)| asked.deadline)
    }
}

impl Asked {
    fn is_done(&self) -> bool {
        (self.source, self.destination) == (Awaited::Done, Awaited::Done)
    }

    /// Notes the answer of a host at the ends where it is awaited.
    fn note(&mut self, host: HostId, answer: &EndAnswer) {
        if self.question.query.from == host && self.source == Awaited::Pending {
            self.source = Awaited::Done;
            self.question.report.source = answer.clone();
        }
        if self.question.query.to == host && self.destination == Awaited::Pending {
            self.destination = Awaited::Done;
            self.question.report.destination = answer.clone();
        }
    }
}

impl Fleet {
    pub(crate) fn plan_why(&mut self, why: &WhyRequest, now: Now) -> Result<Plan, Rejection> {
        let from = self.named_or_at(&why.from)?;
        let bundle = &self.state.policy.bundle;
        let mut services = bundle.services.iter();
        let service = services.find(|it| it.name.as_str() == why.to);
        let protocol = match (&*why.protocol, service) {
            ("", Some(service)) => service.protocol.ip_protocol(),
            ("", None) => ip_protocol::TCP,
            (said, _) => parse_protocol(said)?,
        };
        let port = port_of(why, protocol, service)?;
        // Another port of its endpoints is no call of the service.
        let called = service
            .filter(|it| (it.protocol.ip_protocol(), it.port) == (protocol, port))
            .map(|service| service.name.clone());
        let facts = CallFacts {
            service: called.clone(),
            ..why.call.clone()
        };
        let endpoints = match service {
            Some(service) => self.endpoints_of(service, from)?,
            None => vec![&self.named_or_at(&why.to)?.record],
        };
        if endpoints[0].host == from.record.host {
            let text = format!("{} reaches itself without the mesh", from.record.name);
            return Err(Rejection::new(RefusalCode::Invalid, text));
        }
        let asked = policy::Asked {
            from: &from.record,
            to: endpoints[0],
            ip_protocol: protocol,
            port,
            facts: &facts,
            now: now.unix,
        };
        let (to, answer) = policy::why_at_any(bundle, &asked, &endpoints);
        let query = FlowQuery {
            from: from.record.host,
            to: to.host,
            ip_protocol: protocol,
            port,
        };
        let report = WhyReport {
            from: from.record.name.clone(),
            to: to.name.clone(),
            addresses: vec![to.addresses.v4.into(), to.addresses.v6.into()],
            protocol: protocol_name(protocol).to_owned(),
            port,
            service: called,
            policy: answer.decision(self.state.policy.version),
            source: EndAnswer::Silent,
            destination: EndAnswer::Silent,
        };
        Ok(Plan::Ask(Question {
            query,
            facts,
            report,
        }))
    }

    /// Finds a host by its name or by an overlay address of it.
    fn named_or_at(&self, text: &str) -> Result<&Host, Rejection> {
        let Ok(address) = text.parse::<IpAddr>() else {
            return Ok(self.state.known_host(&parse_name(text)?)?);
        };
        let mut hosts = self.state.hosts.values();
        hosts
            .find(|it| it.record.addresses.contains(address))
            .ok_or_else(|| {
                let text = format!("no host has the overlay address {address}");
                Rejection::new(RefusalCode::NotFound, text)
            })
    }

    /// Returns the other hosts that offer a service, at least one, those first that are there.
    fn endpoints_of(&self, service: &Service, from: &Host) -> Result<Vec<&HostRecord>, Rejection> {
        let mut endpoints: Vec<&HostRecord> = self
            .state
            .hosts
            .values()
            .map(|host| &host.record)
            .filter(|record| record.host != from.record.host)
            .filter(|record| service.endpoints.iter().any(|it| it.selects(record)))
            .collect();
        endpoints.sort_by_key(|it| (!self.sessions.is_online(it.host), &it.name));
        if endpoints.is_empty() {
            let text = format!("no other host is an endpoint of service {}", service.name);
            return Err(Rejection::new(RefusalCode::NotFound, text));
        }
        Ok(endpoints)
    }

    /// Asks both ends; those that are not there are answered for.
    pub(crate) fn ask(&mut self, origin: Origin, question: Question, now: Now) {
        if self.questions.open.len() >= FleetLimits::QUESTIONS_MAX {
            let text = "too many questions are under way; try again in a few seconds";
            return self
                .answer_question(origin, Err(Rejection::new(RefusalCode::Unavailable, text)));
        }
        self.questions.last += 1;
        let id = self.questions.last;
        let (query, facts) = (question.query, question.facts.clone());
        let mut asked = Asked {
            origin,
            question,
            deadline: now.monotonic + ANSWER_WITHIN,
            source: Awaited::Pending,
            destination: Awaited::Pending,
        };
        for host in [query.from, query.to] {
            match self.sessions.of_host(host) {
                Some(session) => {
                    let call = Some(Box::new(facts.clone()));
                    self.send(session, ToHost::Explain { id, query, call });
                }
                None => asked.note(host, &EndAnswer::Offline),
            }
        }
        self.questions.open.insert(id, asked);
        self.conclude_question(id);
    }

    pub(crate) fn hear_explanation(&mut self, host: HostId, said: Explanation, _now: Now) {
        let Some(asked) = self.questions.open.get_mut(&said.id) else {
            return;
        };
        let id = said.id;
        asked.note(host, &EndAnswer::Answered(Box::new(end_report(said))));
        self.conclude_question(id);
    }

    pub(crate) fn host_went_offline(&mut self, host: HostId, _now: Now) {
        let ids: Vec<u64> = self.questions.open.keys().copied().collect();
        for id in ids {
            if let Some(asked) = self.questions.open.get_mut(&id) {
                asked.note(host, &EndAnswer::Offline);
            }
            self.conclude_question(id);
        }
    }

    pub(crate) fn expire_questions(&mut self, now: Now) {
        while let Some(entry) = self.questions.open.first_entry() {
            if entry.get().deadline > now.monotonic {
                return;
            }
            let asked = entry.remove();
            self.answer_question(asked.origin, Ok(Reply::Why(asked.question.report)));
        }
    }

    fn conclude_question(&mut self, id: u64) {
        if self.questions.open.get(&id).is_some_and(Asked::is_done) {
            let asked = self
                .questions
                .open
                .remove(&id)
                .expect("it was open just now");
            self.answer_question(asked.origin, Ok(Reply::Why(asked.question.report)));
        }
    }

    fn answer_question(&mut self, origin: Origin, result: Result<Reply, Rejection>) {
        if let Origin::Request(request) = origin {
            self.reply(request, result);
        }
    }
}

fn end_report(said: Explanation) -> EndReport {
    EndReport {
        decision: Decision {
            allowed: said.allowed,
            verdict: said.verdict,
            depends_on: said.depends_on,
            rule: said.rule.map(|rule| rule.to_string()),
            rule_source: said.source.map(|source| source.to_string()),
            version: said.policy,
            notes: said.notes,
        },
        pair: said.pair,
    }
}

fn parse_name(text: &str) -> Result<Name, Rejection> {
    text.parse().map_err(|error: model::name::InvalidName| {
        Rejection::new(RefusalCode::Invalid, error.to_string())
    })
}

fn parse_protocol(text: &str) -> Result<u8, Rejection> {
    match text {
        "tcp" => Ok(ip_protocol::TCP),
        "udp" => Ok(ip_protocol::UDP),
        "icmp" => Ok(ip_protocol::ICMP),
        other => {
            let shown: String = other.chars().take(80).collect();
            let text = format!("{shown:?} is not a protocol that can be asked: tcp, udp or icmp");
            Err(Rejection::new(RefusalCode::Invalid, text))
        }
    }
}

const fn protocol_name(protocol: u8) -> &'static str {
    match protocol {
        ip_protocol::TCP => "tcp",
        ip_protocol::UDP => "udp",
        _ => "icmp",
    }
}

fn port_of(why: &WhyRequest, protocol: u8, service: Option<&Service>) -> Result<u16, Rejection> {
    if protocol == ip_protocol::ICMP {
        return Ok(0);
    }
    why.port
        .or(service.map(|it| it.port))
        .filter(|port| *port != 0)
        .ok_or_else(|| {
            let text = format!("say which port: {}:PORT", why.to);
            Rejection::new(RefusalCode::Invalid, text)
        })
}
