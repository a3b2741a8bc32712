//! Words of the language that this version does not enforce. They are refused by name: a rule
//! that is read and not enforced would be worse than none.

use super::reader::Section;
use crate::diagnostic::Complaint;

/// A word, what it is, and what it comes with.
type Word = (&'static str, &'static str, &'static str);

const LATER: &str = "a later version";

const TOP_LEVEL: &[Word] = &[
    ("limits", "sections are", LATER),
    ("routes", "sections are", LATER),
];

const SERVICE: &[Word] = &[
    ("balance", "settings are", LATER),
    ("mirror", "settings are", LATER),
    ("faults", "settings are", LATER),
    ("rate", "limits are", LATER),
    ("burst", "limits are", LATER),
    ("split", "settings are", LATER),
    ("concurrency", "settings are", LATER),
    ("priority", "settings are", LATER),
    ("throttle", "settings are", LATER),
    ("mode", "settings are", LATER),
    ("transport", "settings are", "the QUIC tunnel"),
];

const RULE: &[Word] = &[
    ("rate", "limits are", LATER),
    ("burst", "limits are", LATER),
    ("mode", "settings are", "observed rules"),
    ("timeout", "settings are", LATER),
    ("retry", "settings are", LATER),
    ("residency", "settings are", LATER),
    ("fallback", "settings are", LATER),
    ("mirror", "settings are", LATER),
    ("faults", "settings are", LATER),
    ("sticky", "settings are", LATER),
    ("split", "settings are", LATER),
    ("transport", "settings are", "the QUIC tunnel"),
];

/// Returns what to say of a key of a section that comes later.
pub(super) fn key(section: Section, word: &str) -> Option<Complaint> {
    let words = match section {
        Section::TopLevel => TOP_LEVEL,
        Section::Service => SERVICE,
        Section::Rule => RULE,
        _ => &[],
    };
    find(words, word)
}

fn find(words: &[Word], word: &str) -> Option<Complaint> {
    let (word, what, with) = words.iter().find(|(known, ..)| *known == word)?;
    let message = format!("`{word}` {what} not enforced by this version; they come with {with}");
    Some(Complaint::new(message).help("remove it for now: nothing is ignored silently"))
}
