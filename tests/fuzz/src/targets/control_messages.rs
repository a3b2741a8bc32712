//! Everything in protobuf: what is exchanged with the coordinator, what is signed, what lies on a
//! host's disk. What is understood survives being written again; what is believed was signed.

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};

use model::control::{
    Applied, EndpointReport, EnrolRequest, Enrolled, Explanation, FromHost, Goodbye, HeldTrust,
    Hello, NewKey, ToHost,
};
use model::ids::{HostId, PolicyVersion, Revision};
use model::key::Secret;
use model::map::{MapDelta, PolicySlice};
use model::memory::Memory;
use model::pair::{Listener, PairDrop, PairFacts};
use model::question::{CallFacts, HeaderFact, Verdict};
use model::record::{HostRecord, Signed};
use model::rule::{FlowQuery, ip_protocol};
use model::wire::stored::{
    self, FormerPeer, Membership, SpareKey, StoredHighWater, StoredIdentity, StoredMap,
};
use model::wire::{self, WireError};
use std::time::Duration;
use trust::TrustAnchors;
use trust::bundle::carry_over;

use crate::Seed;
use crate::small_fleet::{NOW, SmallFleet, name, tls_key};

/// Reads bytes as every message.
pub fn target(bytes: &[u8]) {
    survives(bytes, wire::decode_signed, wire::encode_signed);
    survives(
        bytes,
        wire::decode_trust_statement,
        wire::encode_trust_statement,
    );
    survives(bytes, wire::decode_host_record, wire::encode_host_record);
    survives(bytes, wire::decode_tombstone, wire::encode_tombstone);
    survives(bytes, wire::decode_bundle_head, wire::encode_bundle_head);
    survives(bytes, wire::decode_leaf, wire::encode_leaf);
    survives(bytes, wire::decode_from_host, wire::encode_from_host);
    survives(bytes, wire::decode_description, wire::encode_description);
    survives(
        bytes,
        wire::decode_enrol_request,
        wire::encode_enrol_request,
    );
    survives(bytes, wire::decode_enrolled, wire::encode_enrolled);
    survives(bytes, stored::decode_identity, |identity| {
        stored::encode_identity(identity).expose().to_vec()
    });
    survives(bytes, stored::decode_high_water, stored::encode_high_water);
    let to_host = survives(bytes, wire::decode_to_host, wire::encode_to_host);
    if let Some(ToHost::Map(map)) = to_host {
        believe_only_what_was_signed(&map);
    }
    let stored = survives(bytes, stored::decode_map, stored::encode_map);
    if let Some(stored) = stored {
        believe_only_what_was_signed(&stored.map);
        believe_only_our_statement(&stored.trust);
    }
}

fn survives<T: PartialEq + Debug>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, WireError>,
    encode: impl Fn(&T) -> Vec<u8>,
) -> Option<T> {
    match decode(bytes) {
        Ok(value) => {
            let again = encode(&value);
            assert_eq!(
                decode(&again).as_ref(),
                Ok(&value),
                "it survives being written"
            );
            Some(value)
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            None
        }
    }
}

/// What the small fleet's coordinator signed.
struct Truth {
    fleet: SmallFleet,
    anchors: TrustAnchors,
}

static TRUTH: LazyLock<Truth> = LazyLock::new(|| {
    let fleet = SmallFleet::new();
    let anchors = fleet.anchors();
    Truth { fleet, anchors }
});

