//! Arbitrary well-formed nouns, for the property tests of the codecs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::stored::{FormerPeer, Membership, SpareKey, StoredHighWater, StoredIdentity, StoredMap};
use crate::address::{HostAddresses, OverlayPrefixes};
use crate::control::{
    Applied, Description, EndpointReport, EnrolRequest, Enrolled, Explanation, FromHost, Goodbye,
    HeldTrust, Hello, NewKey, ToHost, Welcome,
};
use crate::ids::{Digest, FleetId, HostId, KeyId, PolicyVersion, Revision, TokenId};
use crate::key::{Secret, WireguardKey};
use crate::map::{
    Endpoint, EndpointKind, MapDelta, PeerEntry, PolicySlice, PolicyStep, ProvenLeaf, TreeNode,
};
use crate::memory::Memory;
use crate::name::{LabelKey, LabelValue, Labels, Name, RESERVED_NAMES, RuleId};
use crate::pair::{Listener, PairDrop, PairFacts};
use crate::record::{
    BundleHead, HostRecord, MapHead, Signature, Signed, Tombstone, TrustStatement,
};
use crate::rule::FlowQuery;
use crate::time::UnixTime;

mod question;
mod rule;

use question::{call_facts, verdict};
pub(super) use rule::leaf;
use rule::source;

fn host() -> impl Strategy<Value = HostId> {
    any::<[u8; 16]>().prop_map(HostId::from_bytes)
}

fn fleet() -> impl Strategy<Value = FleetId> {
    any::<[u8; 16]>().prop_map(FleetId::from_bytes)
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest::from_bytes)
}

fn name() -> impl Strategy<Value = Name> {
    "[a-z0-9]([a-z0-9-]{0,12}[a-z0-9])?"
        .prop_filter("reserved", |text| !RESERVED_NAMES.contains(&text.as_str()))
        .prop_map(|text| text.parse().unwrap())
}

fn rule_id() -> impl Strategy<Value = RuleId> {
    "[a-zA-Z0-9_.-]{1,20}".prop_map(|text| text.parse().unwrap())
}

fn label_pair() -> impl Strategy<Value = (LabelKey, LabelValue)> {
    ("[a-z]{1,6}", "[a-zA-Z0-9.]{1,8}")
        .prop_map(|(key, value)| (key.parse().unwrap(), value.parse().unwrap()))
}

fn labels() -> impl Strategy<Value = Labels> {
    vec(label_pair(), 0..6).prop_map(|pairs| pairs.into_iter().collect())
}

fn text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9 .,:;é→]{0,40}"
}

fn time() -> impl Strategy<Value = UnixTime> {
    any::<u64>().prop_map(UnixTime::from_secs)
}

fn revision() -> impl Strategy<Value = Revision> {
    (any::<u64>(), any::<u64>()).prop_map(|(epoch, counter)| Revision { epoch, counter })
}

fn version() -> impl Strategy<Value = PolicyVersion> {
    (1..u64::MAX).prop_map(PolicyVersion)
}

fn blob() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 1..60)
}

fn certificates() -> impl Strategy<Value = Vec<Vec<u8>>> {
    vec(blob(), 1..4)
}

pub(super) fn signed() -> impl Strategy<Value = Signed> {
    let signatures = btree_map(any::<[u8; 16]>(), any::<[u8; 64]>(), 1..4).prop_map(|pairs| {
        let signature = |(id, value)| Signature {
            key_id: KeyId::from_bytes(id),
            value,
        };
        pairs.into_iter().map(signature).collect()
    });
    (blob(), signatures).prop_map(|(payload, signatures)| Signed {
        payload,
        signatures,
    })
}

pub(super) fn trust_statement() -> impl Strategy<Value = TrustStatement> {
    let keys = (
        certificates(),
        vec(any::<[u8; 32]>(), 1..4),
        any::<[u8; 32]>(),
    );
    let numbers = (any::<u64>(), any::<u64>());
    let suffix = "[a-z]{1,8}(\\.[a-z0-9]{1,8}){0,3}";
    (fleet(), numbers, name(), keys, suffix, option::of(digest())).prop_map(
        |(fleet, (epoch, serial), fleet_name, (roots, records, enrolment), suffix, previous)| {
            TrustStatement {
                fleet,
                epoch,
                serial,
                fleet_name,
                root_certificates: roots,
                record_keys: records,
                enrolment_key: enrolment,
                dns_suffix: suffix,
                overlay: OverlayPrefixes::derived_from(fleet),
                previous,
            }
        },
    )
}

