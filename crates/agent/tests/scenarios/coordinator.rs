//! A coordinator as small as it can be: it signs whatever it is told to, truths and lies.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use model::address::OverlayPrefixes;
use model::control::{Description, EnrolRequest, Enrolled, Goodbye, ToHost, Welcome};
use model::ids::{Digest, HostId, PolicyVersion, Revision, TokenId};
use model::key::{Secret, WireguardKey};
use model::map::{Endpoint, EndpointKind, MapDelta, PeerEntry, PolicySlice};
use model::name::Labels;
use model::record::{BundleHead, HostRecord, MapHead, Signed, Tombstone, TrustStatement};
use model::rule::{
    Bundle, PortRange, Protocol, Rule, Selector, Service, Source, Traffic, TrafficSettings,
};
use model::time::UnixTime;
use trust::authority::HOST_CERTIFICATE_LIFETIME;
use trust::enrolment::{Transcript, check_certificate_request};
use trust::{Authority, AuthoritySeeds, BundleTree, HostIdentity, JoinToken};

/// The coordinator's clock when nothing else is said.
pub(crate) const START: UnixTime = UnixTime::from_secs(1_800_000_000);

/// A coordinator of one fleet.
pub(crate) struct Coordinator {
    pub(crate) authority: Authority,
    pub(crate) statement: TrustStatement,
    /// The statements before it.
    pub(crate) earlier: Vec<Signed>,
    pub(crate) hosts: BTreeMap<HostId, HostRecord>,
    pub(crate) revision: Revision,
    pub(crate) policy: PolicyVersion,
    pub(crate) bundle: Bundle,
    /// What the policy's head says was before it.
    pub(crate) previous: Option<Digest>,
    pub(crate) clock: UnixTime,
    pub(crate) enrolments: usize,
    /// The authority before the last statement.
    last_signer: Option<Authority>,
    next_host: u32,
    next_serial: u8,
}

impl Coordinator {
    /// Makes a fleet of its own from one byte.
    pub(crate) fn new(seed: u8) -> Self {
        let name = "prod".parse().unwrap();
        let secret = |salt: u8| Secret::from_bytes([seed.wrapping_mul(7).wrapping_add(salt); 32]);
        let seeds = AuthoritySeeds {
            root: secret(1),
            records: secret(2),
            enrolment: secret(3),
        };
        let authority = Authority::create(&name, seeds, START);
        let statement = TrustStatement {
            fleet: authority.fleet_id(),
            epoch: 1,
            serial: 1,
            fleet_name: name,
            root_certificates: vec![authority.root_certificate().to_vec()],
            record_keys: vec![authority.record_key()],
            enrolment_key: authority.enrolment_key(),
            dns_suffix: "mesh.internal".to_owned(),
            overlay: OverlayPrefixes::derived_from(authority.fleet_id()),
            previous: None,
        };
        Self {
            authority,
            statement,
            earlier: Vec::new(),
            hosts: BTreeMap::new(),
            revision: Revision::new(1, 1),
            policy: PolicyVersion(1),
            bundle: policy::first_policy(),
            previous: None,
            clock: START,
            enrolments: 0,
            last_signer: None,
            next_host: 0,
            next_serial: 0,
        }
    }

    pub(crate) fn token(&self) -> String {
        JoinToken {
            id: TokenId::from_bytes([7; 8]),
            secret: [9; 16],
            pin: self.authority.root_pin(),
            addresses: vec!["10.0.0.1:7443".to_owned()],
        }
        .encode()
    }

    /// The statement, signed by the keys that it lists and by those before.
    pub(crate) fn trust(&self) -> Signed {
        let mut signed = self.authority.sign_trust(&self.statement);
        let before = self.last_signer.iter();
        let before = before.flat_map(|it| it.sign_trust(&self.statement).signatures);
        for signature in before {
            if signed
                .signatures
                .iter()
                .all(|it| it.key_id != signature.key_id)
            {
                signed.signatures.push(signature);
            }
        }
        signed
    }

    /// Gives the fleet another generation of keys beside the one that it has.
    pub(crate) fn rotate_authority(&mut self) {
        let byte = 0x80 | u8::try_from(self.statement.serial).unwrap();
        let seeds = AuthoritySeeds {
            root: Secret::from_bytes([byte; 32]),
            records: Secret::from_bytes([byte ^ 0x20; 32]),
            enrolment: Secret::from_bytes([byte ^ 0x40; 32]),
        };
        let name = self.statement.fleet_name.clone();
        let number = self.statement.serial + 1;
        let next = self.authority.with_next(&name, number, seeds, START);
        self.follow_statement(next.unwrap());
    }

