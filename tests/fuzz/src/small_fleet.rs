//! A fleet of three hosts with real signatures, the same in every run: what a coordinator would
//! send, for the seeds, and the truth, to compare with what is believed of damaged copies.

use std::net::SocketAddr;

use model::address::OverlayPrefixes;
use model::admin::PolicyFile;
use model::control::{Description, Welcome};
use model::ids::{HostId, PolicyVersion, Revision, TokenId};
use model::key::Secret;
use model::map::{Endpoint, EndpointKind, MapDelta, PeerEntry, PolicySlice, PolicyStep};
use model::name::Name;
use model::record::{BundleHead, HostRecord, MapHead, Signed, Tombstone, TrustStatement};
use model::rule::Bundle;
use model::time::UnixTime;
use trust::authority::HOST_CERTIFICATE_LIFETIME;
use trust::bundle::step_between;
use trust::enrolment::{TlsKey, wireguard_public};
use trust::{
    Authority, AuthoritySeeds, BundleTree, CoordinatorIdentity, HostIdentity, JoinToken,
    TrustAnchors,
};

pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

const POLICY: &str = "
fleet: prod
services:
  db: { port: 5432, protocol: tcp, endpoints: [db-1] }
allow:
  - { id: ping, from: any, to: any, icmp: true }
  - { id: app-db, from: role=app, to: db }
deny:
  - { id: quarantine, from: state=suspect, to: any }
";

/// Three hosts, a policy, and the authority that signs for them.
pub(crate) struct SmallFleet {
    pub(crate) authority: Authority,
    pub(crate) statement: TrustStatement,
    pub(crate) hosts: Vec<HostRecord>,
    pub(crate) bundle: Bundle,
}

impl SmallFleet {
    pub(crate) fn new() -> Self {
        let fleet_name = name("prod");
        let authority = Authority::create(&fleet_name, seeds(), NOW);
        let statement = TrustStatement {
            fleet: authority.fleet_id(),
            epoch: 1,
            serial: 1,
            fleet_name,
            root_certificates: vec![authority.root_certificate().to_vec()],
            record_keys: vec![authority.record_key()],
            enrolment_key: authority.enrolment_key(),
            dns_suffix: "mesh.internal".to_owned(),
            overlay: OverlayPrefixes::derived_from(authority.fleet_id()),
            previous: None,
        };
        let hosts = [
            ("web-1", "role=app"),
            ("db-1", "role=db"),
            ("vm-3", "state=suspect"),
        ]
        .into_iter()
        .zip(0..)
        .map(|((name, label), number)| record(&statement, name, label, number))
        .collect();
        Self {
            authority,
            statement,
            hosts,
            bundle: bundle(),
        }
    }

    pub(crate) fn trust(&self) -> Signed {
        self.authority.sign_trust(&self.statement)
    }

    pub(crate) fn anchors(&self) -> TrustAnchors {
        TrustAnchors::from_statement(&self.trust(), &self.authority.root_pin())
            .expect("its own statement")
            .0
    }

    pub(crate) fn token(&self) -> JoinToken {
        JoinToken {
            id: TokenId::from_bytes([7; 8]),
            secret: [9; 16],
            pin: self.authority.root_pin(),
            addresses: vec![
                "c1.example.com:7443".to_owned(),
                "[2001:db8::1]:443".to_owned(),
            ],
        }
    }

    pub(crate) fn description(&self) -> Description {
        Description {
            trust: self.trust(),
            software_version: "1.0.0".to_owned(),
            unix: NOW,
        }
    }

    pub(crate) fn welcome(&self) -> Welcome {
        Welcome {
            earlier: Vec::new(),
            trust: self.trust(),
            observed: Some([203, 0, 113, 5].into()),
            software_version: "1.0.0".to_owned(),
            unix: NOW,
        }
    }

    pub(crate) fn tombstone(&self) -> Signed {
        let gone = &self.hosts[2];
        self.authority.sign_tombstone(&Tombstone {
            fleet: gone.fleet,
            host: gone.host,
            name: gone.name.clone(),
            revision: Revision::new(1, 9),
            reason: "taken out of service".to_owned(),
        })
    }

    pub(crate) fn head(&self) -> BundleHead {
        let tree = BundleTree::new(&self.bundle);
        BundleHead {
            fleet: self.statement.fleet,
            epoch: 1,
            version: PolicyVersion(3),
            tree_root: tree.root(),
            leaf_count: tree.leaf_count(),
            previous: None,
            signed_at: NOW,
        }
    }

    pub(crate) fn slice(&self) -> PolicySlice {
        PolicySlice {
            head: self.authority.sign_head(&self.head()),
            leaves: BundleTree::new(&self.bundle).prove_all(),
        }
    }