pub(super) fn host_record() -> impl Strategy<Value = HostRecord> {
    let addresses = (any::<[u8; 4]>(), any::<[u8; 16]>()).prop_map(|(v4, v6)| HostAddresses {
        v4: v4.into(),
        v6: v6.into(),
    });
    let key = any::<[u8; 32]>().prop_map(WireguardKey::from_bytes);
    (
        fleet(),
        host(),
        name(),
        labels(),
        key,
        digest(),
        addresses,
        (any::<bool>(), revision()),
    )
        .prop_map(
            |(fleet, host, name, labels, wireguard_key, tls_key_hash, addresses, last)| {
                let (offers_aes_256_gcm, revision) = last;
                HostRecord {
                    fleet,
                    host,
                    name,
                    labels,
                    wireguard_key,
                    tls_key_hash,
                    addresses,
                    offers_aes_256_gcm,
                    revision,
                }
            },
        )
}

pub(super) fn tombstone() -> impl Strategy<Value = Tombstone> {
    (fleet(), host(), name(), revision(), text()).prop_map(
        |(fleet, host, name, revision, reason)| Tombstone {
            fleet,
            host,
            name,
            revision,
            reason,
        },
    )
}

pub(super) fn map_head() -> impl Strategy<Value = MapHead> {
    (fleet(), revision()).prop_map(|(fleet, revision)| MapHead { fleet, revision })
}

pub(super) fn bundle_head() -> impl Strategy<Value = BundleHead> {
    let numbers = (any::<u64>(), version(), 1u32..1000);
    (fleet(), numbers, digest(), option::of(digest()), time()).prop_map(
        |(fleet, (epoch, version, leaf_count), tree_root, previous, signed_at)| BundleHead {
            fleet,
            epoch,
            version,
            tree_root,
            leaf_count,
            previous,
            signed_at,
        },
    )
}

fn underlay() -> impl Strategy<Value = SocketAddr> {
    let address = prop_oneof![
        any::<[u8; 3]>().prop_map(|[a, b, c]| [10, a, b, c].into()),
        any::<[u8; 15]>().prop_map(|tail| {
            let mut octets = [0x20; 16];
            octets[1..].copy_from_slice(&tail);
            std::net::IpAddr::from(octets)
        }),
    ];
    (address, 1..u16::MAX).prop_map(SocketAddr::from)
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let kind = prop_oneof![
        Just(EndpointKind::Configured),
        Just(EndpointKind::Interface),
        Just(EndpointKind::Peer),
        Just(EndpointKind::Coordinator),
    ];
    (underlay(), kind).prop_map(|(address, kind)| Endpoint { address, kind })
}

fn policy_slice() -> impl Strategy<Value = PolicySlice> {
    let leaf = (0u32..1000, blob(), vec(digest(), 0..5))
        .prop_map(|(index, leaf, path)| ProvenLeaf { index, leaf, path });
    (signed(), vec(leaf, 1..4)).prop_map(|(head, leaves)| PolicySlice { head, leaves })
}

fn policy_step() -> impl Strategy<Value = PolicyStep> {
    let node = (any::<u32>(), any::<u32>(), digest()).prop_map(|(level, index, hash)| TreeNode {
        level,
        index,
        hash,
    });
    let lists = (vec(any::<u32>(), 0..3), vec(node, 0..3));
    (policy_slice(), lists).prop_map(|(slice, (dropped, nodes))| PolicyStep {
        head: slice.head,
        dropped,
        leaves: slice.leaves,
        nodes,
    })
}

fn whole_map() -> impl Strategy<Value = MapDelta> {
    let peer = (signed(), vec(endpoint(), 0..4), option::of(1u16..)).prop_map(
        |(record, endpoints, stream_port)| PeerEntry {
            record,
            endpoints,
            stream_port,
        },
    );
    let lists = (vec(peer, 0..3), vec(signed(), 0..3), vec(host(), 0..3));
    let head = (revision(), option::of(signed()), vec(signed(), 0..3));
    (head, signed(), lists, policy_slice()).prop_map(
        |((revision, head, trust), record, (peers, tombstones, forgotten), policy)| MapDelta {
            base: None,
            revision,
            head,
            trust,
            record: Some(record),
            peers,
            tombstones,
            forgotten,
            policy: Some(policy),
            policy_step: None,
        },
    )
}

fn map_delta() -> impl Strategy<Value = MapDelta> {
    let keep = (any::<bool>(), any::<bool>());
    let change =
        (whole_map(), 0..u64::MAX, keep).prop_map(|(mut map, counter, (record, policy))| {
            map.base = Some(Revision {
                epoch: map.revision.epoch,
                counter,
            });
            map.revision.counter = counter + 1;
            map.record = map.record.filter(|_| record);
            map.policy = map.policy.filter(|_| policy);
            map
        });
    let change = (change, option::of(policy_step())).prop_map(|(mut map, step)| {
        map.policy_step = step.filter(|_| map.policy.is_none()).map(Arc::new);
        map
    });
    prop_oneof![whole_map(), change]
}

