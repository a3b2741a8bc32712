//! One entry of `tests:`: what a bundle promises of itself, such as `{ deny: "web -> db:22" }`.

use std::collections::BTreeMap;

use model::name::RuleId;
use model::rule::{HeaderMatch, HeaderValue, PathPattern, Protocol, Selector, Source};
use model::time::UnixTime;

use super::reader::{Fields, Section, present, text};
use super::selector::Position;
use super::suggest::nearest;
use super::{Nouns, http, ports, rule, selector};
use crate::diagnostic::{Complaint, Place, Report, quoted};
use crate::reference::Effect;
use crate::window;
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
    /// Which request is sent.
    pub(crate) request: Option<AskedRequest>,
    /// When.
    pub(crate) at: Option<UnixTime>,
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

/// A request that a test is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AskedRequest {
    pub(crate) method: String,
    pub(crate) path: String,
    /// `None`: what is called is called by its name.
    pub(crate) host: Option<String>,
    /// Names in lower case, with values.
    pub(crate) headers: Vec<(String, String)>,
}

const FORM: &str = "write `FROM -> SERVICE`, `FROM -> SERVICE GET /path`, `FROM -> HOST:PORT`, \
                    `FROM -> HOST:PORT/udp` or `FROM -> HOST icmp`";

/// Reads a test.
pub(super) fn read(
    node: &Node,
    nouns: &Nouns,
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
    let parsed = parse(written, nouns);
    let question = report.check(line.place, parsed);
    let rule = match fields.optional("rule", report) {
        Some(node) => Some(expected_rule(node, expect, ids, report)?),
        None => None,
    };
    let headers = present(&fields, "headers", report, headers);
    let host = present(&fields, "host", report, |node, report| {
        text(node, "`host`", report).map(str::to_owned)
    });
    let at = present(&fields, "at", report, |node, report| {
        let written = text(node, "`at`", report)?;
        report.check(node.place, moment(written))
    });
    let Question {
        from,
        to,
        asked,
        mut request,
    } = question?;
    let (headers, host) = (headers?, host?);
    match &mut request {
        Some(request) => {
            request.headers = headers.unwrap_or_default();
            request.host = host;
        }
        None if headers.is_some() || host.is_some() => {
            let complaint =
                Complaint::new("`host` and `headers` are of a request, and there is none")
                    .help("say which: `web -> orders GET /v1/items`");
            report.error(line.place, complaint);
            return None;
        }
        None => {}
    }
    let text = format!("{} {written}", expect.as_str());
    Some(Test {
        text,
        expect,
        rule,
        from,
        to,
        asked,
        request,
        at: at?,
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
    request: Option<AskedRequest>,
}

fn parse(written: &str, nouns: &Nouns) -> Result<Question, Complaint> {
    let Some((from, to)) = written.split_once("->") else {
        return Err(Complaint::new(format!("{} has no `->`", quoted(written))).help(FORM));
    };
    let from = selector::parse(from.trim(), Position::From, nouns)?;
    let mut words = to.split_whitespace();
    let target = words.next().ok_or_else(|| {
        Complaint::new(format!("{} does not say who is reached", quoted(written))).help(FORM)
    })?;
    let (mut request, rest) = (None, [words.next(), words.next(), words.next()]);
    let (to, asked) = match rest {
        [None, ..] => parse_target(target, nouns)?,
        [Some("icmp"), None, _] => (selector::parse(target, Position::To, nouns)?, Asked::Icmp),
        [Some(method), Some(path), None] if path.starts_with('/') => {
            request = Some(parse_request(method, path)?);
            parse_target(target, nouns)?
        }
        [Some(word), ..] => {
            let (word, target) = (quoted(word), quoted(target));
            let complaint = Complaint::new(format!("{word} after {target} is not understood"));
            return Err(complaint.help(FORM));
        }
    };
    let is_tcp = !matches!(
        asked,
        Asked::Icmp
            | Asked::Port {
                protocol: Some(Protocol::Udp),
                ..
            }
    );
    if request.is_some() && !is_tcp {
        let complaint = Complaint::new("a request goes over TCP");
        return Err(complaint.help("leave `/udp` out"));
    }
    Ok(Question {
        from,
        to,
        asked,
        request,
    })
}

fn parse_request(method: &str, path: &str) -> Result<AskedRequest, Complaint> {
    let method = http::method(method)?;
    let (path, _) = path.split_once('?').unwrap_or((path, ""));
    let is_one = !path.contains('*');
    let parsed: Result<PathPattern, _> = path.parse();
    match parsed {
        Ok(path) if is_one => Ok(AskedRequest {
            method: method.as_str().to_owned(),
            path: path.as_str().to_owned(),
            host: None,
            headers: Vec::new(),
        }),
        Ok(_) => Err(Complaint::new(
            "a test sends one request: its path has no `*`",
        )),
        Err(error) => Err(Complaint::new(error.to_string())),
    }
}

fn headers(node: &Node, report: &mut Report<'_>) -> Option<Vec<(String, String)>> {
    let read = http::headers(node, report)?;
    let sent = read
        .into_iter()
        .map(|HeaderMatch { name, value }| match value {
            HeaderValue::Exact(value) => Some((name.to_string(), value.to_string())),
            HeaderValue::Present | HeaderValue::Prefix(_) => None,
        });
    let sent: Option<Vec<_>> = sent.collect();
    if sent.is_none() {
        let complaint = Complaint::new("a test sends one request: its headers have no `*`");
        report.error(node.place, complaint);
    }
    sent
}

fn moment(written: &str) -> Result<UnixTime, Complaint> {
    window::moment(written).ok_or_else(|| {
        Complaint::new(format!("{} is not a moment", quoted(written)))
            .help("write `at: \"2026-11-23 23:30 Europe/Paris\"`")
    })
}

fn parse_target(target: &str, nouns: &Nouns) -> Result<(Selector, Asked), Complaint> {
    let (rest, protocol) = match target.rsplit_once('/') {
        Some((rest, "tcp")) => (rest, Some(Protocol::Tcp)),
        Some((rest, "udp")) => (rest, Some(Protocol::Udp)),
        _ => (target, None),
    };
    match rest.rsplit_once(':') {
        Some((selector, port)) if !selector::is_kind(selector) => {
            let asked = Asked::Port {
                protocol,
                port: ports::parse(port)?,
            };
            Ok((selector::parse(selector, Position::To, nouns)?, asked))
        }
        _ => match (selector::parse(rest, Position::To, nouns)?, protocol) {
            (to @ Selector::Service(_), None) => Ok((to, Asked::ServicePort)),
            _ => Err(
                Complaint::new(format!("{} does not say which port", quoted(target))).help(
                    format!("write `{rest}:22`, `{rest}:53/udp` or `{rest} icmp`"),
                ),
            ),
        },
    }
}
