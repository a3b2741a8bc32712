//! One echo through the tunnel.

use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::Name;

/// `POST /v1/ping`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PingRequest {
    /// A host's name.
    pub host: String,
    /// How long to wait for the answer, in milliseconds; at most a minute.
    pub timeout_millis: u64,
    /// How large the IPv4 packet inside the tunnel is, which nobody may cut; `None`: small.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packet_bytes: Option<u16>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PingReply {
    /// The peer's name.
    pub name: Name,
    /// The overlay address that was asked.
    pub address: IpAddr,
    /// Round trip in microseconds; `None`: no answer in time.
    pub round_trip_micros: Option<u64>,
    /// Where its packets go now.
    pub endpoint: Option<SocketAddr>,
    /// Bytes of the largest packet that the overlay's interface takes.
    pub interface_mtu: u16,
    /// The packet that was asked for is larger than this host sends there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub too_big: bool,
    /// Why there is no answer, as far as this host can tell.
    pub note: Option<String>,
}