fn believe_only_what_was_signed(map: &MapDelta) {
    let Truth { fleet, anchors } = &*TRUTH;
    let records = map.peers.iter().map(|peer| &peer.record);
    for signed in records.chain(&map.record) {
        if let Ok(record) = anchors.verify_record(signed) {
            assert!(fleet.hosts.contains(&record), "{record:?}");
        }
    }
    for signed in &map.tombstones {
        assert!(
            anchors.verify_tombstone(signed).is_err()
                || signed.payload == fleet.tombstone().payload
        );
    }
    let stepped = map.policy_step.as_ref().and_then(|step| {
        let after = anchors.verify_head(&step.head).ok()?.leaf_count;
        let before = fleet.earlier();
        let had = PolicySlice {
            leaves: before.prove_all(),
            ..PolicySlice::default()
        };
        carry_over(&had, before.leaf_count(), step, after).ok()
    });
    for slice in map.policy.iter().chain(&stepped) {
        let Ok((head, bundle)) = anchors.verify_slice(slice) else {
            continue;
        };
        assert_eq!(head, fleet.head());
        assert_eq!(bundle.deny, fleet.bundle.deny, "no deny is lost");
        let whole = &fleet.bundle;
        assert!(
            bundle.allow.iter().all(|rule| whole.allow.contains(rule)),
            "{bundle:?}"
        );
        assert!(
            bundle.services.iter().all(|it| whole.services.contains(it)),
            "{bundle:?}"
        );
    }
}

fn believe_only_our_statement(trust: &Signed) {
    let Truth { fleet, .. } = &*TRUTH;
    if let Ok((_, statement)) = TrustAnchors::from_statement(trust, &fleet.authority.root_pin()) {
        assert_eq!(statement, fleet.statement);
    }
}

/// Messages of every kind.
pub(crate) fn seeds() -> Vec<Seed> {
    let fleet = SmallFleet::new();
    let mut seeds = Vec::new();
    let mut add = |name: &str, bytes: Vec<u8>| seeds.push(Seed::new(name, bytes));
    let record = &fleet.hosts[0];
    add(
        "signed",
        wire::encode_signed(&fleet.authority.sign_record(record)),
    );
    add(
        "trust-statement",
        wire::encode_trust_statement(&fleet.statement),
    );
    add("host-record", wire::encode_host_record(record));
    add("bundle-head", wire::encode_bundle_head(&fleet.head()));
    for (number, leaf) in fleet.bundle.leaves().iter().enumerate() {
        add(&format!("leaf-{number}"), wire::encode_leaf(leaf));
    }
    let tombstone = fleet.anchors().verify_tombstone(&fleet.tombstone());
    add(
        "tombstone",
        wire::encode_tombstone(&tombstone.expect("signed by us")),
    );
    add(
        "description",
        wire::encode_description(&fleet.description()),
    );
    add(
        "enrol-request",
        wire::encode_enrol_request(&enrol_request(&fleet)),
    );
    add("enrolled", wire::encode_enrolled(&enrolled(&fleet, record)));
    for (name, message) in to_host(&fleet) {
        add(&format!("to-host-{name}"), wire::encode_to_host(&message));
    }
    for (name, message) in from_host(&fleet) {
        add(
            &format!("from-host-{name}"),
            wire::encode_from_host(&message),
        );
    }
    let map = StoredMap {
        earlier: Vec::new(),
        trust: fleet.trust(),
        map: delta(&fleet, None),
        former: vec![FormerPeer {
            host: HostId::from_bytes([8; 16]),
            record: Revision::new(1, 2),
        }],
    };
    add("stored-map", stored::encode_map(&map));
    add(
        "stored-identity",
        stored::encode_identity(&identity(&fleet)).expose().to_vec(),
    );
    add(
        "stored-high-water",
        stored::encode_high_water(&high_water()),
    );
    seeds
}

/// A map with one peer, small enough for the corpus.
pub(crate) fn delta(fleet: &SmallFleet, base: Option<Revision>) -> MapDelta {
    let mut map = fleet.map();
    map.base = base;
    map.peers.truncate(1);
    if base.is_some() {
        map.record = None;
        map.policy = None;
        map.tombstones = vec![fleet.tombstone()];
        map.forgotten = vec![HostId::from_bytes([9; 16])];
    }
    map
}

