//! One entry of `tests:`: what a bundle promises of itself, such as `{ deny: "web -> db:22" }`.

use std::collections::BTreeMap;

use model::name::RuleId;
use model::rule::{Protocol, Selector, Source};

use super::reader::{Fields, Section, text};
use super::suggest::nearest;
use super::{Services, later, ports, rule, selector};
use crate::diagnostic::{Complaint, Place, Report, quoted};
use crate::reference::Effect;
use crate::yaml::Node;

/// All rule ids of a bundle: where they stand, and what the rules do.
pub(super) type RuleIds = BTreeMap<RuleId, (Place, Effect)>;

/// A promise of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// As it was written: `allow web -> db:5432`.
    pub text: String,
    /// What has to come out.
    pub expect: Expectation,
    /// The rule that has to decide, if it matters.
    pub rule: Option<RuleId>,
    /// Who opens the connection.
    pub(crate) from: Selector,
    /// Who is reached.
    pub(crate) to: Selector,
    /// By what.
    pub(crate) asked: Asked,
    /// Where it was written.
    pub source: Source,
}

/// What has to come out of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// The flow is allowed.
    Allow,
    /// The flow is denied.
    Deny,
}

impl Expectation {
    /// Returns the word of the language.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// What a test is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The port of the service that is reached.
    ServicePort,
    /// A port; without a protocol: the service's, TCP at hosts.
    Port {
        /// As written after the `/`.
        protocol: Option<Protocol>,
        /// The destination port.
        port: u16,
    },
    /// A ping.
    Icmp,
}

const FORM: &str =
    "write `FROM -> SERVICE`, `FROM -> HOST:PORT`, `FROM -> HOST:PORT/udp` or `FROM -> HOST icmp`";

/// Reads a test.
pub(super) fn read(
    node: &Node,
    services: &Services,
    ids: &RuleIds,
    report: &mut Report<'_>,
) -> Option<Test> {
    let fields = Fields::read(node, Section::Test, report)?;
    let (expect, line) = match (fields.has("allow"), fields.has("deny")) {
        (true, false) => (Expectation::Allow, fields.optional("allow", report)?),
        (false, true) => (Expectation::Deny, fields.optional("deny", report)?),
        (false, false) if fields.is_misspelt("allow") || fields.is_misspelt("deny") => return None,
        _ => {
            let complaint = Complaint::new("a test has either `allow` or `deny`")
                .help("for example `{ deny: \"web -> db:22\" }`");
            report.error(node.place, complaint);
            return None;
        }
    };
    let written = text(line, "a test", report)?;
    let parsed = parse(written, services);
    let question = report.check(line.place, parsed);
    let rule = match fields.optional("rule", report) {
        Some(node) => Some(expected_rule(node, expect, ids, report)?),
        None => None,
    };
    let Question { from, to, asked } = question?;
    let text = format!("{} {written}", expect.as_str());
    Some(Test {
        text,
        expect,
        rule,
        from,
        to,
        asked,
        source: node.place.source(report.files()),
    })
}

fn expected_rule(
    node: &Node,
    expect: Expectation,
    ids: &RuleIds,
    report: &mut Report<'_>,
) -> Option<RuleId> {
    let id = rule::rule_id(node, report)?;
    let complaint = match (ids.get(&id), expect) {
        (Some((_, Effect::Allow)), Expectation::Allow)
        | (Some((_, Effect::Deny)), Expectation::Deny) => return Some(id),
        (Some(_), _) => {
            let (is, cannot) = match expect {
                Expectation::Allow => ("a deny", "an allow"),
                Expectation::Deny => ("an allow", "a deny"),
            };
            Complaint::new(format!(
                "the rule `{id}` is {is} and cannot decide {cannot}"
            ))
            .help("name the other rule, or leave `rule` out")
        }
        (None, _) => Complaint::new(format!("there is no rule `{id}` in this policy"))
            .suggest(nearest(id.as_str(), ids.keys().map(RuleId::as_str))),
    };
    report.error(node.place, complaint);
    None
}

struct Question {
    from: Selector,
    to: Selector,
    asked: Asked,
}

fn parse(written: &str, services: &Services) -> Result<Question, Complaint> {
    let Some((from, to)) = written.split_once("->") else {
        return Err(Complaint::new(format!("{} has no `->`", quoted(written))).help(FORM));
    };
    let from = selector::parse(from.trim(), services)?;
    let mut words = to.split_whitespace();
    let target = words.next().ok_or_else(|| {
        Complaint::new(format!("{} does not say who is reached", quoted(written))).help(FORM)
    })?;
    let (to, asked) = match (words.next(), words.next()) {
        (None, _) => parse_target(target, services)?,
        (Some("icmp"), None) => (selector::parse(target, services)?, Asked::Icmp),
        (Some(word), _) => {
            return Err(later::request(word).unwrap_or_else(|| {
                Complaint::new(format!(
                    "{} after {} is not understood",
                    quoted(word),
                    quoted(target)
                ))
                .help(FORM)
            }));
        }
    };
    Ok(Question { from, to, asked })
}

fn parse_target(target: &str, services: &Services) -> Result<(Selector, Asked), Complaint> {
    let (rest, protocol) = match target.rsplit_once('/') {
        Some((rest, "tcp")) => (rest, Some(Protocol::Tcp)),
        Some((rest, "udp")) => (rest, Some(Protocol::Udp)),
        _ => (target, None),
    };
    match rest.rsplit_once(':') {
        Some((selector, port)) if !is_kind(selector) => {
            let asked = Asked::Port {
                protocol,
                port: ports::parse(port)?,
            };
            Ok((selector::parse(selector, services)?, asked))
        }
        _ => match (selector::parse(rest, services)?, protocol) {
            (to @ Selector::Service(_), None) => Ok((to, Asked::ServicePort)),
            _ => Err(
                Complaint::new(format!("{} does not say which port", quoted(target))).help(
                    format!("write `{rest}:22`, `{rest}:53/udp` or `{rest} icmp`"),
                ),
            ),
        },
    }
}

/// Returns whether the word before a colon is a kind of selector, and what follows not a port.
fn is_kind(word: &str) -> bool {
    matches!(word, "host" | "service") || later::selector_kind(word).is_some()
}
