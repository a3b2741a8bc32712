//! The nftables table that keeps overlay packets off every interface but the overlay's own. It
//! outlives a crash of the daemon: packets that lost their tunnel must not leave in the clear.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use model::address::OverlayPrefixes;

/// Why the firewall could not be set.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// There is no `nft`.
    #[error("cannot run nft ({0}); install the package nftables")]
    Missing(io::Error),
    /// `nft` refused.
    #[error("nft refused the table `inet {table}`: {message}")]
    Refused {
        /// Our table.
        table: String,
        /// What it said.
        message: String,
    },
}

/// Sets the table in one transaction, in place of an older one of this name.
///
/// # Errors
/// `nft` is missing or refuses; nothing is changed then.
pub fn install(
    table: &str,
    interface: &str,
    overlay: OverlayPrefixes,
) -> Result<(), FirewallError> {
    let rules = removal(table) + &ruleset(table, interface, overlay);
    run(table, &rules)
}

/// Returns the table as `nft` lists it, without counters.
///
/// # Errors
/// `nft` is missing, or the table is not there.
pub fn listing(table: &str) -> Result<String, FirewallError> {
    let output = Command::new("nft")
        .args(["--stateless", "list", "table", "inet", table])
        .output()
        .map_err(FirewallError::Missing)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(FirewallError::Refused {
        table: table.to_owned(),
        message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Removes the table; one that is not there is no error.
///
/// # Errors
/// `nft` is missing or refuses.
pub fn remove(table: &str) -> Result<(), FirewallError> {
    run(table, &removal(table))
}

/// Declared first, since deleting what is not there would fail the transaction.
fn removal(table: &str) -> String {
    format!("table inet {table} {{}}\ndelete table inet {table}\n")
}

/// Returns the table in the language of nft(8).
pub fn ruleset(table: &str, interface: &str, overlay: OverlayPrefixes) -> String {
    let mut rules = String::new();
    let own = format!("{{ \"{interface}\", \"lo\" }}");
    let _ = write!(
        rules,
        r#"table inet {table} {{
  chain from_network {{
    type filter hook prerouting priority raw; policy accept;
    iifname {own} accept
    ip saddr {v4} counter drop comment "overlay source from another interface"
    ip6 saddr {v6} counter drop comment "overlay source from another interface"
    ip daddr {v4} counter drop comment "overlay destination from another interface"
    ip6 daddr {v6} counter drop comment "overlay destination from another interface"
  }}
  chain forwarded {{
    type filter hook forward priority filter; policy accept;
    iifname "{interface}" counter drop comment "no host forwards for others"
  }}
  chain to_network {{
    type filter hook postrouting priority filter; policy accept;
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

fn run(table: &str, rules: &str) -> Result<(), FirewallError> {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(FirewallError::Missing)?;
    nft.stdin
        .take()
        .expect("standard input is piped")
        .write_all(rules.as_bytes())
        .map_err(FirewallError::Missing)?;
    let output = nft.wait_with_output().map_err(FirewallError::Missing)?;
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
    use super::*;
    use model::ids::FleetId;

    #[test]
    fn every_chain_spares_the_overlay_and_loopback_first() {
        let overlay = OverlayPrefixes::derived_from(FleetId::from_bytes([0; 16]));
        let rules = ruleset("mesh", "mesh0", overlay);
        assert!(rules.starts_with("table inet mesh {\n"));
        assert_eq!(rules.matches(r#"{ "mesh0", "lo" } accept"#).count(), 2);
        assert_eq!(rules.matches("100.64.0.0/16").count(), 4);
    }
}
