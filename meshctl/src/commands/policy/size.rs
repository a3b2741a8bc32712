//! How large a policy is where a coordinator keeps it, as far as that is known without one.

use data_encoding::BASE64;
use model::admin::PolicyFile;
use model::rule::Bundle;
use model::store::TransactionLimits;
use trust::BundleTree;

use crate::failure::Failure;

/// Checks that a coordinator would keep it: its files and its rules, each compressed. What the rules
/// gain by the ids of hosts that they name comes on top of that: the coordinator has the last word.
///
/// # Errors
/// It is too large.
pub(super) fn check(files: &[PolicyFile], bundle: &Bundle) -> Result<(), Failure> {
    let tree = BundleTree::new(bundle);
    let leaves: Vec<String> = tree
        .leaves()
        .iter()
        .map(|leaf| BASE64.encode(leaf))
        .collect();
    let bytes = policy::deflated(&leaves).len() + policy::deflated(files).len();
    // Base64 makes four bytes of three.
    let kept = bytes.div_ceil(3) * 4;
    if kept > TransactionLimits::VALUE_BYTES_MAX {
        return Err(Failure::Wanting(policy::too_large(kept, bundle)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A comment that does not get smaller.
    fn noise(characters: usize) -> String {
        let mut state = 1u64;
        let mut next = || {
            // Knuth, TAOCP 3.3.4: MMIX.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            b"abcdefghijklmnopqrstuvwxyz012345"[(state >> 59) as usize] as char
        };
        (0..characters).map(|_| next()).collect()
    }

    #[test]
    fn what_no_coordinator_keeps_is_found_without_one() {
        let file = |text: String| PolicyFile {
            path: "policy.yaml".into(),
            text,
        };
        let rules = "fleet: prod\nallow: [{ id: a, from: any, to: any, icmp: true }]\n";
        let checked = policy::load(&[file(rules.into())]).unwrap();
        let small = [file(format!("{rules}# {}\n", noise(1_000_000)))];
        check(&small, &checked.bundle).unwrap();
        let large = [file(format!("{rules}# {}\n", noise(1_500_000)))];
        let said = check(&large, &checked.bundle).unwrap_err().to_string();
        assert!(
            said.contains("at most 1024 KiB") && said.contains("rules: 1"),
            "{said}"
        );
    }
}
