//! One entry of `allow:` or `deny:`.

use model::name::RuleId;
use model::rule::{Rule, Selector, Service, Traffic};

use super::reader::{Fields, Section, present, text};
use super::selector::{self, Placed, Position};
use super::{Names, Nouns, http, ports, when};
use crate::diagnostic::{Complaint, Place, Report, quoted};
use crate::reference::Effect;
use crate::yaml::{Node, Value};

mod enforceable;

/// A rule and where its id stands.
pub(super) struct PlacedRule {
    pub(super) rule: Rule,
    pub(super) id_place: Place,
}

/// Reads a rule.
pub(super) fn read(
    node: &Node,
    effect: Effect,
    nouns: &Nouns,
    services: &[Service],
    names: &mut Names,
    report: &mut Report<'_>,
) -> Option<PlacedRule> {
    let fields = Fields::read(node, Section::Rule, report)?;
    let id_node = fields.required("id", node.place, report, || {
        Complaint::new("this rule has no `id`")
            .help("every denial names its rule: give it a short unique name, such as `id: ops-ssh`")
    });
    let id = id_node.and_then(|node| rule_id(node, report));
    let mut selectors = |key: &str, position, example: &str, report: &mut Report<'_>| {
        let missing = || Complaint::new(format!("this rule has no `{key}`")).help(example);
        let node = fields.required(key, node.place, report, missing)?;
        selector::read(node, &format!("`{key}`"), position, nouns, names, report)
    };
    let from = selectors(
        "from",
        Position::From,
        "say who opens the connection: `from: role=edge`",
        report,
    );
    let to = selectors(
        "to",
        Position::To,
        "say who is reached: `to: role=db`",
        report,
    );
    let traffic = to
        .as_ref()
        .and_then(|to| traffic(node, &fields, to, effect, report));
    let http = present(&fields, "http", report, http::read);
    let when = present(&fields, "when", report, when::read);
    let rule = Rule {
        id: id?,
        from: without_places(from?),
        to: without_places(to?),
        traffic: traffic?,
        http: http?.unwrap_or_default(),
        when: when?,
        source: node.place.source(report.files()),
    };
    enforceable::check(&rule, node.place, &fields, effect, services, report).then_some(())?;
    Some(PlacedRule {
        rule,
        id_place: id_node?.place,
    })
}

/// Reads the id of a rule.
pub(super) fn rule_id(node: &Node, report: &mut Report<'_>) -> Option<RuleId> {
    let written = text(node, "the id of a rule", report)?;
    let parsed = written
        .parse()
        .map_err(|error| Complaint::new(format!("{error}")));
    report.check(node.place, parsed)
}

fn without_places(placed: Vec<Placed>) -> Vec<Selector> {
    placed.into_iter().map(|placed| placed.selector).collect()
}

const PORT_KEYS: [&str; 3] = ["tcp", "udp", "icmp"];

fn traffic(
    node: &Node,
    fields: &Fields<'_>,
    to: &[Placed],
    effect: Effect,
    report: &mut Report<'_>,
) -> Option<Traffic> {
    let is_service = |placed: &&Placed| matches!(placed.selector, Selector::Service(_));
    let service = to.iter().find(is_service);
    let other = to.iter().find(|placed| !is_service(placed));
    match (service, other) {
        (Some(service), Some(other)) => {
            report.error(other.place, mixed(service, other));
            None
        }
        (Some(service), None) => service_traffic(service, fields, report),
        (None, _) => host_traffic(node, fields, effect, report),
    }
}

fn mixed(service: &Placed, other: &Placed) -> Complaint {
    let (service, other) = (&service.selector, &other.selector);
    Complaint::new(format!("`to` mixes the service `{service}` with `{other}`")).help(
        "make two rules: one to services, which bring their ports, and one to hosts with ports",
    )
}

fn service_traffic(
    service: &Placed,
    fields: &Fields<'_>,
    report: &mut Report<'_>,
) -> Option<Traffic> {
    let mut is_right = true;
    for key in PORT_KEYS {
        if let Some(value) = fields.optional(key, report) {
            let service = &service.selector;
            let message =
                format!("a rule to the service `{service}` takes its port from the service");
            let help = format!("remove `{key}`, or name the hosts instead of the service");
            report.error(value.place, Complaint::new(message).help(help));
        }
        is_right &= !fields.has(key);
    }
    is_right.then_some(Traffic::Service)
}

fn host_traffic(
    node: &Node,
    fields: &Fields<'_>,
    effect: Effect,
    report: &mut Report<'_>,
) -> Option<Traffic> {
    if !PORT_KEYS.iter().any(|key| fields.has(key)) {
        return match effect {
            // The slip is reported; the deny is not to become a wider one by it.
            _ if PORT_KEYS.iter().any(|key| fields.is_misspelt(key)) => None,
            Effect::Deny => Some(Traffic::All),
            Effect::Allow => {
                let complaint = Complaint::new("this rule does not say what it allows")
                    .help("add `tcp: [22]`, `tcp: any`, `udp: …` or `icmp: true`");
                report.error(node.place, complaint);
                None
            }
        };
    }
    let mut ranges = |key: &str| match (fields.has(key), fields.optional(key, report)) {
        (true, value) => ports::ranges(value?, key, report),
        (false, _) => Some(Vec::new()),
    };
    let (tcp, udp) = (ranges("tcp"), ranges("udp"));
    let icmp = match (fields.has("icmp"), fields.optional("icmp", report)) {
        (true, value) => value.and_then(|value| truth(value, "icmp", report)),
        (false, _) => Some(false),
    };
    let (tcp, udp, icmp) = (tcp?, udp?, icmp?);
    if tcp.is_empty() && udp.is_empty() && !icmp {
        let complaint =
            Complaint::new("this rule is about no packet: `icmp` is false and there are no ports")
                .help("remove the rule, or say `icmp: true`");
        report.error(node.place, complaint);
        return None;
    }
    Some(Traffic::Ports { tcp, udp, icmp })
}

pub(super) fn truth(node: &Node, key: &str, report: &mut Report<'_>) -> Option<bool> {
    match &node.value {
        Value::Text {
            text,
            quoted: false,
        } if &**text == "true" => Some(true),
        Value::Text {
            text,
            quoted: false,
        } if &**text == "false" => Some(false),
        other => {
            let given = match other {
                Value::Text { text, .. } => quoted(text),
                other => other.kind().to_owned(),
            };
            let message = format!("`{key}` is `true` or `false`, not {given}");
            report.error(
                node.place,
                Complaint::new(message).help(format!("write `{key}: true`")),
            );
            None
        }
    }
}
