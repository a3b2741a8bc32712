//! The programs of the distribution that the bench runs.

use std::env;

use lab::LabError;

/// A program and the Debian package that has it.
const TOOLS: &[(&str, &str)] = &[
    ("ethtool", "ethtool"),
    ("fastd", "fastd"),
    ("ip", "iproute2"),
    ("iperf3", "iperf3"),
    ("nebula", "nebula"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("ping", "iputils-ping"),
    ("tincd", "tinc"),
    ("wg", "wireguard-tools"),
    ("wireguard-go", "wireguard-go"),
];

/// Says which programs are missing, all at once.
pub(crate) fn require() -> Result<(), LabError> {
    let path = env::var_os("PATH").unwrap_or_default();
    let is_there =
        |name: &str| env::split_paths(&path).any(|directory| directory.join(name).is_file());
    let packages: Vec<_> = TOOLS
        .iter()
        .filter(|(name, _)| !is_there(name))
        .map(|(_, package)| *package)
        .collect();
    if packages.is_empty() {
        return Ok(());
    }
    Err(LabError::new(format!(
        "programs are missing: apt-get install {}",
        packages.join(" ")
    )))
}
