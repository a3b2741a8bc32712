//! Every noun survives the wire, nothing that comes over it panics, and what is out of bounds is
//! refused by the name of its field.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message;

use super::stored::{self, FORMAT};
use super::*;
use crate::control::EndpointReport;
use crate::ids::KeyId;
use crate::map::{MapDelta, PeerEntry, PolicySlice, ProvenLeaf};
use crate::record::Signature;
use crate::rule::{CipherDemand, Denies};

macro_rules! survives {
    ($($test:ident: $strategy:ident, $encode:path, $decode:path;)*) => {
        proptest! {
            #![proptest_config(ProptestConfig::with_cases(64))]
            $(
                #[test]
                fn $test(value in strategies::$strategy()) {
                    let bytes = $encode(&value);
                    prop_assert_eq!($encode(&value), bytes.clone());
                    prop_assert_eq!($decode(AsRef::<[u8]>::as_ref(&bytes)), Ok(value));
                }
            )*
        }
    };
}

survives! {
    signed_payloads_survive: signed, encode_signed, decode_signed;
    trust_statements_survive: trust_statement, encode_trust_statement, decode_trust_statement;
    host_records_survive: host_record, encode_host_record, decode_host_record;
    tombstones_survive: tombstone, encode_tombstone, decode_tombstone;
    map_heads_survive: map_head, encode_map_head, decode_map_head;
    bundle_heads_survive: bundle_head, encode_bundle_head, decode_bundle_head;
    leaves_survive: leaf, encode_leaf, decode_leaf;
    messages_to_hosts_survive: to_host, encode_to_host, decode_to_host;
    messages_from_hosts_survive: from_host, encode_from_host, decode_from_host;
    descriptions_survive: description, encode_description, decode_description;
    enrol_requests_survive: enrol_request, encode_enrol_request, decode_enrol_request;
    enrol_replies_survive: enrolled, encode_enrolled, decode_enrolled;
    stored_identities_survive: stored_identity, exposed_identity, stored::decode_identity;
    stored_maps_survive: stored_map, stored::encode_map, stored::decode_map;
    stored_marks_survive: stored_high_water, stored::encode_high_water, stored::decode_high_water;
}

fn exposed_identity(identity: &stored::StoredIdentity) -> Vec<u8> {
    stored::encode_identity(identity).expose().to_vec()
}

fn decode_as_everything(bytes: &[u8]) {
    let _ = decode_signed(bytes);
    let _ = decode_trust_statement(bytes);
    let _ = decode_host_record(bytes);
    let _ = decode_tombstone(bytes);
    let _ = decode_map_head(bytes);
    let _ = decode_bundle_head(bytes);
    let _ = decode_leaf(bytes);
    let _ = decode_to_host(bytes);
    let _ = decode_from_host(bytes);
    let _ = decode_description(bytes);
    let _ = decode_enrol_request(bytes);
    let _ = decode_enrolled(bytes);
    let _ = stored::decode_identity(bytes);
    let _ = stored::decode_map(bytes);
    let _ = stored::decode_high_water(bytes);
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..400)) {
        decode_as_everything(&bytes);
    }

    #[test]
    fn damaged_messages_never_panic(
        message in prop_oneof![
            strategies::to_host().prop_map(|message| encode_to_host(&message)),
            strategies::from_host().prop_map(|message| encode_from_host(&message)),
            strategies::leaf().prop_map(|leaf| encode_leaf(&leaf)),
            strategies::trust_statement().prop_map(|statement| encode_trust_statement(&statement)),
            strategies::stored_identity().prop_map(|identity| exposed_identity(&identity)),
        ],
        damage in vec((any::<Index>(), any::<u8>()), 1..4),
        cut in any::<Index>(),
    ) {
        prop_assume!(!message.is_empty());
        let mut bytes = message;
        for (position, value) in damage {
            let position = position.index(bytes.len());
            bytes[position] = value;
        }
        decode_as_everything(&bytes);
        decode_as_everything(&bytes[..cut.index(bytes.len())]);
    }
}

fn record() -> generated::HostRecord {
    let label = |key: &str| generated::Label {
        key: key.into(),
        value: "x".into(),
    };
    generated::HostRecord {
        fleet: vec![1; 16],
        host: vec![2; 16],
        name: "web-1".into(),
        labels: vec![label("env"), label("role")],
        wireguard_key: vec![3; 32],
        tls_key_hash: vec![4; 32],
        overlay_v4: vec![5; 4],
        overlay_v6: vec![6; 16],
        offers_aes_256_gcm: true,
        revision: Some(generated::Revision {
            epoch: 1,
            counter: 1,
        }),
    }
}