fn enrol_request(fleet: &SmallFleet) -> EnrolRequest {
    let token = fleet.token();
    EnrolRequest {
        token: token.id,
        token_secret: token.secret,
        name: name("web-1"),
        wireguard_key: fleet.hosts[0].wireguard_key,
        certificate_request: tls_key().certificate_request(&name("web-1")),
        wireguard_proof: [8; 32],
        software_version: "1.0.0".to_owned(),
        machine_id: "machine".to_owned(),
        features: Vec::new(),
    }
}

fn enrolled(fleet: &SmallFleet, record: &HostRecord) -> Enrolled {
    let request = tls_key().certificate_request(&record.name);
    Enrolled {
        host: record.host,
        record: fleet.authority.sign_record(record),
        certificate_chain: fleet.host_chain(&record.name, &request),
    }
}

/// Nothing but another version of the policy.
fn policy_step(fleet: &SmallFleet) -> MapDelta {
    MapDelta {
        base: Some(Revision::new(1, 7)),
        revision: Revision::new(1, 8),
        head: Some(fleet.map_head(Revision::new(1, 8))),
        policy_step: Some(Arc::new(fleet.step())),
        ..MapDelta::default()
    }
}

/// What a coordinator says to a host.
pub(crate) fn to_host(fleet: &SmallFleet) -> Vec<(&'static str, ToHost)> {
    let chain = enrolled(fleet, &fleet.hosts[0]).certificate_chain;
    let query = FlowQuery {
        from: fleet.hosts[0].host,
        to: fleet.hosts[1].host,
        ip_protocol: ip_protocol::TCP,
        port: 5432,
    };
    let call = CallFacts {
        service: Some("orders".parse().expect("a name")),
        workload: Some("web".parse().expect("a name")),
        method: Some("GET".parse().expect("a method")),
        path: Some("/v1/items".parse().expect("a path")),
        host: Some("orders.example".parse().expect("a host")),
        headers: vec![HeaderFact {
            name: "x-debug".parse().expect("a header"),
            value: None,
        }],
        at_secs: Some(1_800_000_000),
    };
    let goodbye = Goodbye {
        reason: "the coordinator restarts".to_owned(),
        retry_after: Duration::from_secs(5),
        tombstone: Some(fleet.tombstone()),
    };
    vec![
        ("welcome", ToHost::Welcome(fleet.welcome())),
        ("map", ToHost::Map(delta(fleet, None))),
        (
            "delta",
            ToHost::Map(delta(fleet, Some(Revision::new(1, 2)))),
        ),
        ("policy-step", ToHost::Map(policy_step(fleet))),
        ("certificate", ToHost::Certificate(Ok(chain))),
        (
            "no-certificate",
            ToHost::Certificate(Err("not now".to_owned())),
        ),
        (
            "explain",
            ToHost::Explain {
                id: 7,
                query,
                call: None,
            },
        ),
        (
            "explain-a-call",
            ToHost::Explain {
                id: 8,
                query,
                call: Some(Box::new(call)),
            },
        ),
        ("goodbye", ToHost::Goodbye(goodbye)),
        ("pong", ToHost::Pong(9)),
        ("recall", ToHost::Recall),
        ("rotate-key", ToHost::RotateKey),
        ("key-refused", ToHost::KeyRefused("not now".to_owned())),
    ]
}

