//! The services that a host knows, and what it may do with them.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::Name;

/// One row of `GET /v1/services`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceView {
    /// Its name.
    pub name: Name,
    /// Its name in DNS, whole.
    pub dns_name: String,
    /// `tcp udp`
    pub protocol: String,
    /// Where its endpoints listen.
    pub port: u16,
    /// `file:line` where it was written.
    pub source: String,
    /// The selectors of its endpoints, as they were written.
    pub selectors: Vec<String>,
    /// The endpoints that this host knows, in the order of their names.
    pub endpoints: Vec<ServiceEndpoint>,
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
}