    /// Believes only the newest keys from now on.
    pub(crate) fn retire_authority(&mut self) {
        let newest = self.authority.keys().split_off(1);
        self.follow_statement(Authority::load_all(newest).unwrap());
    }

    fn follow_statement(&mut self, next: Authority) {
        self.revision.counter += 1;
        let before = self.trust();
        self.statement = TrustStatement {
            serial: self.statement.serial + 1,
            root_certificates: next.root_certificates(),
            record_keys: next.record_keys(),
            enrolment_key: next.enrolment_key(),
            previous: Some(trust::sha256(&before.payload)),
            ..self.statement.clone()
        };
        self.earlier.push(before);
        self.last_signer = Some(std::mem::replace(&mut self.authority, next));
    }

    /// A change that brings statements, and nothing else.
    pub(crate) fn trust_delta(&self, base: Revision) -> MapDelta {
        MapDelta {
            trust: [self.earlier.clone(), vec![self.trust()]].concat(),
            ..self.delta(base)
        }
    }

    pub(crate) fn description(&self) -> Description {
        Description {
            trust: self.trust(),
            software_version: "1.0.0".to_owned(),
            unix: self.clock,
        }
    }

    pub(crate) fn welcome(&self) -> Welcome {
        Welcome {
            earlier: self.earlier.clone(),
            trust: self.trust(),
            observed: None,
            software_version: "1.0.0".to_owned(),
            unix: self.clock,
        }
    }

    /// Takes a host in; the same keys again are the same host again.
    pub(crate) fn enrol(&mut self, request: &EnrolRequest) -> Enrolled {
        let transcript = Transcript {
            fleet: self.statement.fleet,
            token: request.token,
            name: &request.name,
            wireguard_key: request.wireguard_key,
            certificate_request: &request.certificate_request,
        };
        self.authority
            .verify_wireguard_proof(&transcript, &request.wireguard_proof)
            .unwrap();
        let facts = check_certificate_request(&request.certificate_request).unwrap();
        let known = self
            .hosts
            .values()
            .find(|host| host.wireguard_key == request.wireguard_key)
            .cloned();
        let record = known.unwrap_or_else(|| {
            self.enrolments += 1;
            let mut record = self.new_record(request.name.as_str());
            record.wireguard_key = request.wireguard_key;
            record.tls_key_hash = facts.tls_key_hash;
            self.hosts.insert(record.host, record.clone());
            record
        });
        Enrolled {
            host: record.host,
            record: self.authority.sign_record(&record),
            certificate_chain: self.certify(&record, &request.certificate_request),
        }
    }

    pub(crate) fn certify(&mut self, record: &HostRecord, request: &[u8]) -> Vec<Vec<u8>> {
        self.next_serial += 1;
        let identity = HostIdentity {
            fleet_name: self.statement.fleet_name.clone(),
            host_name: record.name.clone(),
        };
        let serial = [self.next_serial; 16];
        let lifetime = HOST_CERTIFICATE_LIFETIME;
        self.authority
            .issue_host(&identity, request, self.clock, lifetime, serial)
            .unwrap()
    }

    /// Adds a peer out of nothing.
    pub(crate) fn add_host(&mut self, name: &str) -> HostId {
        let record = self.new_record(name);
        let id = record.host;
        self.hosts.insert(id, record);
        id
    }

