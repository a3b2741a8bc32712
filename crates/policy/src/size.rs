//! How large a policy is where it is kept, and may be: compressed and said by everybody in the same way.

use std::io::Write;

use flate2::Compression;
use flate2::write::DeflateEncoder;
use model::rule::Bundle;
use model::store::TransactionLimits;
use serde::Serialize;

/// Returns a part of a policy as it is kept: as JSON, compressed.
pub fn deflated<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    let text = serde_json::to_vec(value).expect("parts of a policy have no failing serialisers");
    let written = encoder.write_all(&text).and_then(|()| encoder.finish());
    written.expect("memory takes what is written")
}

/// Says that a policy is larger than what a coordinator keeps: how large it is, how large it may be,
/// what to do. `bytes` are those of its files and rules, compressed.
pub fn too_large(bytes: usize, bundle: &Bundle) -> String {
    let kib = |bytes: usize| bytes.div_ceil(1024);
    let rules = bundle.allow.len() + bundle.deny.len();
    format!(
        "the policy takes {} KiB where the coordinator keeps it (its files, and rules: {rules}; \
         compressed), and at most {} KiB are kept for a version; select hosts by label instead of \
         naming each, put the ports of one pair in one rule, and shorten comments",
        kib(bytes),
        kib(TransactionLimits::VALUE_BYTES_MAX),
    )
}
