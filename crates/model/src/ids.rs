//! Identifiers: of fleets, hosts, tokens, revisions. Fixed sizes, shown as lower-case hex.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER_PERMISSIVE;
use serde::{Deserialize, Serialize};

/// A text or byte string that is not an identifier of the expected kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {kind}: expected {bytes} bytes as {digits} hexadecimal digits")]
pub struct InvalidId {
    kind: &'static str,
    bytes: usize,
    digits: usize,
    text: String,
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Wraps the bytes.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// Returns the bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "description": concat!("A ", $kind, ", in hexadecimal digits"),
                    "pattern": format!("^[0-9a-fA-F]{{{}}}$", 2 * $len),
                })
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = InvalidId;

            fn try_from(bytes: &[u8]) -> Result<Self, InvalidId> {
                bytes.try_into().map(Self).map_err(|_| InvalidId {
                    kind: $kind,
                    bytes: $len,
                    digits: 2 * $len,
                    text: format!("<{} bytes>", bytes.len()),
                })
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                HEXLOWER_PERMISSIVE
                    .decode(text.as_bytes())
                    .ok()
                    .and_then(|bytes| bytes.try_into().ok())
                    .map(Self)
                    .ok_or_else(|| InvalidId {
                        kind: $kind,
                        bytes: $len,
                        digits: 2 * $len,
                        text: text.chars().take(80).collect(),
                    })
            }
        }
    };
}

byte_id!(
    /// Names a fleet for ever: the first 16 bytes of the SHA-256 of its first root certificate.
    FleetId, 16, "fleet id"
);
byte_id!(
    /// Names a host for ever, also when it is renamed. Random, made by the coordinator.
    HostId, 16, "host id"
);
byte_id!(
    /// Names a join token; not secret.
    TokenId, 8, "token id"
);
byte_id!(
    /// A SHA-256 digest.
    Digest, 32, "SHA-256 digest"
);
byte_id!(
    /// Names a signing key: the first 16 bytes of the SHA-256 of the public key.
    KeyId, 16, "key id"
);

/// The version of what a host knows. A later one always compares greater; it never goes back.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
pub struct Revision {
    /// Raised when a coordinator is restored from a backup.
    pub epoch: u64,
    /// Raised with every change of the fleet.
    pub counter: u64,
}

impl Revision {
    /// Returns the revision `counter` of `epoch`.
    pub const fn new(epoch: u64, counter: u64) -> Self {
        Self { epoch, counter }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.counter)
    }
}

/// A version of the fleet's policy, from 1, never reused.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(transparent)]
pub struct PolicyVersion(pub u64);

impl fmt::Display for PolicyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_text() {
        let id = HostId::from_bytes([0xab; 16]);
        assert_eq!(id.to_string().parse::<HostId>(), Ok(id));
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{id}\""));
    }

    #[test]
    fn a_wrong_length_says_what_was_expected() {
        let error = "abcd".parse::<HostId>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"abcd\" is not a host id: expected 16 bytes as 32 hexadecimal digits"
        );
    }

    #[test]
    fn a_restored_epoch_beats_every_counter() {
        assert!(Revision::new(2, 0) > Revision::new(1, u64::MAX));
    }
}