    /// The leaves of the version before, which had a service less, and no denies.
    pub(crate) fn earlier(&self) -> BundleTree {
        let mut bundle = self.bundle.clone();
        bundle.services.pop();
        bundle.deny.clear();
        BundleTree::new(&bundle)
    }

    /// What leads from the version before to this one.
    pub(crate) fn step(&self) -> PolicyStep {
        let (before, after) = (self.earlier(), BundleTree::new(&self.bundle));
        let all = |tree: &BundleTree| (0..tree.leaf_count()).collect::<Vec<_>>();
        let head = self.authority.sign_head(&self.head());
        step_between((&before, &all(&before)), (&after, &all(&after)), head)
    }

    /// What the first host needs to know.
    pub(crate) fn map(&self) -> MapDelta {
        self.map_of(&self.hosts[0])
    }

    /// What a host needs to know, when its record is this one.
    pub(crate) fn map_of(&self, host: &HostRecord) -> MapDelta {
        let others = self.hosts.iter().filter(|it| it.host != host.host);
        MapDelta {
            trust: Vec::new(),
            base: None,
            revision: Revision::new(1, 8),
            head: Some(self.map_head(Revision::new(1, 8))),
            record: Some(self.authority.sign_record(host)),
            peers: others.map(|it| self.entry(it)).collect(),
            tombstones: Vec::new(),
            forgotten: Vec::new(),
            policy: Some(self.slice()),
            policy_step: None,
        }
    }

    /// Signs that the fleet has reached a revision.
    pub(crate) fn map_head(&self, revision: Revision) -> Signed {
        self.authority.sign_map_head(&MapHead {
            fleet: self.authority.fleet_id(),
            revision,
        })
    }

    pub(crate) fn entry(&self, host: &HostRecord) -> PeerEntry {
        PeerEntry {
            record: self.authority.sign_record(host),
            endpoints: vec![Endpoint {
                address: SocketAddr::from(([192, 0, 2, host.host.as_bytes()[0]], 51820)),
                kind: EndpointKind::Interface,
            }],
            stream_port: Some(7444),
        }
    }

    /// A host's chain, leaf first.
    pub(crate) fn host_chain(&self, host: &Name, request: &[u8]) -> Vec<Vec<u8>> {
        let identity = HostIdentity {
            fleet_name: self.statement.fleet_name.clone(),
            host_name: host.clone(),
        };
        self.authority
            .issue_host(&identity, request, NOW, HOST_CERTIFICATE_LIFETIME, [5; 16])
            .expect("a good request")
    }

    /// A coordinator's chain, leaf first.
    pub(crate) fn coordinator_chain(&self) -> Vec<Vec<u8>> {
        let identity = CoordinatorIdentity {
            fleet_name: self.statement.fleet_name.clone(),
            coordinator_name: name("c1"),
            dns_names: vec!["c1.example.com".to_owned()],
            addresses: vec![[192, 0, 2, 1].into()],
        };
        self.authority
            .issue_coordinator(&identity, &tls_key(), NOW, [6; 16])
            .expect("a good identity")
    }
}

/// The secrets of the fleet's authority.
pub(crate) fn seeds() -> AuthoritySeeds {
    AuthoritySeeds {
        root: Secret::from_bytes([1; 32]),
        records: Secret::from_bytes([2; 32]),
        enrolment: Secret::from_bytes([3; 32]),
    }
}

/// The TLS key of whoever needs one.
pub(crate) fn tls_key() -> TlsKey {
    TlsKey::from_seed(Secret::from_bytes([4; 32]))
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().expect("a good name")
}

fn bundle() -> Bundle {
    let file = PolicyFile {
        path: "policy.yaml".to_owned(),
        text: POLICY.to_owned(),
    };
    policy::load(&[file])
        .expect("the policy above is good")
        .bundle
}

fn record(statement: &TrustStatement, host: &str, label: &str, number: u8) -> HostRecord {
    let label: model::name::Label = label.parse().expect("a good label");
    HostRecord {
        fleet: statement.fleet,
        host: HostId::from_bytes([number + 1; 16]),
        name: name(host),
        labels: [(label.key, label.value)].into(),
        wireguard_key: wireguard_public(&Secret::from_bytes([number + 1; 32])),
        tls_key_hash: trust::sha256(&[number]),
        addresses: statement
            .overlay
            .nth_host(u32::from(number))
            .expect("it has room for three"),
        offers_aes_256_gcm: false,
        revision: Revision::new(1, u64::from(number) + 2),
    }
}