/// The field that refuses a record after `change`.
fn refused_record(change: impl FnOnce(&mut generated::HostRecord)) -> &'static str {
    let mut message = record();
    change(&mut message);
    HostRecord::try_from(message).unwrap_err().field
}

#[test]
fn a_record_is_refused_by_the_name_of_its_field() {
    assert!(HostRecord::try_from(record()).is_ok());
    assert_eq!(refused_record(|r| r.fleet.truncate(15)), "HostRecord.fleet");
    assert_eq!(refused_record(|r| r.host.push(0)), "HostRecord.host");
    assert_eq!(refused_record(|r| r.name = "Web".into()), "HostRecord.name");
    assert_eq!(
        refused_record(|r| r.wireguard_key.clear()),
        "HostRecord.wireguard_key"
    );
    assert_eq!(
        refused_record(|r| r.overlay_v4.push(0)),
        "HostRecord.overlay_v4"
    );
    assert_eq!(refused_record(|r| r.revision = None), "HostRecord.revision");
}

#[test]
fn labels_out_of_order_twice_or_too_many_are_refused() {
    assert_eq!(refused_record(|r| r.labels.reverse()), "HostRecord.labels");
    assert_eq!(
        refused_record(|r| r.labels[1].key = "env".into()),
        "HostRecord.labels"
    );
    let many = |r: &mut generated::HostRecord| {
        r.labels = (0..33)
            .map(|n| generated::Label {
                key: format!("k{n:02}"),
                value: "x".into(),
            })
            .collect();
    };
    assert_eq!(refused_record(many), "HostRecord.labels");
}

#[test]
fn a_leaf_that_says_more_than_is_understood_is_refused() {
    let leaf = Leaf::Denies(Denies::default());
    let mut bytes = encode_leaf(&leaf);
    assert_eq!(decode_leaf(&bytes), Ok(leaf));
    // Field 15, a varint: what a later version could add to a rule.
    bytes.extend([15 << 3, 1]);
    assert_eq!(decode_leaf(&bytes).unwrap_err().field, "Leaf");
}

/// A service as it was before services had settings.
const SERVICE_OF_BEFORE: [u8; 17] = [
    0x1a, 15, // the leaf's `service`
    0x0a, 2, b'd', b'b', // name
    0x10, 0xb8, 0x2a, // port 5432
    0x18, 1, // protocol tcp
    0x22, 2, 0x08, 1, // endpoints any
    0x2a, 0, // source
];

#[test]
fn a_leaf_of_before_says_what_it_said() {
    let leaf = decode_leaf(&SERVICE_OF_BEFORE).unwrap();
    assert_eq!(encode_leaf(&leaf), SERVICE_OF_BEFORE);
    let Leaf::Service(service) = leaf else {
        panic!("a service stays one")
    };
    assert_eq!((service.name.as_str(), service.port), ("db", 5432));
    assert_eq!((service.addresses, service.workloads.len()), (None, 0));
    assert_eq!(service.settings, crate::rule::TrafficSettings::default());
}

#[test]
fn a_protocol_of_a_later_version_is_refused() {
    let mut later = SERVICE_OF_BEFORE;
    later[10] = 99;
    let error = decode_leaf(&later).unwrap_err();
    assert_eq!(
        (error.field, error.why.as_str()),
        ("Service.protocol", "99 is unknown")
    );
}

#[test]
fn a_rule_cannot_reach_a_workload_nor_a_workload_be_anybody() {
    let selector = |kind| generated::Selector { kind: Some(kind) };
    let any = || selector(generated::selector::Kind::Any(true));
    let rule = |to| generated::Rule {
        id: "r".into(),
        from: vec![selector(generated::selector::Kind::Workload("web".into()))],
        to: vec![to],
        traffic: Some(generated::Traffic {
            kind: Some(generated::traffic::Kind::All(true)),
        }),
        source: Some(generated::Source::default()),
        ..Default::default()
    };
    assert!(crate::rule::Rule::try_from(rule(any())).is_ok());
    let to_workload = selector(generated::selector::Kind::Workload("web".into()));
    let error = crate::rule::Rule::try_from(rule(to_workload)).unwrap_err();
    assert_eq!(error.field, "Rule.to");

    let anybody = generated::Workload {
        name: "web".into(),
        hosts: vec![any()],
        source: Some(generated::Source::default()),
        ..Default::default()
    };
    let error = crate::rule::Workload::try_from(anybody).unwrap_err();
    assert_eq!(error.field, "Workload.unit");
}

