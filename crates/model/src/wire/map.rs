//! Maps and their changes: peers, endpoints, the leaves of the policy with their proofs.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{WireError, field, generated};
use crate::address::is_one_host;
use crate::limits::Limits;
use crate::map::{
    Endpoint, EndpointKind, MapDelta, PeerEntry, PolicySlice, PolicyStep, ProvenLeaf, TreeNode,
};

impl From<MapDelta> for generated::MapDelta {
    fn from(delta: MapDelta) -> Self {
        Self {
            base: delta.base.map(Into::into),
            revision: Some(delta.revision.into()),
            head: delta.head.map(Into::into),
            trust: delta.trust.into_iter().map(Into::into).collect(),
            record: delta.record.map(Into::into),
            peers: delta.peers.into_iter().map(Into::into).collect(),
            tombstones: delta.tombstones.into_iter().map(Into::into).collect(),
            forgotten: delta
                .forgotten
                .iter()
                .map(|host| host.as_bytes().to_vec())
                .collect(),
            policy: delta.policy.map(Into::into),
            policy_step: delta
                .policy_step
                .map(|step| Arc::unwrap_or_clone(step).into()),
        }
    }
}

impl TryFrom<generated::MapDelta> for MapDelta {
    type Error = WireError;

    fn try_from(message: generated::MapDelta) -> Result<Self, WireError> {
        let delta = Self {
            base: message.base.map(Into::into),
            revision: field::required("MapDelta.revision", message.revision)?.into(),
            head: message.head.map(TryInto::try_into).transpose()?,
            trust: field::list(
                "MapDelta.trust",
                message.trust,
                Limits::STATEMENTS,
                TryInto::try_into,
            )?,
            record: message.record.map(TryInto::try_into).transpose()?,
            peers: field::list(
                "MapDelta.peers",
                message.peers,
                Limits::HOSTS,
                TryInto::try_into,
            )?,
            tombstones: field::list(
                "MapDelta.tombstones",
                message.tombstones,
                Limits::HOSTS,
                TryInto::try_into,
            )?,
            forgotten: field::list(
                "MapDelta.forgotten",
                message.forgotten,
                Limits::HOSTS,
                |host| field::id("MapDelta.forgotten", &host),
            )?,
            policy: message.policy.map(TryInto::try_into).transpose()?,
            policy_step: match message.policy_step {
                Some(step) => Some(Arc::new(step.try_into()?)),
                None => None,
            },
        };
        check_whole(&delta)?;
        Ok(delta)
    }
}

/// A map without a base stands alone, and has to be able to. One with a base goes forward; at the
/// same revision it may only tell where peers are.
fn check_whole(delta: &MapDelta) -> Result<(), WireError> {
    let only_peers = delta.record.is_none()
        && delta.policy.is_none()
        && delta.policy_step.is_none()
        && delta.trust.is_empty()
        && delta.tombstones.is_empty()
        && delta.forgotten.is_empty();
    match delta.base {
        Some(base) if base > delta.revision => Err(WireError::new(
            "MapDelta.revision",
            format!("{} comes before the base {base}", delta.revision),
        )),
        Some(base) if base == delta.revision && !only_peers => Err(WireError::new(
            "MapDelta.revision",
            format!("{base} is the base too, but more changed than where peers are"),
        )),
        None if delta.record.is_none() => Err(WireError::new(
            "MapDelta.record",
            "a whole map needs the host's own record",
        )),
        None if delta.policy.is_none() => Err(WireError::new(
            "MapDelta.policy",
            "a whole map needs the policy",
        )),
        _ if delta.policy.is_some() && delta.policy_step.is_some() => Err(WireError::new(
            "MapDelta.policy_step",
            "the policy is there whole, and as a change",
        )),
        _ => Ok(()),
    }
}

impl From<PeerEntry> for generated::PeerEntry {
    fn from(entry: PeerEntry) -> Self {
        Self {
            record: Some(entry.record.into()),
            endpoints: entry.endpoints.into_iter().map(Into::into).collect(),
            stream_port: entry.stream_port.unwrap_or(0).into(),
        }
    }
}

impl TryFrom<generated::PeerEntry> for PeerEntry {
    type Error = WireError;

    fn try_from(message: generated::PeerEntry) -> Result<Self, WireError> {
        Ok(Self {
            record: field::required("PeerEntry.record", message.record)?.try_into()?,
            endpoints: field::list(
                "PeerEntry.endpoints",
                message.endpoints,
                Limits::ENDPOINTS_PER_PEER,
                TryInto::try_into,
            )?,
            stream_port: field::port_if_told("PeerEntry.stream_port", message.stream_port)?,
        })
    }
}

impl From<Endpoint> for generated::Endpoint {
    fn from(endpoint: Endpoint) -> Self {
        let kind = match endpoint.kind {
            EndpointKind::Configured => generated::EndpointKind::Configured,
            EndpointKind::Interface => generated::EndpointKind::Interface,
            EndpointKind::Peer => generated::EndpointKind::Peer,
            EndpointKind::Coordinator => generated::EndpointKind::Coordinator,
        };
        Self {
            address: endpoint.address.to_string(),
            kind: kind.into(),
        }
    }
}