fn from_host(fleet: &SmallFleet) -> Vec<(&'static str, FromHost)> {
    let revision = Revision::new(1, 8);
    let trust = Some(HeldTrust {
        epoch: 1,
        serial: 1,
        certified_by: fleet.authority.root_pin(),
    });
    let hello = Hello {
        trust,
        have: Some(revision),
        software_version: "1.0.0".to_owned(),
        features: vec!["l4".to_owned()],
        boot_counter: 3,
    };
    let endpoint = fleet.entry(&fleet.hosts[1]).endpoints[0];
    let report = EndpointReport {
        endpoints: vec![endpoint],
        listen_port: 51820,
        stream_port: None,
    };
    let observation = FromHost::Observation {
        peer: fleet.hosts[1].host,
        address: endpoint.address,
    };
    let applied = Applied {
        trust,
        revision,
        policy: PolicyVersion(3),
        error: Some("the map is not signed".to_owned()),
        trouble: Some("there is no TUN device".to_owned()),
    };
    let rule = &fleet.bundle.allow[0];
    let explanation = Explanation {
        id: 7,
        policy: PolicyVersion(3),
        allowed: true,
        verdict: Some(Verdict::Depends),
        depends_on: vec!["the method".to_owned()],
        rule: Some(rule.id.clone()),
        source: Some(rule.source.clone()),
        notes: vec!["a rule comes close".to_owned()],
        pair: Some(PairFacts {
            addresses: vec![IpAddr::from([100, 64, 0, 16])],
            endpoint: Some(SocketAddr::from(([192, 0, 2, 1], 51820))),
            answers: true,
            last_handshake_secs: Some(60),
            last_drop: Some(PairDrop {
                secs_ago: 5,
                inbound: true,
                ip_protocol: ip_protocol::TCP,
                port: 22,
                rule: Some(rule.id.clone()),
            }),
            listener: Some(Listener::Elsewhere),
        }),
    };
    let new_key = NewKey {
        wireguard_key: fleet.hosts[1].wireguard_key,
        proof: [9; 32],
    };
    vec![
        ("hello", FromHost::Hello(hello)),
        ("endpoints", FromHost::Endpoints(report)),
        ("observation", observation),
        ("applied", FromHost::Applied(applied)),
        (
            "renew",
            FromHost::Renew(tls_key().certificate_request(&name("web-1"))),
        ),
        ("explanation", FromHost::Explanation(explanation)),
        ("leave", FromHost::Leave),
        ("ping", FromHost::Ping(9)),
        ("memory", FromHost::Memory(Box::new(memory(fleet)))),
        ("new-key", FromHost::NewKey(new_key)),
    ]
}

fn memory(fleet: &SmallFleet) -> Memory {
    Memory {
        trust: fleet.trust(),
        record: fleet.authority.sign_record(&fleet.hosts[0]),
        records: vec![fleet.authority.sign_record(&fleet.hosts[1])],
        tombstones: vec![fleet.tombstone()],
        policy: Some(fleet.slice()),
        last: true,
    }
}

fn identity(fleet: &SmallFleet) -> StoredIdentity {
    let enrolled = enrolled(fleet, &fleet.hosts[0]);
    StoredIdentity {
        wireguard_key_made: NOW,
        spare_key: Some(SpareKey {
            private_key: Secret::from_bytes([6; 32]),
            former_until: Some(NOW),
        }),
        wireguard_private_key: Secret::from_bytes([1; 32]),
        tls_private_key: Secret::from_bytes([4; 32]),
        membership: Some(Membership {
            host: enrolled.host,
            name: name("web-1"),
            root_pin: fleet.authority.root_pin(),
            certificate_chain: enrolled.certificate_chain,
        }),
        coordinators: vec!["c1.example.com:7443".to_owned()],
    }
}

fn high_water() -> StoredHighWater {
    StoredHighWater {
        revision: Revision::new(1, 8),
        policy_epoch: 1,
        policy: PolicyVersion(3),
        policy_digest: None,
        trust_epoch: 1,
        trust_serial: 1,
        handshake: NOW,
        boot_counter: 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_believed() {
        let Truth { fleet, anchors } = &*TRUTH;
        let slice = delta(fleet, None).policy.unwrap();
        assert!(anchors.verify_slice(&slice).is_ok());
        let bytes = seeds()
            .into_iter()
            .find(|seed| seed.name == "to-host-map")
            .unwrap();
        assert!(wire::decode_to_host(&bytes.bytes).is_ok());
    }
}
