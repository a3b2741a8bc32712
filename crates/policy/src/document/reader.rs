//! Reading mappings, lists and words out of the tree, with complaints that say what was expected.

use super::later;
use super::suggest::nearest;
use crate::diagnostic::{Complaint, Place, Report, quoted};
use crate::yaml::{Entry, Node, Value};

/// The kinds of mapping in the language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    TopLevel,
    Workload,
    Service,
    Timeout,
    Retry,
    Breaker,
    Limits,
    Health,
    Fallback,
    Rule,
    Http,
    When,
    Test,
}

impl Section {
    /// Returns the keys that it has.
    pub(crate) const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::TopLevel => &[
                "fleet",
                "cipher",
                "workloads",
                "services",
                "allow",
                "deny",
                "tests",
            ],
            Self::Workload => &["unit", "user", "hosts"],
            Self::Service => &[
                "port",
                "protocol",
                "endpoints",
                "timeout",
                "retry",
                "sticky",
                "breaker",
                "limits",
                "health",
                "residency",
                "fallback",
            ],
            Self::Timeout => &["request", "per_try", "connect", "idle"],
            Self::Retry => &["attempts", "budget", "idempotent"],
            Self::Breaker => &["failures", "success_rate", "penalty", "ejected_max"],
            Self::Limits => &["in_flight", "waiting", "wait"],
            Self::Health => &["check", "interval", "timeout"],
            Self::Fallback => &["status", "type", "body"],
            Self::Rule => &["id", "from", "to", "tcp", "udp", "icmp", "http", "when"],
            Self::Http => &["methods", "path", "host", "headers"],
            Self::When => &["days", "time", "zone"],
            Self::Test => &["allow", "deny", "rule", "host", "headers", "at"],
        }
    }

    const fn called(self) -> &'static str {
        match self {
            Self::TopLevel => "a policy file",
            Self::Workload => "a workload",
            Self::Service => "a service",
            Self::Timeout => "`timeout`",
            Self::Retry => "`retry`",
            Self::Breaker => "`breaker`",
            Self::Limits => "`limits`",
            Self::Health => "`health`",
            Self::Fallback => "`fallback`",
            Self::Rule => "a rule",
            Self::Http => "an entry of `http`",
            Self::When => "`when`",
            Self::Test => "a test",
        }
    }

    const fn example(self) -> &'static str {
        match self {
            Self::TopLevel => "`fleet: prod`",
            Self::Service => "`db: { port: 5432, protocol: tcp, endpoints: [\"role=db\"] }`",
            Self::Workload => "`web: { unit: web.service, hosts: role=edge }`",
            Self::Timeout => "`{ request: 2s, per_try: auto }`",
            Self::Retry => "`{ attempts: 2, budget: 20% }`",
            Self::Breaker => "`{ failures: 5, success_rate: 80% }`",
            Self::Limits => "`{ in_flight: 1024, waiting: 256 }`",
            Self::Health => "`{ check: \"http /healthz\", interval: 10s }`",
            Self::Fallback => "`{ status: 503, body: \"back soon\" }`",
            Self::Http => "`{ methods: [GET], path: /v1/** }`",
            Self::When => "`{ days: mon-fri, time: \"08:00-18:00\", zone: Europe/Paris }`",
            Self::Rule => "`{ id: ops-ssh, from: role=bastion, to: any, tcp: [22] }`",
            Self::Test => "`{ deny: \"web -> db:22\" }`",
        }
    }
}

/// A mapping of a known kind: only keys that the section has.
pub(super) struct Fields<'n> {
    entries: Vec<&'n Entry>,
    /// What unknown keys were probably meant to be.
    slips: Vec<String>,
}