pub(super) fn to_host() -> impl Strategy<Value = ToHost> {
    let trust = (signed(), vec(signed(), 0..3));
    let welcome = (trust, option::of(underlay()), text(), time()).prop_map(
        |((trust, earlier), observed, software_version, unix)| {
            let observed = observed.map(|address| address.ip());
            ToHost::Welcome(Welcome {
                trust,
                earlier,
                observed,
                software_version,
                unix,
            })
        },
    );
    let certificate = prop_oneof![certificates().prop_map(Ok), "[a-z ]{1,20}".prop_map(Err),];
    let query =
        (host(), host(), any::<u8>(), any::<u16>()).prop_map(|(from, to, ip_protocol, port)| {
            FlowQuery {
                from,
                to,
                ip_protocol,
                port,
            }
        });
    let goodbye =
        (text(), any::<u64>(), option::of(signed())).prop_map(|(reason, millis, tombstone)| {
            let retry_after = Duration::from_millis(millis);
            ToHost::Goodbye(Goodbye {
                reason,
                retry_after,
                tombstone,
            })
        });
    prop_oneof![
        welcome,
        map_delta().prop_map(ToHost::Map),
        certificate.prop_map(ToHost::Certificate),
        (any::<u64>(), query, option::of(call_facts())).prop_map(|(id, query, call)| {
            ToHost::Explain {
                id,
                query,
                call: call.map(Box::new),
            }
        }),
        goodbye,
        any::<u64>().prop_map(ToHost::Pong),
        Just(ToHost::RotateKey),
        text().prop_map(ToHost::KeyRefused),
        Just(ToHost::Recall),
    ]
}

fn memory() -> impl Strategy<Value = Memory> {
    let records = (vec(signed(), 0..3), vec(signed(), 0..3));
    let policy = option::of(policy_slice());
    (signed(), signed(), records, policy, any::<bool>()).prop_map(
        |(trust, record, (records, tombstones), policy, last)| Memory {
            trust,
            record,
            records,
            tombstones,
            policy,
            last,
        },
    )
}

fn held_trust() -> impl Strategy<Value = HeldTrust> {
    (any::<u64>(), any::<u64>(), digest()).prop_map(|(epoch, serial, certified_by)| HeldTrust {
        epoch,
        serial,
        certified_by,
    })
}

pub(super) fn from_host() -> impl Strategy<Value = FromHost> {
    let hello = (
        option::of(revision()),
        text(),
        vec(text(), 0..4),
        any::<u64>(),
        option::of(held_trust()),
    )
        .prop_map(|(have, software_version, features, boot_counter, trust)| {
            FromHost::Hello(Hello {
                have,
                software_version,
                features,
                boot_counter,
                trust,
            })
        });
    let ports = (any::<u16>(), option::of(1u16..));
    let endpoints =
        (vec(endpoint(), 0..4), ports).prop_map(|(endpoints, (listen_port, stream_port))| {
            FromHost::Endpoints(EndpointReport {
                endpoints,
                listen_port,
                stream_port,
            })
        });
    let applied = (
        revision(),
        version(),
        option::of("[a-z ]{1,20}"),
        option::of("[a-z ]{1,20}"),
        option::of(held_trust()),
    );
    let applied = applied.prop_map(|(revision, policy, error, trouble, trust)| {
        FromHost::Applied(Applied {
            revision,
            policy,
            error,
            trouble,
            trust,
        })
    });
    let decision = (
        version(),
        any::<bool>(),
        option::of(rule_id()),
        option::of(source()),
    );
    let explanation = (
        any::<u64>(),
        decision,
        option::of(verdict()),
        (vec(text(), 0..4), vec(text(), 0..4)),
        option::of(pair()),
    )
        .prop_map(
            |(id, (policy, allowed, rule, source), verdict, told, pair)| {
                let (depends_on, notes) = told;
                FromHost::Explanation(Explanation {
                    id,
                    policy,
                    allowed,
                    verdict,
                    depends_on,
                    rule,
                    source,
                    notes,
                    pair,
                })
            },
        );
    prop_oneof![
        hello,
        endpoints,
        (host(), underlay()).prop_map(|(peer, address)| FromHost::Observation { peer, address }),
        applied,
        blob().prop_map(FromHost::Renew),
        explanation,
        Just(FromHost::Leave),
        any::<[[u8; 32]; 2]>().prop_map(|[key, proof]| {
            FromHost::NewKey(NewKey {
                wireguard_key: WireguardKey::from_bytes(key),
                proof,
            })
        }),
        any::<u64>().prop_map(FromHost::Ping),
        memory().prop_map(|memory| FromHost::Memory(Box::new(memory))),
    ]
}

