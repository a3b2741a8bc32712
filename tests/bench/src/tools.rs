//! The programs of the distribution that the bench runs.

use std::env;

use lab::LabError;

/// A program and the Debian package that has it.
pub(crate) type Tool = (&'static str, &'static str);

/// What the bench of tunnels runs.
pub(crate) const OF_TUNNELS: &[Tool] = &[
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

/// What the bench of services runs.
pub(crate) const OF_SERVICES: &[Tool] = &[
    ("ethtool", "ethtool"),
    ("haproxy", "haproxy"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("nginx", "nginx-light"),
    ("nsenter", "util-linux"),
    ("openssl", "openssl"),
];

/// Says which of the programs are missing, all at once.
pub(crate) fn require(tools: &[Tool]) -> Result<(), LabError> {
    let path = env::var_os("PATH").unwrap_or_default();
    let is_there =
        |name: &str| env::split_paths(&path).any(|directory| directory.join(name).is_file());
    let packages: Vec<_> = tools
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
