//! Changing this host's WireGuard key.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::key::WireguardKey;

/// `POST /v1/keys/rotate`: the key as it is when the answer is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyRotated {
    /// The key that the fleet's record of this host names.
    pub wireguard_key: WireguardKey,
    /// The key that comes next; `None`: the change is done.
    pub next: Option<WireguardKey>,
    /// Why it is not done yet.
    pub note: Option<String>,
}