impl TryFrom<generated::Endpoint> for Endpoint {
    type Error = WireError;

    fn try_from(message: generated::Endpoint) -> Result<Self, WireError> {
        let kind = match generated::EndpointKind::try_from(message.kind) {
            Ok(generated::EndpointKind::Configured) => EndpointKind::Configured,
            Ok(generated::EndpointKind::Interface) => EndpointKind::Interface,
            Ok(generated::EndpointKind::Peer) => EndpointKind::Peer,
            Ok(generated::EndpointKind::Coordinator) => EndpointKind::Coordinator,
            Ok(generated::EndpointKind::Unspecified) | Err(_) => {
                return Err(WireError::new(
                    "Endpoint.kind",
                    format!("{} is unknown", message.kind),
                ));
            }
        };
        Ok(Self {
            address: underlay("Endpoint.address", &message.address)?,
            kind,
        })
    }
}

/// An address that one host could be reached at: packets to a group or to nobody are never sent.
pub(super) fn underlay(field: &'static str, text: &str) -> Result<SocketAddr, WireError> {
    let address: SocketAddr = field::parsed(field, text)?;
    if !is_one_host(address) {
        return Err(WireError::new(
            field,
            format!("{address} is not the address of one host"),
        ));
    }
    Ok(address)
}

/// An address that a packet came from. Who sent it chose the port, so one that nobody can answer
/// is no reason to refuse the message of the host that heard it.
pub(super) fn heard_from(field: &'static str, text: &str) -> Result<SocketAddr, WireError> {
    let address: SocketAddr = field::parsed(field, text)?;
    if address.port() != 0 && !address.ip().is_unspecified() {
        return underlay(field, text);
    }
    Ok(address)
}

impl From<PolicySlice> for generated::PolicySlice {
    fn from(slice: PolicySlice) -> Self {
        Self {
            head: Some(slice.head.into()),
            leaves: slice.leaves.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<generated::PolicySlice> for PolicySlice {
    type Error = WireError;

    fn try_from(message: generated::PolicySlice) -> Result<Self, WireError> {
        Ok(Self {
            head: field::required("PolicySlice.head", message.head)?.try_into()?,
            leaves: field::some_list(
                "PolicySlice.leaves",
                message.leaves,
                Limits::LEAVES,
                TryInto::try_into,
            )?,
        })
    }
}

impl From<PolicyStep> for generated::PolicyStep {
    fn from(step: PolicyStep) -> Self {
        Self {
            head: Some(step.head.into()),
            dropped: step.dropped,
            leaves: step.leaves.into_iter().map(Into::into).collect(),
            nodes: step.nodes.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<generated::PolicyStep> for PolicyStep {
    type Error = WireError;

    fn try_from(message: generated::PolicyStep) -> Result<Self, WireError> {
        field::at_most("PolicyStep.dropped", message.dropped.len(), Limits::LEAVES)?;
        Ok(Self {
            head: field::required("PolicyStep.head", message.head)?.try_into()?,
            dropped: message.dropped,
            leaves: field::list(
                "PolicyStep.leaves",
                message.leaves,
                Limits::LEAVES,
                TryInto::try_into,
            )?,
            nodes: field::list(
                "PolicyStep.nodes",
                message.nodes,
                // A tree has twice as many nodes as leaves, less one.
                2 * Limits::LEAVES,
                TryInto::try_into,
            )?,
        })
    }
}

impl From<TreeNode> for generated::TreeNode {
    fn from(node: TreeNode) -> Self {
        Self {
            level: node.level,
            index: node.index,
            hash: node.hash.as_bytes().to_vec(),
        }
    }
}

impl TryFrom<generated::TreeNode> for TreeNode {
    type Error = WireError;

    fn try_from(message: generated::TreeNode) -> Result<Self, WireError> {
        Ok(Self {
            level: message.level,
            index: message.index,
            hash: field::id("TreeNode.hash", &message.hash)?,
        })
    }
}

impl From<ProvenLeaf> for generated::ProvenLeaf {
    fn from(leaf: ProvenLeaf) -> Self {
        Self {
            index: leaf.index,
            leaf: leaf.leaf,
            path: leaf
                .path
                .iter()
                .map(|hash| hash.as_bytes().to_vec())
                .collect(),
        }
    }
}

impl TryFrom<generated::ProvenLeaf> for ProvenLeaf {
    type Error = WireError;

    fn try_from(message: generated::ProvenLeaf) -> Result<Self, WireError> {
        field::at_most(
            "ProvenLeaf.index",
            message.index as usize,
            Limits::LEAVES - 1,
        )?;
        Ok(Self {
            index: message.index,
            leaf: field::blob("ProvenLeaf.leaf", message.leaf, Limits::LEAF_BYTES)?,
            path: field::list(
                "ProvenLeaf.path",
                message.path,
                Limits::PROOF_LENGTH,
                |hash| field::id("ProvenLeaf.path", &hash),
            )?,
        })
    }
}