fn pair() -> impl Strategy<Value = PairFacts> {
    let drop = (
        any::<u64>(),
        any::<bool>(),
        any::<u8>(),
        any::<u16>(),
        option::of(rule_id()),
    )
        .prop_map(|(secs_ago, inbound, ip_protocol, port, rule)| PairDrop {
            secs_ago,
            inbound,
            ip_protocol,
            port,
            rule,
        });
    let listener = option::of(prop_oneof![
        Just(Listener::Listening),
        Just(Listener::Elsewhere),
        Just(Listener::Nothing),
    ]);
    (
        vec(underlay().prop_map(|address| address.ip()), 0..3),
        option::of(underlay()),
        any::<bool>(),
        option::of(any::<u64>()),
        option::of(drop),
        listener,
    )
        .prop_map(
            |(addresses, endpoint, answers, last_handshake_secs, last_drop, listener)| PairFacts {
                addresses,
                endpoint,
                answers,
                last_handshake_secs,
                last_drop,
                listener,
            },
        )
}

pub(super) fn description() -> impl Strategy<Value = Description> {
    (signed(), text(), time()).prop_map(|(trust, software_version, unix)| Description {
        trust,
        software_version,
        unix,
    })
}

pub(super) fn enrol_request() -> impl Strategy<Value = EnrolRequest> {
    let token = (any::<[u8; 8]>(), any::<[u8; 16]>());
    let keys = (any::<[u8; 32]>(), blob(), any::<[u8; 32]>());
    (token, name(), keys, text(), text(), vec(text(), 0..4)).prop_map(
        |(token, name, (key, request, proof), software_version, machine_id, features)| {
            EnrolRequest {
                token: TokenId::from_bytes(token.0),
                token_secret: token.1,
                name,
                wireguard_key: WireguardKey::from_bytes(key),
                certificate_request: request,
                wireguard_proof: proof,
                software_version,
                machine_id,
                features,
            }
        },
    )
}

pub(super) fn enrolled() -> impl Strategy<Value = Enrolled> {
    (host(), signed(), certificates()).prop_map(|(host, record, certificate_chain)| Enrolled {
        host,
        record,
        certificate_chain,
    })
}

pub(super) fn stored_identity() -> impl Strategy<Value = StoredIdentity> {
    let membership = (host(), name(), digest(), certificates()).prop_map(
        |(host, name, root_pin, certificate_chain)| Membership {
            host,
            name,
            root_pin,
            certificate_chain,
        },
    );
    let secret = || any::<[u8; 32]>().prop_map(Secret::from_bytes);
    let coordinators = vec("[a-z]{1,8}\\.example:[1-9][0-9]{0,3}", 0..4);
    let former_until = option::of((1..u64::MAX).prop_map(UnixTime::from_secs));
    let spare_key = (secret(), former_until).prop_map(|(private_key, former_until)| SpareKey {
        private_key,
        former_until,
    });
    let keys = (secret(), secret(), time(), option::of(spare_key));
    (keys, option::of(membership), coordinators).prop_map(
        |((wireguard_private_key, tls_private_key, made, spare_key), membership, coordinators)| {
            StoredIdentity {
                wireguard_private_key,
                tls_private_key,
                wireguard_key_made: made,
                spare_key,
                membership,
                coordinators,
            }
        },
    )
}

pub(super) fn stored_map() -> impl Strategy<Value = StoredMap> {
    let former = (host(), revision()).prop_map(|(host, record)| FormerPeer { host, record });
    let trust = (signed(), vec(signed(), 0..3));
    (trust, whole_map(), vec(former, 0..4)).prop_map(|((trust, earlier), map, former)| StoredMap {
        trust,
        map,
        former,
        earlier,
    })
}

pub(super) fn stored_high_water() -> impl Strategy<Value = StoredHighWater> {
    let trust = (any::<u64>(), any::<u64>());
    (
        revision(),
        (any::<u64>(), version(), option::of(digest())),
        trust,
        any::<u64>(),
        any::<u64>(),
    )
        .prop_map(
            |(
                revision,
                (policy_epoch, policy, policy_digest),
                (trust_epoch, trust_serial),
                nanos,
                boot_counter,
            )| {
                StoredHighWater {
                    revision,
                    policy_epoch,
                    policy,
                    policy_digest,
                    trust_epoch,
                    trust_serial,
                    handshake: UnixTime::from_duration(Duration::from_nanos(nanos)),
                    boot_counter,
                }
            },
        )
}
