//! What the proxy of one host needs to know of the others: the services that concern it, with their
//! virtual addresses and endpoints, and the hosts that offer or call them. `agent` makes it out of
//! what was verified; `proxy` reads it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::address::{HostAddresses, ServicePrefixes};
use crate::ids::{Digest, HostId, PolicyVersion};
use crate::key::SecretBytes;
use crate::name::{Labels, Name};
use crate::rule::Service;

/// Where a host listens for the streams of other hosts, unless it is told otherwise: TCP.
pub const STREAM_PORT: u16 = 7444;

/// What one host knows of services; replaced whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalogue {
    /// The SPIFFE trust domain.
    pub fleet_name: Name,
    /// What follows every name in DNS, without dots at the ends.
    pub suffix: String,
    /// This host.
    pub me: HostId,
    /// The version that names these services.
    pub policy_version: PolicyVersion,
    /// What holds every virtual address of the fleet, and no host's but those of long ago.
    pub service_prefixes: ServicePrefixes,
    /// The services that this host may call or offers, if they have a virtual address.
    pub services: BTreeMap<Name, CatalogueService>,
    /// This host, and those that some rule connects it with.
    pub hosts: BTreeMap<HostId, CatalogueHost>,
}

/// A service with a virtual address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueService {
    /// As the policy has it.
    pub service: Service,
    /// What its name resolves to.
    pub addresses: HostAddresses,
    /// The hosts that offer it, as far as this host knows them, ascending. Which of them it may call
    /// is the policy's to say.
    pub endpoints: Vec<HostId>,
}

/// A host at the other end of streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueHost {
    /// Which.
    pub host: HostId,
    /// Its name: its certificate says `spiffe://FLEET/host/NAME`.
    pub name: Name,
    /// Its overlay addresses.
    pub addresses: HostAddresses,
    /// SHA-256 of the SubjectPublicKeyInfo that its certificate has to be for.
    pub tls_key_hash: Digest,
    /// Its labels.
    pub labels: Labels,
    /// Underlay TCP addresses where its streams may be reached, best first. Hints only. Empty for
    /// this host itself, and for one that nobody has seen yet.
    pub streams: Vec<SocketAddr>,
    /// Underlay UDP addresses of its tunnels, best first. Hints only, as `streams`, which are tried
    /// first: where only UDP passes, streams go there, too.
    pub datagrams: Vec<SocketAddr>,
}

/// What this host shows to others, and by what it believes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamIdentity {
    /// This host's certificate chain, DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// The private key of the leaf: PKCS#8, DER.
    pub private_key: SecretBytes,
    /// X.509 roots that the chains of others must end in, DER.
    pub roots: Vec<Vec<u8>>,
    /// The SPIFFE trust domain.
    pub fleet_name: Name,
}

impl Catalogue {
    /// Returns the service that has a virtual address.
    pub fn service_at(&self, address: IpAddr) -> Option<&CatalogueService> {
        let mut services = self.services.values();
        services.find(|service| service.addresses.contains(address))
    }
}