    fn new_record(&mut self, name: &str) -> HostRecord {
        self.revision.counter += 1;
        let number = self.next_host;
        self.next_host += 1;
        let mut id = [0xa0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let mut key = [0xb0; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        HostRecord {
            fleet: self.statement.fleet,
            host: HostId::from_bytes(id),
            name: name.parse().unwrap(),
            labels: Labels::new(),
            wireguard_key: WireguardKey::from_bytes(key),
            tls_key_hash: trust::sha256(&key),
            addresses: self.statement.overlay.nth_host(number).unwrap(),
            offers_aes_256_gcm: false,
            revision: self.revision,
        }
    }

    /// Changes a host's record, at a new revision.
    pub(crate) fn change(&mut self, id: HostId, change: impl FnOnce(&mut HostRecord)) {
        self.revision.counter += 1;
        let record = self.hosts.get_mut(&id).unwrap();
        change(record);
        record.revision = self.revision;
    }

    /// Puts another policy in force, as the next version.
    pub(crate) fn apply(&mut self, bundle: Bundle) {
        self.revision.counter += 1;
        self.previous = Some(trust::sha256(&self.slice().head.payload));
        self.policy.0 += 1;
        self.bundle = bundle;
    }

    pub(crate) fn entry(&self, id: HostId) -> PeerEntry {
        PeerEntry {
            record: self.authority.sign_record(&self.hosts[&id]),
            endpoints: vec![endpoint(id)],
            stream_port: Some(7444),
        }
    }

    pub(crate) fn tombstone(&self, id: HostId, revision: Revision) -> Signed {
        self.authority.sign_tombstone(&Tombstone {
            fleet: self.statement.fleet,
            host: id,
            name: "gone".parse().unwrap(),
            revision,
            reason: "taken out of service".to_owned(),
        })
    }

    pub(crate) fn map_head(&self, revision: Revision) -> Signed {
        self.authority.sign_map_head(&MapHead {
            fleet: self.statement.fleet,
            revision,
        })
    }

    /// Says that a host is removed, with the fleet's signature.
    pub(crate) fn goodbye_for_ever(&mut self, id: HostId) -> ToHost {
        self.revision.counter += 1;
        ToHost::Goodbye(Goodbye {
            reason: "as you wish".to_owned(),
            retry_after: Duration::ZERO,
            tombstone: Some(self.tombstone(id, self.revision)),
        })
    }

    pub(crate) fn slice(&self) -> PolicySlice {
        let tree = BundleTree::new(&self.bundle);
        let head = self.authority.sign_head(&BundleHead {
            fleet: self.statement.fleet,
            epoch: self.statement.epoch,
            version: self.policy,
            tree_root: tree.root(),
            leaf_count: tree.leaf_count(),
            previous: self.previous,
            signed_at: START,
        });
        PolicySlice {
            head,
            leaves: tree.prove_all(),
        }
    }

    /// Everything that one host needs to know.
    pub(crate) fn whole_map(&self, host: HostId) -> MapDelta {
        MapDelta {
            trust: Vec::new(),
            base: None,
            revision: self.revision,
            head: Some(self.map_head(self.revision)),
            record: Some(self.authority.sign_record(&self.hosts[&host])),
            peers: self
                .hosts
                .keys()
                .filter(|id| **id != host)
                .map(|id| self.entry(*id))
                .collect(),
            tombstones: Vec::new(),
            forgotten: Vec::new(),
            policy: Some(self.slice()),
            policy_step: None,
        }
    }

    /// A change without content, from `base` to now.
    pub(crate) fn delta(&self, base: Revision) -> MapDelta {
        MapDelta {
            base: Some(base),
            revision: self.revision,
            head: (base != self.revision).then(|| self.map_head(self.revision)),
            ..MapDelta::default()
        }
    }
}

/// Where a host made here may be reached.
pub(crate) fn endpoint(id: HostId) -> Endpoint {
    let tail = id.as_bytes()[3];
    let address = SocketAddr::from(([192, 0, 2, tail], 51820));
    Endpoint {
        address,
        kind: EndpointKind::Interface,
    }
}

/// A bundle that allows TCP to one port from any to any, and has a service `db` at the host `db`.
pub(crate) fn bundle_with_service(port: u16) -> Bundle {
    let db = Selector::Host {
        name: "db".parse().unwrap(),
        id: None,
    };
    Bundle {
        services: vec![Service {
            name: "orders".parse().unwrap(),
            port: 8080,
            protocol: Protocol::Tcp,
            endpoints: vec![db],
            workloads: Vec::new(),
            addresses: None,
            settings: TrafficSettings::default(),
            source: Source::default(),
        }],
        allow: vec![Rule {
            id: "only".parse().unwrap(),
            from: vec![Selector::Any],
            to: vec![Selector::Any],
            traffic: Traffic::Ports {
                tcp: vec![PortRange::single(port)],
                udp: Vec::new(),
                icmp: false,
            },
            http: Vec::new(),
            when: None,
            source: Source {
                file: "mesh.yaml".to_owned(),
                line: 3,
            },
        }],
        ..Bundle::default()
    }
}
