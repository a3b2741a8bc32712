//! What is signed: trust statements, host records, tombstones, bundle heads, and their envelope.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::{WireError, field, generated};
use crate::address::{HostAddresses, OverlayPrefixes};
use crate::ids::{PolicyVersion, Revision};
use crate::limits::Limits;
use crate::name::{Label, Labels, is_dns_suffix};
use crate::record::{
    BundleHead, HostRecord, MapHead, Signature, Signed, Tombstone, TrustStatement,
};
use crate::time::UnixTime;

impl From<Signed> for generated::Signed {
    fn from(signed: Signed) -> Self {
        Self {
            payload: signed.payload,
            signatures: signed.signatures.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<generated::Signed> for Signed {
    type Error = WireError;

    fn try_from(message: generated::Signed) -> Result<Self, WireError> {
        let payload = field::blob(
            "Signed.payload",
            message.payload,
            Limits::SIGNED_PAYLOAD_BYTES,
        )?;
        let signatures: Vec<Signature> = field::some_list(
            "Signed.signatures",
            message.signatures,
            Limits::SIGNATURES,
            TryInto::try_into,
        )?;
        let keys: BTreeSet<_> = signatures
            .iter()
            .map(|signature| signature.key_id)
            .collect();
        if keys.len() != signatures.len() {
            return Err(WireError::new(
                "Signed.signatures",
                "two are by the same key",
            ));
        }
        Ok(Self {
            payload,
            signatures,
        })
    }
}

impl From<Signature> for generated::Signature {
    fn from(signature: Signature) -> Self {
        Self {
            key_id: signature.key_id.as_bytes().to_vec(),
            value: signature.value.to_vec(),
        }
    }
}

impl TryFrom<generated::Signature> for Signature {
    type Error = WireError;

    fn try_from(message: generated::Signature) -> Result<Self, WireError> {
        Ok(Self {
            key_id: field::id("Signature.key_id", &message.key_id)?,
            value: field::array("Signature.value", &message.value)?,
        })
    }
}

impl From<TrustStatement> for generated::TrustStatement {
    fn from(statement: TrustStatement) -> Self {
        Self {
            fleet: statement.fleet.as_bytes().to_vec(),
            epoch: statement.epoch,
            serial: statement.serial,
            fleet_name: statement.fleet_name.into(),
            root_certificates: statement.root_certificates,
            record_keys: statement
                .record_keys
                .iter()
                .map(|key| key.to_vec())
                .collect(),
            enrolment_key: statement.enrolment_key.to_vec(),
            dns_suffix: statement.dns_suffix,
            overlay_v4: statement.overlay.v4.to_string(),
            overlay_v6: statement.overlay.v6.to_string(),
            previous_hash: statement
                .previous
                .map_or_else(Vec::new, |hash| hash.as_bytes().to_vec()),
        }
    }
}

impl TryFrom<generated::TrustStatement> for TrustStatement {
    type Error = WireError;

    fn try_from(message: generated::TrustStatement) -> Result<Self, WireError> {
        let root_certificates = field::some_list(
            "TrustStatement.root_certificates",
            message.root_certificates,
            Limits::ROOT_CERTIFICATES,
            |der| {
                field::blob(
                    "TrustStatement.root_certificates",
                    der,
                    Limits::CERTIFICATE_BYTES,
                )
            },
        )?;
        let record_keys = field::some_list(
            "TrustStatement.record_keys",
            message.record_keys,
            Limits::RECORD_KEYS,
            |key| field::array("TrustStatement.record_keys", &key),
        )?;
        let overlay = OverlayPrefixes::checked(
            field::parsed("TrustStatement.overlay_v4", &message.overlay_v4)?,
            field::parsed("TrustStatement.overlay_v6", &message.overlay_v6)?,
        )
        .map_err(|error| WireError::new("TrustStatement.overlay_v4", error.to_string()))?;
        Ok(Self {
            fleet: field::id("TrustStatement.fleet", &message.fleet)?,
            epoch: message.epoch,
            serial: message.serial,
            fleet_name: field::parsed("TrustStatement.fleet_name", &message.fleet_name)?,
            root_certificates,
            record_keys,
            enrolment_key: field::array("TrustStatement.enrolment_key", &message.enrolment_key)?,
            dns_suffix: dns_suffix(message.dns_suffix)?,
            overlay,
            previous: field::optional_id("TrustStatement.previous_hash", &message.previous_hash)?,
        })
    }
}

fn dns_suffix(text: String) -> Result<String, WireError> {
    if is_dns_suffix(&text) {
        return Ok(text);
    }
    Err(WireError::new(
        "TrustStatement.dns_suffix",
        format!(
            "{:?} is not a DNS suffix such as mesh.internal",
            field::clipped(&text)
        ),
    ))
}

impl From<Revision> for generated::Revision {
    fn from(revision: Revision) -> Self {
        Self {
            epoch: revision.epoch,
            counter: revision.counter,
        }
    }
}

impl From<generated::Revision> for Revision {
    fn from(message: generated::Revision) -> Self {
        Self {
            epoch: message.epoch,
            counter: message.counter,
        }
    }
}

impl From<Label> for generated::Label {
    fn from(label: Label) -> Self {
        Self {
            key: label.key.into(),
            value: label.value.into(),
        }
    }
}

impl TryFrom<generated::Label> for Label {
    type Error = WireError;

    fn try_from(message: generated::Label) -> Result<Self, WireError> {
        Ok(Self {
            key: field::parsed("Label.key", &message.key)?,
            value: field::parsed("Label.value", &message.value)?,
        })
    }
}

impl From<HostRecord> for generated::HostRecord {
    fn from(record: HostRecord) -> Self {
        Self {
            fleet: record.fleet.as_bytes().to_vec(),
            host: record.host.as_bytes().to_vec(),
            name: record.name.into(),
            labels: record
                .labels
                .into_iter()
                .map(|pair| Label::from(pair).into())
                .collect(),
            wireguard_key: record.wireguard_key.as_bytes().to_vec(),
            tls_key_hash: record.tls_key_hash.as_bytes().to_vec(),
            overlay_v4: record.addresses.v4.octets().to_vec(),
            overlay_v6: record.addresses.v6.octets().to_vec(),
            offers_aes_256_gcm: record.offers_aes_256_gcm,
            revision: Some(record.revision.into()),
        }
    }
}

impl TryFrom<generated::HostRecord> for HostRecord {
    type Error = WireError;

    fn try_from(message: generated::HostRecord) -> Result<Self, WireError> {
        let v4: [u8; 4] = field::array("HostRecord.overlay_v4", &message.overlay_v4)?;
        let v6: [u8; 16] = field::array("HostRecord.overlay_v6", &message.overlay_v6)?;
        Ok(Self {
            fleet: field::id("HostRecord.fleet", &message.fleet)?,
            host: field::id("HostRecord.host", &message.host)?,
            name: field::parsed("HostRecord.name", &message.name)?,
            labels: labels(message.labels)?,
            wireguard_key: field::id("HostRecord.wireguard_key", &message.wireguard_key)?,
            tls_key_hash: field::id("HostRecord.tls_key_hash", &message.tls_key_hash)?,
            addresses: HostAddresses {
                v4: Ipv4Addr::from(v4),
                v6: Ipv6Addr::from(v6),
            },
            offers_aes_256_gcm: message.offers_aes_256_gcm,
            revision: field::required("HostRecord.revision", message.revision)?.into(),
        })
    }
}

/// Labels in the order of their keys, each key once: one set of labels has one encoding.
fn labels(messages: Vec<generated::Label>) -> Result<Labels, WireError> {
    const FIELD: &str = "HostRecord.labels";
    let list: Vec<Label> =
        field::list(FIELD, messages, Limits::LABELS_PER_HOST, TryInto::try_into)?;
    if !list.is_sorted_by(|a, b| a.key < b.key) {
        return Err(WireError::new(
            FIELD,
            "their keys are not sorted, or one is there twice",
        ));
    }
    Ok(list
        .into_iter()
        .map(|label| (label.key, label.value))
        .collect())
}

impl From<Tombstone> for generated::Tombstone {
    fn from(tombstone: Tombstone) -> Self {
        Self {
            fleet: tombstone.fleet.as_bytes().to_vec(),
            host: tombstone.host.as_bytes().to_vec(),
            name: tombstone.name.into(),
            revision: Some(tombstone.revision.into()),
            reason: field::clipped(&tombstone.reason),
        }
    }
}

impl TryFrom<generated::Tombstone> for Tombstone {
    type Error = WireError;

    fn try_from(message: generated::Tombstone) -> Result<Self, WireError> {
        Ok(Self {
            fleet: field::id("Tombstone.fleet", &message.fleet)?,
            host: field::id("Tombstone.host", &message.host)?,
            name: field::parsed("Tombstone.name", &message.name)?,
            revision: field::required("Tombstone.revision", message.revision)?.into(),
            reason: field::text("Tombstone.reason", message.reason)?,
        })
    }
}

impl From<MapHead> for generated::MapHead {
    fn from(head: MapHead) -> Self {
        Self {
            fleet: head.fleet.as_bytes().to_vec(),
            revision: Some(head.revision.into()),
        }
    }
}

impl TryFrom<generated::MapHead> for MapHead {
    type Error = WireError;

    fn try_from(message: generated::MapHead) -> Result<Self, WireError> {
        Ok(Self {
            fleet: field::id("MapHead.fleet", &message.fleet)?,
            revision: field::required("MapHead.revision", message.revision)?.into(),
        })
    }
}

impl From<BundleHead> for generated::BundleHead {
    fn from(head: BundleHead) -> Self {
        Self {
            fleet: head.fleet.as_bytes().to_vec(),
            epoch: head.epoch,
            version: head.version.0,
            tree_root: head.tree_root.as_bytes().to_vec(),
            leaf_count: head.leaf_count,
            previous_hash: head
                .previous
                .map_or_else(Vec::new, |hash| hash.as_bytes().to_vec()),
            signed_at_secs: head.signed_at.as_secs(),
        }
    }
}

impl TryFrom<generated::BundleHead> for BundleHead {
    type Error = WireError;

    fn try_from(message: generated::BundleHead) -> Result<Self, WireError> {
        if message.version == 0 {
            return Err(WireError::new(
                "BundleHead.version",
                "0, versions count from 1",
            ));
        }
        if message.leaf_count == 0 {
            return Err(WireError::new(
                "BundleHead.leaf_count",
                "0, leaf 0 is always there",
            ));
        }
        field::at_most(
            "BundleHead.leaf_count",
            message.leaf_count as usize,
            Limits::LEAVES,
        )?;
        Ok(Self {
            fleet: field::id("BundleHead.fleet", &message.fleet)?,
            epoch: message.epoch,
            version: PolicyVersion(message.version),
            tree_root: field::id("BundleHead.tree_root", &message.tree_root)?,
            leaf_count: message.leaf_count,
            previous: field::optional_id("BundleHead.previous_hash", &message.previous_hash)?,
            signed_at: UnixTime::from_secs(message.signed_at_secs),
        })
    }
}
