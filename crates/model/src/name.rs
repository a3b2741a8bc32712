//! Names that people give: of hosts and services, label keys and values, rules.

use std::fmt;
use std::str::FromStr;

use crate::limits::Limits;

/// A text that is not a valid name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {kind}: {why}")]
pub struct InvalidName {
    kind: &'static str,
    text: String,
    why: &'static str,
}

impl InvalidName {
    pub(crate) fn new(kind: &'static str, text: &str, why: &'static str) -> Self {
        Self {
            kind,
            text: text.chars().take(80).collect(),
            why,
        }
    }
}

/// Names that mean something else wherever a host or service could stand.
pub const RESERVED_NAMES: [&str; 4] = ["any", "localhost", "mesh", "self"];

macro_rules! text_name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:path, $pattern:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
        )]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "description": concat!("A ", $kind),
                    "pattern": $pattern,
                })
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.into()
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::name::InvalidName;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::name::InvalidName;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match $check(text) {
                    Ok(()) => Ok(Self(text.into())),
                    Err(why) => Err($crate::name::InvalidName::new($kind, text, why)),
                }
            }
        }
    };
}
pub(crate) use text_name;

text_name!(
    /// The name of a host or a service: one DNS label, lower case (RFC 1123 2.1).
    /// Hosts and services share one name space.
    Name, "name", check_dns_label, "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
);
text_name!(
    /// The key of a label, such as `role`.
    LabelKey, "label key", check_label_key, "^[A-Za-z0-9_./-]{1,63}$"
);
text_name!(
    /// The value of a label, such as `edge`.
    LabelValue, "label value", check_label_value, "^[A-Za-z0-9_.-]{1,63}$"
);
text_name!(
    /// The id of a rule, as its operator wrote it, such as `ops-ssh`.
    RuleId, "rule id", check_rule_id, "^[A-Za-z0-9_.-]{1,63}$"
);

/// Returns whether a text can follow all names of a fleet in DNS: one or more labels in lower case
/// (RFC 1123 2.1), without dots at the ends, short enough for a name before them.
pub fn is_dns_suffix(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    text.len() <= Limits::DNS_SUFFIX_CHARS && text.split('.').all(is_label)
}

fn check_dns_label(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > 63 {
        return Err("it is longer than 63 characters");
    }
    if !text
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    {
        return Err("only a-z, 0-9 and - may stand in it");
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err("it may not begin or end with -");
    }
    if RESERVED_NAMES.contains(&text) {
        return Err("this word is reserved");
    }
    Ok(())
}

fn check_label_key(text: &str) -> Result<(), &'static str> {
    check_word(text, b"-_./")
}

fn check_label_value(text: &str) -> Result<(), &'static str> {
    check_word(text, b"-_.")
}

fn check_rule_id(text: &str) -> Result<(), &'static str> {
    check_word(text, b"-_.")
}

fn check_word(text: &str, punctuation: &[u8]) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > 63 {
        return Err("it is longer than 63 characters");
    }
    if !text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || punctuation.contains(&b))
    {
        return Err("only letters, digits and - _ . may stand in it (in keys also /)");
    }
    Ok(())
}

/// One `key=value` of a host, set by an operator or a join token, never by the host itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    /// Left of the `=`.
    pub key: LabelKey,
    /// Right of the `=`.
    pub value: LabelValue,
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

impl FromStr for Label {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| InvalidName::new("label", text, "expected key=value"))?;
        Ok(Self {
            key: key.parse()?,
            value: value.parse()?,
        })
    }
}

/// The labels of one host, in the order of their keys, each key once.
pub type Labels = std::collections::BTreeMap<LabelKey, LabelValue>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "vm-17", "0", &"x".repeat(63)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a.b",
            "ä",
            "a_b",
            "any",
            &"x".repeat(64),
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_follows_names_is_lower_case_labels_with_room_before_them() {
        let longest = "a".repeat(63);
        for good in ["internal", "mesh.internal", "a-1.b", &longest] {
            assert!(is_dns_suffix(good), "{good}");
        }
        let long = ["a"; Limits::DNS_SUFFIX_CHARS].join(".");
        for bad in ["", ".", "a.", ".a", "a..b", "A", "a_b", "-a", "a-.b", &long] {
            assert!(!is_dns_suffix(bad), "{bad}");
        }
    }

    #[test]
    fn an_error_names_the_text_and_the_reason() {
        let error = "Web_1".parse::<Name>().unwrap_err().to_string();
        assert_eq!(
            error,
            "\"Web_1\" is not a valid name: only a-z, 0-9 and - may stand in it"
        );
    }

    #[test]
    fn labels_split_at_the_first_equals_sign() {
        assert_eq!(
            "role=edge".parse::<Label>().unwrap().to_string(),
            "role=edge"
        );
        assert!("role".parse::<Label>().is_err());
        assert!("role=a=b".parse::<Label>().is_err());
    }
}
