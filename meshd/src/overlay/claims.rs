//! What the daemon is about to own on this host, on disk before it does, so that the next daemon can
//! take back what one that died has left, also under other settings.

use model::address::OverlayPrefixes;
use runtime::state_dir::{StateDir, StateError};
use serde::{Deserialize, Serialize};

use crate::linux::interface::InterfaceSettings;

/// The file in the state directory.
const FILE: &str = "owned.json";

/// The names under which the daemon owns things in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claims {
    /// The TUN device.
    pub(super) interface: String,
    /// The nftables table, family inet.
    pub(super) nft_table: String,
    /// The prefixes that are routed.
    pub(super) prefixes: OverlayPrefixes,
}

impl Claims {
    /// Returns what an overlay with these settings takes.
    pub(super) fn of(settings: &InterfaceSettings, prefixes: OverlayPrefixes) -> Self {
        Self {
            interface: settings.name.clone(),
            nft_table: settings.table.clone(),
            prefixes,
        }
    }

    /// Reads what an earlier daemon claimed and never gave back. A file that makes no sense is as
    /// good as none: it is told, and replaced by the next claim.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub(super) fn load(state: &StateDir) -> Result<Option<Self>, StateError> {
        let Some(text) = state.read(FILE)? else {
            return Ok(None);
        };
        let claims = serde_json::from_slice(&text);
        Ok(claims
            .inspect_err(|error| tracing::warn!(%error, "{FILE} makes no sense and is not used"))
            .ok())
    }

    /// Writes it down.
    ///
    /// # Errors
    /// The file system refuses.
    pub(super) fn store(&self, state: &StateDir) -> Result<(), StateError> {
        let text = serde_json::to_vec(self).expect("names and prefixes are plain text");
        state.write(FILE, &text)
    }

    /// Gives everything back.
    ///
    /// # Errors
    /// The file system refuses.
    pub(super) fn erase(state: &StateDir) -> Result<(), StateError> {
        state.remove(FILE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::ids::FleetId;

    #[test]
    fn what_is_claimed_is_found_until_it_is_given_back() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(root.path(), "test").unwrap();
        assert_eq!(Claims::load(&state).unwrap(), None);
        let claims = Claims {
            interface: "mesh0".into(),
            nft_table: "mesh".into(),
            prefixes: OverlayPrefixes::derived_from(FleetId::from_bytes([3; 16])),
        };
        claims.store(&state).unwrap();
        assert_eq!(Claims::load(&state).unwrap(), Some(claims));
        Claims::erase(&state).unwrap();
        assert_eq!(Claims::load(&state).unwrap(), None);
        state.write(FILE, b"{\"interface\": 1").unwrap();
        assert_eq!(Claims::load(&state).unwrap(), None);
    }
}
