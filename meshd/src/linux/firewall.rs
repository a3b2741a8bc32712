//! The nftables table that keeps overlay packets off every interface but the overlay's own. It
//! outlives a crash of the daemon: packets that lost their tunnel must not leave in the clear.

use std::fmt::Write as _;
use std::io;
use std::process::Output;

use model::address::OverlayPrefixes;

use super::interception::Interception;
use crate::programs;

/// Why the firewall could not be set.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// There is no `nft`.
    #[error("cannot run nft ({0}); is the package nftables installed?")]
    Missing(#[from] io::Error),
    /// `nft` refused.
    #[error("nft refused the table `inet {table}`: {message}")]
    Refused {
        /// Our table.
        table: String,
        /// What it said.
        message: String,
    },
}

/// Sets the table in one transaction, in place of an older one of this name. Without an interception
/// nothing is caught, and what would be finds no way.
///
/// # Errors
/// `nft` is missing or refuses; nothing is changed then.
pub async fn install(
    table: &str,
    interface: &str,
    overlay: OverlayPrefixes,
    interception: Option<&Interception>,
) -> Result<(), FirewallError> {
    let rules = removal(table) + &ruleset(table, interface, overlay, interception);
    run(table, &rules).await
}

/// Changes what is caught, element by element, in one transaction.
///
/// # Errors
/// `nft` is missing or refuses, as when another program has changed the table; nothing is changed
/// then.
pub(super) async fn change(table: &str, script: &str) -> Result<(), FirewallError> {
    run(table, script).await
}

/// Returns the table as `nft` lists it, without counters.
///
/// # Errors
/// `nft` is missing, or the table is not there.
pub async fn listing(table: &str) -> Result<String, FirewallError> {
    let arguments = ["--stateless", "list", "table", "inet", table];
    let output = programs::run("nft", &arguments, "").await?;
    accepted(table, &output)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a table was made by a daemon like this one, dead or of another version.
pub fn is_ours(listing: &str) -> bool {
    ["from_network", "to_network"]
        .iter()
        .all(|chain| listing.contains(&format!("chain {chain} {{")))
}

/// Removes the table; one that is not there is no error.
///
/// # Errors
/// `nft` is missing or refuses.
pub async fn remove(table: &str) -> Result<(), FirewallError> {
    run(table, &removal(table)).await
}

/// Declared first, since deleting what is not there would fail the transaction.
fn removal(table: &str) -> String {
    format!("table inet {table} {{}}\ndelete table inet {table}\n")
}

/// Returns the table in the language of nft(8). Packets that have nothing to do with the overlay leave
/// each chain by its first rules: they are nearly all, and it is not theirs to wait.
pub fn ruleset(
    table: &str,
    interface: &str,
    overlay: OverlayPrefixes,
    interception: Option<&Interception>,
) -> String {
    let mut rules = String::new();
    let own = format!("{{ \"{interface}\", \"lo\" }}");
    let caught = interception.map(|it| it.rules(overlay)).unwrap_or_default();
    let _ = write!(
        rules,
        r#"table inet {table} {{
{caught}  chain from_network {{
    type filter hook prerouting priority raw; policy accept;
    ip saddr != {v4} ip daddr != {v4} accept
    ip6 saddr != {v6} ip6 daddr != {v6} accept
    iifname {own} accept
    ip saddr {v4} counter drop comment "overlay source from another interface"
    ip6 saddr {v6} counter drop comment "overlay source from another interface"
    ip daddr {v4} notrack comment "forwarded for a container or VM: no NAT may lend it this host's address"
    ip6 daddr {v6} notrack comment "forwarded for a container or VM: no NAT may lend it this host's address"
  }}
  chain to_host {{
    type filter hook input priority filter; policy accept;
    ip daddr != {v4} accept
    ip6 daddr != {v6} accept
    iifname {own} accept
    ip daddr {v4} counter drop comment "overlay destination from another interface"
    ip6 daddr {v6} counter drop comment "overlay destination from another interface"
  }}
  chain forwarded {{
    type filter hook forward priority filter; policy accept;
    iifname "{interface}" counter drop comment "no host forwards for others"
  }}
  chain to_network {{
    type filter hook postrouting priority filter; policy accept;
    ip saddr != {v4} ip daddr != {v4} accept
    ip6 saddr != {v6} ip6 daddr != {v6} accept
    oifname {own} accept
    ip saddr {v4} counter drop comment "overlay source to another interface"
    ip6 saddr {v6} counter drop comment "overlay source to another interface"
    ip daddr {v4} counter drop comment "overlay destination to another interface"
    ip6 daddr {v6} counter drop comment "overlay destination to another interface"
  }}
}}
"#,
        v4 = overlay.v4,
        v6 = overlay.v6,
    );
    rules
}

