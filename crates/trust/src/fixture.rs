//! Fleets for the tests: everything follows from one byte, so that two fleets differ in all of it.

use model::address::OverlayPrefixes;
use model::ids::{Digest, HostId, PolicyVersion, Revision};
use model::key::{Secret, WireguardKey};
use model::name::Name;
use model::record::{BundleHead, HostRecord, Tombstone, TrustStatement};
use model::rule::{Bundle, Rule, Selector, Source, Traffic};
use model::time::UnixTime;

use crate::{Authority, AuthoritySeeds, BundleTree, TrustAnchors};

/// 2026-11-22 12:00:00 UTC.
pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_795_348_800);

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn seeds(byte: u8) -> AuthoritySeeds {
    AuthoritySeeds {
        root: Secret::from_bytes([byte; 32]),
        records: Secret::from_bytes([byte ^ 0x40; 32]),
        enrolment: Secret::from_bytes([byte ^ 0x80; 32]),
    }
}

pub(crate) fn authority(byte: u8) -> Authority {
    Authority::create(&name("prod"), seeds(byte), NOW)
}

pub(crate) fn statement(authority: &Authority) -> TrustStatement {
    TrustStatement {
        fleet: authority.fleet_id(),
        epoch: 1,
        serial: 1,
        fleet_name: name("prod"),
        root_certificates: vec![authority.root_certificate().to_vec()],
        record_keys: vec![authority.record_key()],
        enrolment_key: authority.enrolment_key(),
        dns_suffix: "mesh.internal".into(),
        overlay: OverlayPrefixes::derived_from(authority.fleet_id()),
        previous: None,
    }
}

pub(crate) fn anchors(authority: &Authority) -> TrustAnchors {
    let signed = authority.sign_trust(&statement(authority));
    TrustAnchors::from_statement(&signed, &authority.root_pin())
        .unwrap()
        .0
}

pub(crate) fn record(authority: &Authority) -> HostRecord {
    HostRecord {
        fleet: authority.fleet_id(),
        host: HostId::from_bytes([7; 16]),
        name: name("web-1"),
        labels: [(
            "role".to_owned().try_into().unwrap(),
            "edge".to_owned().try_into().unwrap(),
        )]
        .into(),
        wireguard_key: WireguardKey::from_bytes([8; 32]),
        tls_key_hash: Digest::from_bytes([9; 32]),
        addresses: OverlayPrefixes::derived_from(authority.fleet_id())
            .nth_host(0)
            .unwrap(),
        offers_aes_256_gcm: false,
        revision: Revision::new(1, 5),
    }
}

pub(crate) fn tombstone(authority: &Authority) -> Tombstone {
    let record = record(authority);
    Tombstone {
        fleet: record.fleet,
        host: record.host,
        name: record.name,
        revision: Revision::new(1, 6),
        reason: "replaced".into(),
    }
}

fn rule(id: &str) -> Rule {
    Rule {
        id: id.parse().unwrap(),
        from: vec![Selector::Any],
        to: vec![Selector::Any],
        traffic: Traffic::All,
        http: Vec::new(),
        when: None,
        source: Source::default(),
    }
}

/// Two denies, four allows, no services: five leaves.
pub(crate) fn bundle() -> Bundle {
    Bundle {
        allow: ["a", "b", "c", "d"].map(rule).to_vec(),
        deny: ["x", "y"].map(rule).to_vec(),
        ..Bundle::default()
    }
}

pub(crate) fn head(authority: &Authority, tree: &BundleTree) -> BundleHead {
    BundleHead {
        fleet: authority.fleet_id(),
        epoch: 1,
        version: PolicyVersion(3),
        tree_root: tree.root(),
        leaf_count: tree.leaf_count(),
        previous: None,
        signed_at: NOW,
    }
}