#[test]
fn a_demand_of_a_later_version_is_refused() {
    let [none, standard, later] = [0, 1, 2].map(|cipher| {
        let rules = Vec::new();
        let denies = generated::Denies { rules, cipher };
        let kind = Some(generated::leaf::Kind::Denies(denies));
        generated::Leaf { kind }.encode_to_vec()
    });
    // As they were before there were demands.
    assert_eq!(none, [1 << 3 | 2, 0]);
    let standard = decode_leaf(&standard).unwrap();
    assert!(matches!(&standard, Leaf::Denies(it) if it.cipher == CipherDemand::Standard));
    assert_eq!(decode_leaf(&later).unwrap_err().field, "Denies.cipher");
}

#[test]
fn a_record_may_say_more_than_is_understood() {
    let mut bytes = record().encode_to_vec();
    bytes.extend([15 << 3, 1]);
    assert!(decode_host_record(&bytes).is_ok());
}

#[test]
fn unknown_enum_values_are_refused() {
    let endpoint = |kind| generated::Endpoint {
        address: "10.0.0.1:1".into(),
        kind,
    };
    assert!(crate::map::Endpoint::try_from(endpoint(1)).is_ok());
    for kind in [0, 5, -1] {
        let error = crate::map::Endpoint::try_from(endpoint(kind)).unwrap_err();
        assert_eq!(error.field, "Endpoint.kind");
    }
}

#[test]
fn endpoints_that_are_not_of_one_host_are_refused() {
    for address in [
        "0.0.0.0:1",
        "10.0.0.1:0",
        "224.0.0.1:1",
        "255.255.255.255:1",
        "[ff02::1]:1",
    ] {
        let message = generated::Endpoint {
            address: address.into(),
            kind: 1,
        };
        let error = crate::map::Endpoint::try_from(message).unwrap_err();
        assert_eq!(error.field, "Endpoint.address", "{address}");
    }
}

#[test]
fn an_empty_message_is_refused() {
    assert_eq!(decode_to_host(&[]).unwrap_err().field, "ToHost.message");
    assert_eq!(decode_from_host(&[]).unwrap_err().field, "FromHost.message");
}

#[test]
fn a_whole_map_needs_record_and_policy() {
    let message = generated::MapDelta {
        revision: Some(generated::Revision {
            epoch: 1,
            counter: 1,
        }),
        ..Default::default()
    };
    let error = MapDelta::try_from(message).unwrap_err();
    assert_eq!(error.field, "MapDelta.record");
}

#[test]
fn a_change_goes_forward_and_hints_may_stand_still() {
    let revision = |counter| Some(generated::Revision { epoch: 1, counter });
    let change = |base, next, forgotten: &[Vec<u8>]| {
        MapDelta::try_from(generated::MapDelta {
            base: revision(base),
            revision: revision(next),
            forgotten: forgotten.to_vec(),
            ..Default::default()
        })
        .map_err(|error| error.field)
        .map(|_| ())
    };
    assert_eq!(change(1, 2, &[vec![1; 16]]), Ok(()));
    assert_eq!(change(1, 1, &[]), Ok(()));
    assert_eq!(change(1, 1, &[vec![1; 16]]), Err("MapDelta.revision"));
    assert_eq!(change(2, 1, &[]), Err("MapDelta.revision"));
}

#[test]
fn two_signatures_by_one_key_are_refused() {
    let signature = generated::Signature {
        key_id: vec![1; 16],
        value: vec![0; 64],
    };
    let message = generated::Signed {
        payload: vec![1],
        signatures: vec![signature.clone(), signature],
    };
    let error = Signed::try_from(message).unwrap_err();
    assert_eq!(error.field, "Signed.signatures");
}

#[test]
fn texts_for_people_are_cut_when_sent_and_refused_when_they_steer_a_terminal() {
    let goodbye = |reason: String| {
        ToHost::Goodbye(crate::control::Goodbye {
            reason,
            retry_after: std::time::Duration::ZERO,
            tombstone: None,
        })
    };
    let sent = decode_to_host(&encode_to_host(&goodbye("\u{1b}[2J".repeat(2000)))).unwrap();
    let ToHost::Goodbye(received) = sent else {
        panic!("a goodbye stays one")
    };
    assert_eq!(received.reason.chars().count(), Limits::TEXT_CHARS);
    assert!(!received.reason.contains('\u{1b}'));

    let raw = generated::Goodbye {
        reason: "\u{1b}[2J".into(),
        ..Default::default()
    };
    let error = crate::control::Goodbye::try_from(raw).unwrap_err();
    assert_eq!(error.field, "Goodbye.reason");
}

