//! Calls of services that no host offers: there is nobody to decide about, and still the policy says who
//! may call them.

use model::name::Name;
use model::rule::{Rule, Selector, Service, Traffic, ip_protocol};

use super::Gate;
use crate::call::{Question, Target};
use crate::reference::call::{KnownCall, Matching};
use crate::reference::{Effect, Flow, service_named};

impl Gate {
    /// Returns whether a call of a service would be allowed at any host that offers it, whoever that
    /// were: by rules that name the service, everything, or what its endpoints are. Where the call goes
    /// makes no difference. Looks at all rules that this host knows, which takes longer than to decide.
    pub fn would_allow(&self, question: &Question<'_>) -> bool {
        let Target::Service(name) = question.target else {
            return false;
        };
        let service = service_named(&self.bundle, name, ip_protocol::TCP);
        let (Some(service), Some(from)) = (service, self.records.get(&question.from)) else {
            return false;
        };
        let believed = |name: &&Name| self.may_vouch(question.from, name);
        let call = KnownCall {
            flow: Flow {
                from,
                to: from,
                ip_protocol: ip_protocol::TCP,
                port: service.port,
                bundle: &self.bundle,
            },
            workload: question.workload.filter(believed),
            request: question.request,
            at: Some(question.at),
        };
        let matching = |rule: &Rule, effect| {
            let is_so = is_about(rule, service)
                && call.matches_when(rule, effect)
                && call.matches_http(rule, effect);
            match is_so {
                true => call.matches_from(rule, effect),
                false => Matching::No,
            }
        };
        let (mut denies, mut allows) = (self.bundle.deny.iter(), self.bundle.allow.iter());
        denies.all(|rule| matching(rule, Effect::Deny) == Matching::No)
            && allows.any(|rule| matching(rule, Effect::Allow) == Matching::Yes)
    }
}

/// Returns whether a rule is about the service at each host that may offer it.
fn is_about(rule: &Rule, service: &Service) -> bool {
    let is_port = match &rule.traffic {
        Traffic::All => true,
        Traffic::Ports { tcp, .. } => tcp.iter().any(|range| range.contains(service.port)),
        Traffic::Service => {
            let mut named = rule.to.iter();
            return named.any(|to| matches!(to, Selector::Service(name) if *name == service.name));
        }
    };
    let mut endpoints = service.endpoints.iter();
    let is_among = |endpoint: &Selector| rule.to.iter().any(|to| holds(to, endpoint));
    is_port
        && (rule.to.contains(&Selector::Any)
            || !service.endpoints.is_empty() && endpoints.all(is_among))
}

/// Returns whether all hosts of one selector are of another.
fn holds(wide: &Selector, narrow: &Selector) -> bool {
    match (wide, narrow) {
        (Selector::Any, _) => true,
        (Selector::Labels(wide), Selector::Labels(narrow)) => {
            wide.iter().all(|label| narrow.contains(label))
        }
        (wide, narrow) => wide == narrow,
    }
}
