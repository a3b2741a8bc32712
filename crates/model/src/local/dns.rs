//! What mesh DNS answers on a host, and how the host's resolver comes to ask it.

use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::Name;

/// `GET /v1/dns`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DnsView {
    /// What follows the fleet's names; empty when this host is no member.
    pub suffix: String,
    /// Where mesh DNS answers.
    pub listens: Vec<SocketAddr>,
    /// The servers that names outside of the mesh are asked of.
    pub forwards_to: Vec<SocketAddr>,
    /// How programs on this host come to ask.
    pub resolver: ResolverView,
    /// The reverse zones that are answered.
    pub reverse_zones: Vec<String>,
    /// Every name that is answered, in order.
    pub names: Vec<NameView>,
}

/// How the host's own resolver is set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResolverView {
    /// Whether the mesh's names reach mesh DNS.
    pub state: ResolverState,
    /// By which means, or why not.
    pub detail: String,
}

/// Whether the mesh's names reach mesh DNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResolverState {
    /// There is nothing to set up yet.
    Waiting,
    /// The settings say to leave it alone.
    Off,
    /// The daemon has set it up.
    Set,
    /// It asks mesh DNS without the daemon's doing.
    AsksUs,
    /// The daemon found no way that is its to use.
    LeftAlone,
    /// It was tried and failed.
    Failed,
    /// Another program changed what the daemon had set up.
    Changed,
}

/// One name that mesh DNS answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NameView {
    /// Without the suffix.
    pub name: Name,
    /// What it names.
    pub kind: NamedThing,
    /// What it resolves to, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Where a service listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `tcp udp`, of a service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
}

/// What a name names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NamedThing {
    /// A host.
    Host,
    /// A service.
    Service,
}

/// `POST /v1/dns/query`: what mesh DNS says to this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsQuestion {
    /// A name; one without a dot is taken as one of the mesh, an address as its reverse name.
    pub name: String,
    /// `A AAAA SRV PTR …`; `None`: `PTR` for an address, else `A`.
    #[serde(default)]
    pub record_type: Option<String>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DnsAnswer {
    /// The whole name that was asked.
    pub name: String,
    /// The type that was asked.
    pub record_type: String,
    /// The response code: `NoError NXDomain Refused ServFail …`.
    pub code: String,
    /// Mesh DNS knows it itself; else another server was asked, or nobody.
    pub authoritative: bool,
    /// The records.
    pub records: Vec<DnsRecord>,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DnsRecord {
    /// Whose it is.
    pub name: String,
    /// For how long it may be remembered.
    pub ttl_secs: u32,
    /// Its type.
    pub record_type: String,
    /// What it says, as in a zone file.
    pub data: String,
}