#[test]
fn a_failure_without_words_stays_a_failure() {
    let refused = ToHost::Certificate(Err(String::new()));
    let received = decode_to_host(&encode_to_host(&refused)).unwrap();
    assert_eq!(received, ToHost::Certificate(Err("no reason given".into())));
}

#[test]
fn a_file_of_a_later_format_says_so() {
    let later = generated::StoredHighWater {
        format: FORMAT + 1,
        ..Default::default()
    };
    let error = stored::decode_high_water(&later.encode_to_vec()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "malformed message: StoredHighWater.format: 2, this version reads 1; was this program downgraded?"
    );
    assert_eq!(
        stored::decode_high_water(&[]).unwrap_err().field,
        "StoredHighWater.format"
    );
}

#[test]
fn who_does_not_tell_a_port_for_streams_is_of_an_earlier_version() {
    let of_before = generated::EndpointReport {
        endpoints: Vec::new(),
        listen_port: 51820,
        stream_port: 0,
    };
    let report = EndpointReport::try_from(of_before).unwrap();
    assert_eq!((report.listen_port, report.stream_port), (51820, None));
    let too_high = generated::EndpointReport {
        stream_port: 65536,
        ..generated::EndpointReport::default()
    };
    assert!(EndpointReport::try_from(too_high).is_err());
}

#[test]
fn a_map_that_changes_made_larger_than_any_message_comes_back_from_the_disk() {
    let signature = Signature {
        key_id: KeyId::from_bytes([1; 16]),
        value: [2; 64],
    };
    let signed = |length| Signed {
        payload: vec![3; length],
        signatures: vec![signature.clone()],
    };
    let entry = PeerEntry {
        record: signed(Limits::SIGNED_PAYLOAD_BYTES),
        endpoints: Vec::new(),
        stream_port: None,
    };
    let peers = Limits::CONTROL_MESSAGE_BYTES / Limits::SIGNED_PAYLOAD_BYTES + 1;
    let map = stored::StoredMap {
        trust: signed(1),
        map: MapDelta {
            record: Some(signed(1)),
            peers: vec![entry; peers],
            policy: Some(PolicySlice {
                head: signed(1),
                leaves: vec![ProvenLeaf {
                    index: 0,
                    leaf: vec![4],
                    path: Vec::new(),
                }],
            }),
            ..MapDelta::default()
        },
        former: Vec::new(),
        earlier: Vec::new(),
    };
    let bytes = stored::encode_map(&map);
    assert!(bytes.len() > Limits::CONTROL_MESSAGE_BYTES);
    assert!(stored::decode_map(&bytes) == Ok(map));
}

#[test]
fn errors_of_an_identity_do_not_show_its_secrets() {
    let message = generated::StoredIdentity {
        format: FORMAT,
        wireguard_private_key: vec![171; 31],
        tls_private_key: vec![205; 32],
        ..Default::default()
    };
    let error = stored::decode_identity(&message.encode_to_vec()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "malformed message: StoredIdentity.wireguard_private_key: 31 bytes, 32 were expected"
    );
}

#[test]
fn a_message_beyond_its_bound_is_not_decoded() {
    let bytes = vec![0; Limits::REPORT_BYTES + 1];
    let error = decode_from_host(&bytes).unwrap_err();
    assert_eq!(error.why, "262145 bytes, at most 262144 are allowed");
}

#[test]
fn generated_messages_do_not_print_secrets() {
    let request = generated::EnrolRequest {
        token_secret: vec![171; 16],
        ..generated::EnrolRequest::default()
    };
    let identity = generated::StoredIdentity {
        wireguard_private_key: vec![171; 32],
        tls_private_key: vec![171; 32],
        ..generated::StoredIdentity::default()
    };
    let printed = format!("{request:?} {identity:?}");
    assert!(!printed.contains("171"), "{printed}");
}

#[test]
fn a_peer_cannot_make_the_report_of_who_hears_it_malformed() {
    let decoded = |address: &str| {
        let message = FromHost::Observation {
            peer: crate::ids::HostId::from_bytes([1; 16]),
            address: address.parse().unwrap(),
        };
        decode_from_host(&encode_from_host(&message)).is_ok()
    };
    for heard in ["192.0.2.1:51820", "192.0.2.1:0", "[::]:51820"] {
        assert!(decoded(heard), "{heard}");
    }
    for never_heard in ["224.0.0.1:1", "255.255.255.255:1"] {
        assert!(!decoded(never_heard), "{never_heard}");
    }
}
