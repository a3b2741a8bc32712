//! What one end of a flow knows of the way to the other end, for people who ask why.

use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::RuleId;

/// What one end knows of the other, of the tunnel between them, and of who listens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PairFacts {
    /// The overlay addresses that the other end's name stands for here.
    pub addresses: Vec<IpAddr>,
    /// Where its packets go now; `None`: nobody says where it can be reached.
    pub endpoint: Option<SocketAddr>,
    /// It answers there.
    pub answers: bool,
    /// Seconds since the last handshake; `None`: never.
    pub last_handshake_secs: Option<u64>,
    /// The last flow between the two that the policy denied here.
    pub last_drop: Option<PairDrop>,
    /// Whether a program listens here for the flow; `None`: it was not looked for, as where
    /// the flow only leaves or is denied.
    pub listener: Option<Listener>,
}

/// A flow between two hosts that the policy denied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PairDrop {
    /// How long ago.
    pub secs_ago: u64,
    /// It came from the other end; else it was opened here.
    pub inbound: bool,
    /// IANA number.
    pub ip_protocol: u8,
    /// Destination port, 0 where the protocol has none.
    pub port: u16,
    /// The deny that matched; `None`: no rule allows it.
    pub rule: Option<RuleId>,
}

/// Whether a program listens where a flow goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Listener {
    /// One does.
    Listening,
    /// One does on this port, but on other addresses than the overlay's, such as loopback only.
    Elsewhere,
    /// None does.
    Nothing,
}
