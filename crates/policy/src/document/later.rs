//! Words of the language that this version does not enforce. They are refused by name: a rule
//! that is read and not enforced would be worse than none.

use super::reader::Section;
use crate::diagnostic::{Complaint, quoted};

/// A word, what it is, and what it comes with.
type Word = (&'static str, &'static str, &'static str);

const L7_PROXY: &str = "the L7 proxy";
const WORKLOADS: &str = "workload identities";

const TOP_LEVEL: &[Word] = &[
    ("workloads", "sections are", WORKLOADS),
    ("limits", "sections are", L7_PROXY),
    ("routes", "sections are", L7_PROXY),
];

const SERVICE: &[Word] = &[
    ("timeout", "settings are", L7_PROXY),
    ("retry", "settings are", L7_PROXY),
    ("balance", "settings are", L7_PROXY),
    ("breaker", "settings are", L7_PROXY),
    ("fallback", "settings are", L7_PROXY),
    ("mirror", "settings are", L7_PROXY),
    ("faults", "settings are", L7_PROXY),
    ("rate", "limits are", L7_PROXY),
    ("sticky", "settings are", L7_PROXY),
    ("split", "settings are", L7_PROXY),
    ("residency", "settings are", "residency of services"),
    ("health", "checks are", "health checks of services"),
    ("mode", "settings are", L7_PROXY),
    ("unit", "endpoints are", WORKLOADS),
    ("user", "endpoints are", WORKLOADS),
    ("transport", "settings are", "the QUIC tunnel"),
];

const RULE: &[Word] = &[
    ("http", "rules are", L7_PROXY),
    ("grpc", "rules are", L7_PROXY),
    ("when", "conditions are", "a later version"),
    ("rate", "limits are", L7_PROXY),
    ("burst", "limits are", L7_PROXY),
    ("mode", "settings are", "observed rules"),
    ("unit", "rules are", WORKLOADS),
    ("user", "rules are", WORKLOADS),
    ("timeout", "settings are", L7_PROXY),
    ("retry", "settings are", L7_PROXY),
    ("residency", "settings are", "residency of services"),
    ("fallback", "settings are", L7_PROXY),
    ("mirror", "settings are", L7_PROXY),
    ("faults", "settings are", L7_PROXY),
    ("sticky", "settings are", L7_PROXY),
    ("split", "settings are", L7_PROXY),
    ("transport", "settings are", "the QUIC tunnel"),
];

const PROTOCOLS: &[Word] = &[
    ("http", "services are", L7_PROXY),
    ("grpc", "services are", L7_PROXY),
    ("auto", "services are", L7_PROXY),
];

const SELECTORS: &[Word] = &[
    ("unit", "selectors are", WORKLOADS),
    ("user", "selectors are", WORKLOADS),
    ("workload", "selectors are", WORKLOADS),
];

/// Returns what to say of a key of a section that comes later.
pub(super) fn key(section: Section, word: &str) -> Option<Complaint> {
    let words = match section {
        Section::TopLevel => TOP_LEVEL,
        Section::Service => SERVICE,
        Section::Rule => RULE,
        Section::Test => &[],
    };
    find(words, word)
}

/// Returns what to say of a protocol that comes later.
pub(super) fn protocol(word: &str) -> Option<Complaint> {
    find(PROTOCOLS, word)
}

/// Returns what to say of a kind of selector that comes later, as in `unit:web.service`.
pub(super) fn selector_kind(word: &str) -> Option<Complaint> {
    find(SELECTORS, word)
}

/// Returns what to say of a test of a request, as in `web -> orders GET /v1/items`.
pub(super) fn request(method: &str) -> Option<Complaint> {
    let is_method = method.len() >= 3 && method.bytes().all(|byte| byte.is_ascii_uppercase());
    is_method.then(|| {
        let message = format!(
            "requests such as {} are not decided by this version; they come with {L7_PROXY}",
            quoted(method)
        );
        Complaint::new(message).help("test the connection: `web -> orders`")
    })
}

fn find(words: &[Word], word: &str) -> Option<Complaint> {
    let (word, what, with) = words.iter().find(|(known, ..)| *known == word)?;
    let verb = if what.starts_with("services") {
        "offered"
    } else {
        "enforced"
    };
    let message = format!("`{word}` {what} not {verb} by this version; they come with {with}");
    Some(Complaint::new(message).help("remove it for now: nothing is ignored silently"))
}
