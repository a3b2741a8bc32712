//! Whether what is chosen for a new fleet belongs to somebody else on the Internet: a prefix of public
//! addresses, or a top-level domain. Hosts could not reach its owners any more, so that it takes an
//! explicit choice.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Prefixes that anybody may use inside: RFC 1918, RFC 6598, RFC 4193.
const PRIVATE: [&str; 5] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "fc00::/7",
];
/// Top-level domains that are nobody's: reserved for private use (ICANN, 2024) or tests (RFC 6761), or in
/// such wide use inside that they are not delegated (ICANN SSAC 045, SAC 113).
const NOBODYS_DOMAINS: [&str; 7] = [
    "internal",
    "test",
    "corp",
    "home",
    "lan",
    "localdomain",
    "private",
];

/// Refuses a prefix of public addresses.
///
/// # Errors
/// Names the prefix, and says what to choose instead.
pub(crate) fn refuse_prefix(prefix: IpNet) -> Result<(), String> {
    if is_private(prefix) {
        return Ok(());
    }
    let (flag, choices) = match prefix {
        IpNet::V4(_) => (
            "--overlay-v4",
            "10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10",
        ),
        IpNet::V6(_) => ("--overlay-v6", "fd00::/8"),
    };
    Err(format!(
        "the overlay's prefix {prefix} has public addresses: no host of the fleet could reach \
         their owners any more; choose one of {choices} with {flag}, or say --allow-public \
         when they are yours"
    ))
}

/// Refuses suffixes that are a whole public top-level domain, or mean something else everywhere.
///
/// # Errors
/// Names the suffix, and says what to choose instead.
pub(crate) fn refuse_suffix(suffix: &str) -> Result<(), String> {
    let top = suffix.rsplit('.').next().unwrap_or(suffix);
    if matches!(top, "local" | "localhost" | "onion") {
        return Err(format!(
            "the DNS suffix {suffix} ends in .{top}, which resolvers treat apart (RFC 6761, 6762, 7686); choose \
             another with --dns-suffix, such as mesh.internal"
        ));
    }
    if suffix.contains('.') || NOBODYS_DOMAINS.contains(&suffix) {
        return Ok(());
    }
    Err(format!(
        "the DNS suffix {suffix} is a whole top-level domain: its public names would not be found by \
         hosts of the fleet any more; choose a name below one that is yours, or mesh.internal, with \
         --dns-suffix, or say --allow-public"
    ))
}

fn is_private(prefix: IpNet) -> bool {
    let private = PRIVATE.iter().map(|text| match text.parse::<Ipv4Net>() {
        Ok(v4) => IpNet::V4(v4),
        Err(_) => IpNet::V6(text.parse::<Ipv6Net>().expect("a constant prefix")),
    });
    private.into_iter().any(|it| it.contains(&prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(prefix: &str) -> Result<(), String> {
        refuse_prefix(prefix.parse().unwrap())
    }

    #[test]
    fn private_prefixes_are_taken_and_public_ones_are_not() {
        for good in [
            "10.1.0.0/16",
            "172.31.0.0/16",
            "192.168.0.0/16",
            "100.127.0.0/16",
            "fd12::/48",
        ] {
            assert_eq!(refuse(good), Ok(()), "{good}");
        }
        for bad in ["11.0.0.0/8", "172.32.0.0/16", "100.128.0.0/16", "8.0.0.0/8"] {
            let refused = refuse(bad).unwrap_err();
            assert!(
                refused.contains(bad) && refused.contains("--overlay-v4"),
                "{refused}"
            );
        }
        assert!(refuse("2600::/48").unwrap_err().contains("--overlay-v6"));
    }

    #[test]
    fn a_prefix_that_reaches_out_of_a_private_one_is_public() {
        assert!(refuse("172.16.0.0/11").is_err());
    }

    #[test]
    fn names_below_a_domain_are_taken_and_whole_domains_are_not() {
        for good in ["internal", "mesh.internal", "mesh.example.com", "lan"] {
            assert_eq!(refuse_suffix(good), Ok(()), "{good}");
        }
        for bad in ["com", "dev", "mesh", "local", "mesh.local", "a.onion"] {
            let refused = refuse_suffix(bad).unwrap_err();
            assert!(refused.contains("--dns-suffix"), "{refused}");
        }
    }
}
