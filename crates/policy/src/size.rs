//! How large a policy may be where it is kept: said by everybody in the same words.

use model::rule::Bundle;
use model::store::TransactionLimits;

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
