//! A small fleet on loopback: an authority, hosts with their keys and certificates, what each knows
//! of the others.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use model::address::{HostAddresses, OverlayPrefixes};
use model::catalogue::{Catalogue, CatalogueHost, StreamIdentity};
use model::ids::{FleetId, HostId, PolicyVersion};
use model::key::Secret;
use model::name::{Labels, Name};
use runtime::clock::unix_now;
use trust::authority::{Authority, AuthoritySeeds, HostIdentity};
use trust::enrolment::TlsKey;

/// A fleet's authority.
pub(crate) struct Fleet {
    pub(crate) name: Name,
    pub(crate) overlay: OverlayPrefixes,
    authority: Authority,
}

/// One host of it.
pub(crate) struct Member {
    pub(crate) host: HostId,
    pub(crate) name: Name,
    pub(crate) key: TlsKey,
}

impl Fleet {
    pub(crate) fn new(number: u8) -> Self {
        let name: Name = "prod".parse().unwrap();
        let secret = |role: u8| Secret::from_bytes([number, role].repeat(16).try_into().unwrap());
        let seeds = AuthoritySeeds {
            root: secret(1),
            records: secret(2),
            enrolment: secret(3),
        };
        Self {
            overlay: OverlayPrefixes::derived_from(FleetId::from_bytes([number; 16])),
            authority: Authority::create(&name, seeds, unix_now()),
            name,
        }
    }

    /// A host by its number, which is the last part of its overlay addresses, too.
    pub(crate) fn member(&self, number: u8) -> Member {
        Member {
            host: HostId::from_bytes([number; 16]),
            name: format!("vm-{number}").parse().unwrap(),
            key: TlsKey::from_seed(Secret::from_bytes([number; 32])),
        }
    }

    /// What the member shows to others.
    pub(crate) fn identity(&self, member: &Member) -> Arc<StreamIdentity> {
        let identity = HostIdentity {
            fleet_name: self.name.clone(),
            host_name: member.name.clone(),
        };
        let request = member.key.certificate_request(&member.name);
        let day = Duration::from_secs(86_400);
        let chain = self
            .authority
            .issue_host(&identity, &request, unix_now(), day, [7; 16])
            .unwrap();
        Arc::new(StreamIdentity {
            chain,
            private_key: member.key.pkcs8_der(),
            roots: vec![self.authority.root_certificate().to_vec()],
            fleet_name: self.name.clone(),
        })
    }

    /// What is told of the member, reached at these addresses of the underlay.
    pub(crate) fn entry(&self, member: &Member, streams: Vec<SocketAddr>) -> CatalogueHost {
        CatalogueHost {
            host: member.host,
            name: member.name.clone(),
            addresses: self.addresses(member.host.as_bytes()[0]),
            tls_key_hash: member.key.public_key_hash(),
            labels: Labels::default(),
            streams,
            datagrams: Vec::new(),
        }
    }

    /// What one of the hosts knows of them all.
    pub(crate) fn catalogue(&self, me: &Member, hosts: Vec<CatalogueHost>) -> Catalogue {
        Catalogue {
            fleet_name: self.name.clone(),
            suffix: "mesh.internal".into(),
            me: me.host,
            policy_version: PolicyVersion::default(),
            service_prefixes: self.overlay.services(),
            services: BTreeMap::new(),
            hosts: hosts.into_iter().map(|host| (host.host, host)).collect(),
        }
    }

    fn addresses(&self, number: u8) -> HostAddresses {
        let v4 = u32::from(self.overlay.v4.addr()) + u32::from(number);
        let v6 = u128::from(self.overlay.v6.addr()) + u128::from(number);
        HostAddresses {
            v4: v4.into(),
            v6: v6.into(),
        }
    }
}
