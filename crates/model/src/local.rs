//! The local API of `meshd` as JSON over its Unix socket: what `meshctl` asks on the host itself.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::admin::Decision;
use crate::ids::{HostId, PolicyVersion, Revision};
use crate::name::{Labels, Name};
use crate::pair::PairFacts;
use crate::question::CallFacts;

mod calls;
mod dns;
mod drops;
mod keys;
mod metrics;
mod ping;
mod services;

pub use calls::{
    CallCounts, CallExplained, CallPart, EdgeCounts, LateEdge, LiveEndpoint, LiveService,
    StageCounts, UnreachableHost,
};
pub use dns::{
    DnsAnswer, DnsQuestion, DnsRecord, DnsView, NameView, NamedThing, ResolverState, ResolverView,
};
pub use drops::{DropCount, DropView, DropsView};
pub use keys::KeyRotated;
pub use metrics::MetricsText;
pub use ping::{PingReply, PingRequest};
pub use services::{ServiceEndpoint, ServiceView};

/// `GET /v1/status`. Everybody on the host may ask; `detail` is for root and group `mesh`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostStatus {
    /// Of `meshd`.
    pub version: String,
    /// What the daemon is doing.
    pub state: HostState,
    /// Whether the overlay is up: a map is in force, and nothing keeps its packets. `None`: the daemon
    /// is too old to say so to everybody.
    #[serde(default)]
    pub up: Option<bool>,
    /// The rest, for those who may see it.
    pub detail: Option<HostDetail>,
}

/// What a daemon is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// Ready, waits for `meshctl join`.
    Unenrolled,
    /// A join is under way.
    Joining,
    /// Member of a fleet, in touch with a coordinator.
    Online,
    /// Member of a fleet, works from what it knows; no coordinator can be reached.
    Autonomous,
    /// It was removed from its fleet.
    Removed,
    /// Its state directory is a copy of another machine's; nothing of it is used.
    Cloned,
}

/// More about a member of a fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostDetail {
    /// The host's name.
    pub name: Name,
    /// The host's id.
    pub id: HostId,
    /// The fleet's name.
    pub fleet: Name,
    /// What follows names in DNS.
    pub dns_suffix: String,
    /// The overlay's interface.
    pub interface: String,
    /// The host's overlay addresses.
    pub addresses: Vec<IpAddr>,
    /// Its labels.
    pub labels: Labels,
    /// Its WireGuard port.
    pub listen_port: u16,
    /// The coordinators that it knows.
    pub coordinators: Vec<String>,
    /// Why no coordinator can be reached, when none can.
    pub coordinator_error: Option<String>,
    /// What the host knows.
    pub revision: Option<Revision>,
    /// The policy in force.
    pub policy: Option<PolicyVersion>,
    /// Peers that it knows.
    pub peers: usize,
    /// Unix seconds when the host's certificate expires.
    pub certificate_expires_secs: Option<u64>,
    /// What an operator should look at.
    pub alarms: Vec<String>,
    /// Packets dropped since the start, by reason; only reasons that occurred.
    pub drops: Vec<DropCount>,
    /// Packet threads of the daemon.
    #[serde(default)]
    pub shards: usize,
    /// Seconds by which this machine's clock is ahead of the coordinator's; `None`: not known.
    #[serde(default)]
    pub clock_ahead_secs: Option<i64>,
    /// The daemon's program was replaced on the disk since it was started.
    #[serde(default)]
    pub binary_replaced: bool,
    /// Where the daemon keeps keys and maps.
    #[serde(default)]
    pub state_dir: Option<String>,
    /// The daemon's nftables table, family inet.
    #[serde(default)]
    pub nft_table: Option<String>,
    /// Bytes of the largest overlay packet.
    #[serde(default)]
    pub mtu: Option<u16>,
}

/// `POST /v1/join`
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// As `meshctl tokens create` showed it.
    pub token: String,
    /// The name to take; `None`: the machine's host name.
    #[serde(default)]
    pub name: Option<String>,
}

