//! SPIFFE ids: what a host or coordinator proves to be.

use std::fmt;
use std::str::FromStr;

use crate::name::Name;

/// A SPIFFE id of a fleet's member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SpiffeId {
    /// `spiffe://FLEET/host/NAME`
    Host {
        /// The trust domain.
        fleet: Name,
        /// The host's name.
        host: Name,
    },
    /// `spiffe://FLEET/coordinator/NAME`
    Coordinator {
        /// The trust domain.
        fleet: Name,
        /// The coordinator's name.
        coordinator: Name,
    },
}

impl SpiffeId {
    /// Returns the trust domain.
    pub fn fleet(&self) -> &Name {
        match self {
            Self::Host { fleet, .. } | Self::Coordinator { fleet, .. } => fleet,
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { fleet, host } => write!(f, "spiffe://{fleet}/host/{host}"),
            Self::Coordinator { fleet, coordinator } => {
                write!(f, "spiffe://{fleet}/coordinator/{coordinator}")
            }
        }
    }
}

/// A text that is not a SPIFFE id of the kinds that the mesh issues.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an identity of this mesh: expected spiffe://FLEET/host/NAME or spiffe://FLEET/coordinator/NAME"
)]
pub struct InvalidSpiffeId(String);

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    fn from_str(text: &str) -> Result<Self, InvalidSpiffeId> {
        parse(text).ok_or_else(|| InvalidSpiffeId(text.chars().take(200).collect()))
    }
}

fn parse(text: &str) -> Option<SpiffeId> {
    let mut parts = text.strip_prefix("spiffe://")?.split('/');
    let fleet = parts.next()?.parse().ok()?;
    let (kind, name) = (parts.next()?, parts.next()?.parse().ok()?);
    match (kind, parts.next()) {
        ("host", None) => Some(SpiffeId::Host { fleet, host: name }),
        ("coordinator", None) => Some(SpiffeId::Coordinator {
            fleet,
            coordinator: name,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_text() {
        for text in ["spiffe://prod/host/vm-1", "spiffe://prod/coordinator/c1"] {
            assert_eq!(text.parse::<SpiffeId>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_shapes_are_refused() {
        for text in [
            "",
            "spiffe://prod",
            "spiffe://prod/host",
            "spiffe://prod/host/a/b",
            "https://prod/host/a",
            "spiffe://prod/admin/a",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
    }
}