async fn run(table: &str, rules: &str) -> Result<(), FirewallError> {
    accepted(table, &programs::run("nft", &["-f", "-"], rules).await?)
}

fn accepted(table: &str, output: &Output) -> Result<(), FirewallError> {
    if output.status.success() {
        return Ok(());
    }
    Err(FirewallError::Refused {
        table: table.to_owned(),
        message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use model::ids::FleetId;
    use model::rule::PortRange;

    use super::*;

    #[test]
    fn every_chain_spares_what_is_not_its_business() {
        let overlay = OverlayPrefixes::derived_from(FleetId::from_bytes([0; 16]));
        let rules = ruleset("mesh", "mesh0", overlay, None);
        assert!(rules.starts_with("table inet mesh {\n"));
        assert!(is_ours(&rules) && !is_ours("table inet mesh {\n\tchain mine {\n\t}\n}\n"));
        assert_eq!(rules.matches(r#"{ "mesh0", "lo" } accept"#).count(), 3);
        assert_eq!(
            rules.matches("ip saddr 100.64.0.0/16 counter drop").count(),
            2
        );
        assert_eq!(
            rules.matches("ip daddr 100.64.0.0/16 counter drop").count(),
            2
        );
        assert_eq!(rules.matches("!= 100.64.0.0/16 accept").count(), 3);
    }
    fn overlay() -> OverlayPrefixes {
        OverlayPrefixes::derived_from(FleetId::from_bytes([0; 16]))
    }

    #[test]
    fn calls_are_caught_before_anything_else_is_decided_about_them() {
        let [service, host] = [7, 0].map(|index| overlay().nth_host(index).unwrap());
        let ports = [(443, 443), (90, 100), (80, 90)];
        let ports = ports.map(|(first, last)| (host, PortRange { first, last }));
        let interception = Interception::new(747, [service], ports);
        let rules = ruleset("mesh", "mesh0", overlay(), Some(&interception));
        assert!(is_ours(&rules));
        for expected in [
            "elements = { 100.64.0.23 }",
            "elements = { 100.64.0.16 . 80-100, 100.64.0.16 . 443 }",
            "meta mark 0x6d657368 meta skuid 0 accept",
            "ip daddr @services_v4 meta l4proto tcp redirect to :747",
        ] {
            assert!(rules.contains(expected), "{expected} in {rules}");
        }
    }

    #[test]
    fn a_change_names_only_what_changes() {
        let [one, two] = [7, 8].map(|index| overlay().nth_host(index).unwrap());
        let direct = |first, last| [(two, PortRange { first, last })];
        let before = Interception::new(747, [one], direct(80, 90));
        let after = Interception::new(747, [one, two], direct(80, 95));
        let script = after.change(&before, "mesh").unwrap();
        let (v4, v6) = (IpAddr::V4(two.v4), IpAddr::V6(two.v6));
        let lines = [
            format!("delete element inet mesh direct_v4 {{ {v4} . 80-90 }}"),
            format!("delete element inet mesh direct_v6 {{ {v6} . 80-90 }}"),
            format!("add element inet mesh services_v4 {{ {v4} }}"),
            format!("add element inet mesh direct_v4 {{ {v4} . 80-95 }}"),
            format!("add element inet mesh services_v6 {{ {v6} }}"),
            format!("add element inet mesh direct_v6 {{ {v6} . 80-95 }}"),
        ];
        assert_eq!(script.lines().collect::<Vec<_>>(), lines);
        assert_eq!(after.change(&after, "mesh").as_deref(), Some(""));
        let elsewhere = Interception::new(748, [one], direct(80, 90));
        assert_eq!(elsewhere.change(&before, "mesh"), None);
        let nothing = Interception::default();
        assert_eq!(nothing.change(&before, "mesh"), None, "the chain goes");
        let rules = ruleset("mesh", "mesh0", overlay(), Some(&nothing));
        assert!(!rules.contains("type nat"), "{rules}");
    }
}
