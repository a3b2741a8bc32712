//! The services that a host knows, and what it may do with them.

use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::local::{LateEdge, LiveService};
use crate::name::Name;

/// One row of `GET /v1/services`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceView {
    /// Its name.
    pub name: Name,
    /// Its name in DNS, whole.
    pub dns_name: String,
    /// `tcp udp http grpc auto`
    pub protocol: String,
    /// What its name resolves to; empty: the addresses of its endpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// Where its endpoints listen.
    pub port: u16,
    /// `file:line` where it was written.
    pub source: String,
    /// The selectors of its endpoints, as they were written.
    pub selectors: Vec<String>,
    /// The endpoints that this host knows, in the order of their names.
    pub endpoints: Vec<ServiceEndpoint>,
    /// What its endpoints look like to those who call it from here; `None`: nobody has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<LiveService>,
    /// Who has called it of late, from here and here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub callers: Vec<LateEdge>,
}

/// A host that offers a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceEndpoint {
    /// Its name.
    pub host: Name,
    /// Its overlay addresses.
    pub addresses: Vec<IpAddr>,
    /// It is this host itself.
    pub here: bool,
    /// This host may open flows to it; always so to itself.
    pub allowed: bool,
    /// The rule that says so; `None`: no rule does, or it is this host itself.
    pub rule: Option<String>,
    /// What the rule asks for beside hosts and ports; empty: nothing, every call may be made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
    /// Why its program fails the health check of the service, as this host itself found out; `None`: it
    /// does not, or is another host's to check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<String>,
    /// Where calls go, outside of the overlay, best first; empty: to its overlay addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<SocketAddr>,
}