impl<'n> Fields<'n> {
    /// Reads a mapping and reports the keys that the section does not have.
    pub(super) fn read(node: &'n Node, section: Section, report: &mut Report<'_>) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            let message = format!(
                "{} is a mapping, not {}",
                section.called(),
                node.value.kind()
            );
            let help = format!("for example {}", section.example());
            report.error(node.place, Complaint::new(message).help(help));
            return None;
        };
        let (known, unknown): (Vec<_>, Vec<_>) = entries
            .iter()
            .partition(|entry| section.keys().contains(&&*entry.key));
        let mut slips = Vec::new();
        for entry in unknown {
            let meant = nearest(&entry.key, section.keys().iter().copied());
            report.error(
                entry.key_place,
                unknown_key(section, &entry.key, meant.as_deref()),
            );
            slips.extend(meant);
        }
        Some(Self {
            entries: known,
            slips,
        })
    }

    /// Returns the value of a key; a key without a value is reported.
    pub(super) fn optional(&self, key: &str, report: &mut Report<'_>) -> Option<&'n Node> {
        let entry = self.entries.iter().find(|entry| &*entry.key == key)?;
        if let Value::Null = entry.value.value {
            let complaint = Complaint::new(format!("`{key}` has no value"))
                .help("give it one, or remove the key");
            report.error(entry.key_place, complaint);
            return None;
        }
        Some(&entry.value)
    }

    /// Returns the value of a key; `complaint` is reported at `place` when there is none, unless
    /// it was only misspelt.
    pub(super) fn required(
        &self,
        key: &str,
        place: Place,
        report: &mut Report<'_>,
        complaint: impl FnOnce() -> Complaint,
    ) -> Option<&'n Node> {
        if !self.has(key) && !self.is_misspelt(key) {
            report.error(place, complaint());
        }
        self.optional(key, report)
    }

    /// Returns the value of a key as it stands there, also nothing.
    pub(super) fn node(&self, key: &str) -> Option<&'n Node> {
        let entry = self.entries.iter().find(|entry| &*entry.key == key)?;
        Some(&entry.value)
    }

    /// Returns whether an unknown key was probably meant to be this one.
    pub(super) fn is_misspelt(&self, key: &str) -> bool {
        self.slips.iter().any(|slip| slip == key)
    }

    /// Returns whether the key is there, with or without a value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| &*entry.key == key)
    }
}

/// Reads a key that may be absent. `None`: what stands there is wrong.
pub(super) fn present<'n, T>(
    fields: &Fields<'n>,
    key: &str,
    report: &mut Report<'_>,
    read: impl FnOnce(&'n Node, &mut Report<'_>) -> Option<T>,
) -> Option<Option<T>> {
    match (fields.optional(key, report), fields.has(key)) {
        (Some(node), _) => read(node, report).map(Some),
        (None, true) => None,
        (None, false) if fields.is_misspelt(key) => None,
        (None, false) => Some(None),
    }
}

fn unknown_key(section: Section, key: &str, meant: Option<&str>) -> Complaint {
    if let Some(complaint) = later::key(section, key) {
        return complaint;
    }
    if key == "<<" {
        return Complaint::new("merge keys (`<<`) are not allowed")
            .help("write the keys out, so that a reviewer sees them");
    }
    let complaint = Complaint::new(format!(
        "unknown key {} in {}",
        quoted(key),
        section.called()
    ));
    match meant {
        Some(meant) => complaint.suggest(Some(meant.to_owned())),
        None => complaint.help(format!(
            "{} has: {}",
            section.called(),
            section.keys().join(", ")
        )),
    }
}

/// Reads a single word or number as text.
pub(super) fn text<'n>(node: &'n Node, what: &str, report: &mut Report<'_>) -> Option<&'n str> {
    match &node.value {
        Value::Text { text, .. } => Some(text),
        other => {
            let message = format!("{what} is a single value, not {}", other.kind());
            report.error(node.place, Complaint::new(message));
            None
        }
    }
}

/// Reads a list, or a single value as a list of one; an empty one is reported, and one that is
/// longer than `length_max`.
pub(super) fn one_or_more<'n>(
    node: &'n Node,
    what: &str,
    length_max: usize,
    report: &mut Report<'_>,
) -> Option<&'n [Node]> {
    let Value::List(items) = &node.value else {
        return Some(std::slice::from_ref(node));
    };
    if items.is_empty() {
        let message = format!("{what} is an empty list");
        let help = "name at least one, or remove the whole entry";
        report.error(node.place, Complaint::new(message).help(help));
        return None;
    }
    if items.len() > length_max {
        let message = format!(
            "{what} has {} entries; at most {length_max} fit",
            items.len()
        );
        report.error(
            node.place,
            Complaint::new(message).help("use a label, or split the rule"),
        );
        return None;
    }
    Some(items)
}

/// Reads a list that may be empty.
pub(super) fn list<'n>(node: &'n Node, what: &str, report: &mut Report<'_>) -> &'n [Node] {
    match &node.value {
        Value::List(items) => items,
        other => {
            let message = format!("`{what}` is a list, not {}", other.kind());
            let help = "begin each entry on its own line with `- `";
            report.error(node.place, Complaint::new(message).help(help));
            &[]
        }
    }
}
