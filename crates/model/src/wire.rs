//! Bytes of the messages: protobuf types generated from `proto/`, and the ways to the nouns and back.
//!
//! To a generated type by `From`, always possible; from one by `TryFrom`, which checks every length,
//! bound, name and enum value, so that a noun that exists is well formed. The `encode_*` and
//! `decode_*` pairs go all the way to bytes. Nothing here checks a signature: that is `trust`'s.

mod control;
mod field;
pub mod generated;
mod map;
mod memory;
mod pair;
mod question;
mod record;
mod rule;
pub mod stored;

use prost::Message;

use crate::control::{Description, EnrolRequest, Enrolled, FromHost, ToHost};
use crate::limits::Limits;
use crate::record::{BundleHead, HostRecord, MapHead, Signed, Tombstone, TrustStatement};
use crate::rule::Leaf;

/// Bytes or a message that mean nothing valid, with the field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {field}: {why}")]
pub struct WireError {
    /// The message and its field, such as `HostRecord.labels`.
    pub field: &'static str,
    /// What is wrong with it.
    pub why: String,
}

impl WireError {
    pub(crate) fn new(field: &'static str, why: impl Into<String>) -> Self {
        Self {
            field,
            why: why.into(),
        }
    }
}

macro_rules! codec {
    ($($encode:ident, $decode:ident: $noun:ident as $message:ident, at most $limit:ident;)*) => {$(
        #[doc = concat!("Encodes a `", stringify!($noun), "`; the same value always gives the same bytes.")]
        pub fn $encode(value: &$noun) -> Vec<u8> {
            generated::$message::from(value.clone()).encode_to_vec()
        }

        #[doc = concat!("Decodes a `", stringify!($noun), "` of at most `Limits::", stringify!($limit), "`.")]
        ///
        /// # Errors
        /// Names the field that is missing, malformed or out of bounds.
        pub fn $decode(bytes: &[u8]) -> Result<$noun, WireError> {
            decode_message::<generated::$message>(stringify!($noun), bytes, Limits::$limit)?.try_into()
        }
    )*};
}

codec! {
    encode_signed, decode_signed: Signed as Signed, at most CONTROL_MESSAGE_BYTES;
    encode_trust_statement, decode_trust_statement: TrustStatement as TrustStatement, at most SIGNED_PAYLOAD_BYTES;
    encode_host_record, decode_host_record: HostRecord as HostRecord, at most SIGNED_PAYLOAD_BYTES;
    encode_tombstone, decode_tombstone: Tombstone as Tombstone, at most SIGNED_PAYLOAD_BYTES;
    encode_map_head, decode_map_head: MapHead as MapHead, at most SIGNED_PAYLOAD_BYTES;
    encode_bundle_head, decode_bundle_head: BundleHead as BundleHead, at most SIGNED_PAYLOAD_BYTES;
    encode_to_host, decode_to_host: ToHost as ToHost, at most CONTROL_MESSAGE_BYTES;
    encode_from_host, decode_from_host: FromHost as FromHost, at most REPORT_BYTES;
    encode_description, decode_description: Description as DescribeReply, at most SIGNED_PAYLOAD_BYTES;
    encode_enrol_request, decode_enrol_request: EnrolRequest as EnrolRequest, at most REPORT_BYTES;
    encode_enrolled, decode_enrolled: Enrolled as EnrolReply, at most REPORT_BYTES;
}

/// Returns how many bytes a message takes on its way to a host.
pub fn to_host_bytes(message: &generated::ToHost) -> usize {
    message.encoded_len()
}

/// Encodes a leaf of a bundle; the same leaf always gives the same bytes.
pub fn encode_leaf(leaf: &Leaf) -> Vec<u8> {
    generated::Leaf::from(leaf.clone()).encode_to_vec()
}

/// Decodes a leaf of a bundle of at most `Limits::LEAF_BYTES`.
///
/// # Errors
/// Names the field that is missing, malformed or out of bounds. A leaf that says more than this
/// version understands is refused: a condition that is skipped would widen a rule.
pub fn decode_leaf(bytes: &[u8]) -> Result<Leaf, WireError> {
    let message: generated::Leaf = decode_message("Leaf", bytes, Limits::LEAF_BYTES)?;
    if message.encode_to_vec() != bytes {
        return Err(WireError::new(
            "Leaf",
            "it says more than this version understands; upgrade this program",
        ));
    }
    message.try_into()
}

fn decode_message<M: Message + Default>(
    name: &'static str,
    bytes: &[u8],
    bytes_max: usize,
) -> Result<M, WireError> {
    if bytes.len() > bytes_max {
        return Err(WireError::new(
            name,
            format!("{} bytes, at most {bytes_max} are allowed", bytes.len()),
        ));
    }
    M::decode(bytes).map_err(|error| WireError::new(name, error.to_string()))
}

#[cfg(test)]
mod strategies;
#[cfg(test)]
mod tests;