impl std::fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinRequest")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The answer, once the host is a member and its first map is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Joined {
    /// The name it has.
    pub name: Name,
    /// The fleet's name.
    pub fleet: Name,
    /// The host's overlay addresses.
    pub addresses: Vec<IpAddr>,
    /// What follows names in DNS.
    pub dns_suffix: String,
    /// What is still missing, for people: the first map has not arrived yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// How long a daemon may take to answer `POST /v1/reload`: who asks waits as long, and the service
/// manager longer than that.
pub const RELOAD_WITHIN: Duration = Duration::from_secs(90);

/// `POST /v1/reload`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadRequest {
    /// Hand over to the installed program even when it is the one that runs.
    #[serde(default)]
    pub hand_over: bool,
}

/// The settings are in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reloaded {
    /// Another program runs now; `None`: it is the same.
    pub handed_over: Option<HandedOver>,
}

/// A daemon has taken over from another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HandedOver {
    /// The version that ran.
    pub from: String,
    /// The version that runs.
    pub to: String,
    /// The process that runs.
    pub process: u32,
    /// Microseconds for which packets waited.
    pub pause_micros: u64,
    /// Peers with which new sessions were begun ahead.
    pub handshakes_begun: usize,
    /// Those of them that had answered when it took over.
    pub handshakes_answered: usize,
    /// Flows that were taken over.
    pub flows: usize,
}

/// `POST /v1/leave`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Left {
    /// The coordinator knows; else the host has to be removed there.
    pub coordinator_told: bool,
}

/// One row of `GET /v1/peers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PeerView {
    /// The peer's name.
    pub name: Name,
    /// Its id.
    pub id: HostId,
    /// Its overlay addresses.
    pub addresses: Vec<IpAddr>,
    /// Its labels.
    pub labels: Labels,
    /// Where its packets go now.
    pub endpoint: Option<SocketAddr>,
    /// Where it may be reached.
    pub candidates: Vec<SocketAddr>,
    /// What packets to it are sealed with: `chacha20-poly1305`, `aes-256-gcm`; `None`: there is no
    /// session.
    #[serde(default)]
    pub cipher: Option<String>,
    /// Bytes of the largest overlay packet that goes to it; `None`: not known yet.
    #[serde(default)]
    pub mtu: Option<u16>,
    /// How that is known: `assumed`, `searching`, `proven`, or `narrow` when nothing passes that is
    /// large enough for IPv6.
    #[serde(default)]
    pub mtu_standing: Option<String>,
    /// How often packets of a size that had passed came to be lost while smaller ones passed.
    #[serde(default)]
    pub black_holes: u32,
    /// Seconds since the last handshake; `None`: never.
    pub last_handshake_secs: Option<u64>,
    /// Sessions that packets to it are spread over: more than one when both hosts have several packet
    /// threads and there is much to carry.
    #[serde(default)]
    pub lanes: u16,
    /// Bytes of overlay packets received from it.
    pub received_bytes: u64,
    /// Bytes of overlay packets sent to it.
    pub sent_bytes: u64,
}

/// `POST /v1/why`: how this host decides a flow of its own, in either direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalWhyRequest {
    /// A host or a service; one of `from` and `to` is this host.
    pub from: String,
    /// A host or a service.
    pub to: String,
    /// `tcp udp icmp`; empty: the service's own, and of a host TCP.
    #[serde(default)]
    pub protocol: String,
    /// Destination port; `None` for ICMP, and for a service: its own.
    #[serde(default)]
    pub port: Option<u16>,
    /// What is known of the call.
    #[serde(default, skip_serializing_if = "CallFacts::is_empty")]
    pub call: CallFacts,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LocalWhyReport {
    /// Who opens the flow.
    pub from: Name,
    /// Who is reached.
    pub to: Name,
    /// `tcp udp icmp`
    #[serde(default)]
    pub protocol: String,
    /// Destination port, 0 for ICMP.
    pub port: u16,
    /// The service that was asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Name>,
    /// Who is reached is this host.
    pub inbound: bool,
    /// By what is in force here.
    pub decision: Decision,
    /// The way to the other end.
    pub pair: PairFacts,
}
