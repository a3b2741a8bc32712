//! Who is measured. A contender joins two machines and says under which address the right one is
//! reached then; it is a file of its own in here.

mod bare_forwarder;
mod boringtun;
mod fastd;
mod gotatun;
mod nebula;
mod no_tunnel;
mod ours;
mod own_files;
mod tinc;
mod vpncloud;
mod wireguard;
mod wireguard_go;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use interop::{Device, OVERLAY_MTU};
use lab::{LabError, Process};

use crate::tunnels::ground::Ground;

/// A way to join two machines.
pub(crate) trait Contender {
    /// What the table calls it.
    fn name(&self) -> &'static str;

    /// What its packets are sealed with.
    fn cipher(&self) -> &'static str;

    /// Bytes of the largest packet that it takes.
    fn mtu(&self) -> u16 {
        OVERLAY_MTU
    }

    /// The line that its program prints when it is asked for its version; `None` without a program.
    fn version(&self) -> Result<Option<String>, LabError>;

    /// Joins the machines; the first packet may still have to wait for a handshake.
    fn join(&self, ground: &Ground) -> Result<Joined, LabError>;
}

/// Two machines that are joined as long as this lives.
pub(crate) struct Joined {
    /// Where the left machine reaches the right one.
    pub(crate) target: IpAddr,
    /// When the first daemon was started, everything before it being made ready.
    pub(crate) started: Instant,
    /// Where the right machine's daemon takes WireGuard's handshakes, and the number of its device.
    pub(crate) handshakes: Option<(SocketAddr, u8)>,
    daemons: Vec<Box<dyn Daemon>>,
}

/// A running program whose memory and time are counted; it ends when this is dropped.
pub(crate) trait Daemon {
    /// Its process id, which is also the id of the group of all that it starts.
    fn id(&self) -> u32;
}

impl Daemon for Device {
    fn id(&self) -> u32 {
        self.process().id()
    }
}

impl Daemon for Process {
    fn id(&self) -> u32 {
        self.id()
    }
}

impl Joined {
    /// The process ids of the daemons on both machines.
    pub(crate) fn daemons(&self) -> Vec<u32> {
        self.daemons.iter().map(|daemon| daemon.id()).collect()
    }
}

/// Everybody, in the order of the table.
pub(crate) fn all(ours: &Path, tools: &Path) -> Vec<Box<dyn Contender>> {
    vec![
        Box::new(no_tunnel::NoTunnel),
        Box::new(ours::Ours::with_standard_cipher(ours)),
        Box::new(ours::Ours::with_aes(ours)),
        Box::new(bare_forwarder::BareForwarder::with_standard_cipher(ours)),
        Box::new(bare_forwarder::BareForwarder::with_aes(ours)),
        Box::new(bare_forwarder::BareForwarder::without_cipher(ours)),
        Box::new(gotatun::Gotatun::installed_in(tools)),
        Box::new(boringtun::Boringtun::installed_in(tools)),
        Box::new(wireguard_go::WireguardGo::default()),
        Box::new(nebula::Nebula::with_aes()),
        Box::new(nebula::Nebula::with_chacha()),
        Box::new(vpncloud::Vpncloud::installed_in(tools)),
        Box::new(tinc::Tinc),
        Box::new(fastd::Fastd),
    ]
}

/// Returns the first line that a program prints when asked so for its version.
fn version_line(executable: &Path, asked: &str) -> Result<Option<String>, LabError> {
    let output = Command::new(executable).arg(asked).output();
    let output = output
        .map_err(|error| LabError::new(format!("cannot run {}: {error}", executable.display())))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().find(|line| !line.trim().is_empty());
    Ok(Some(line.unwrap_or("no version").trim().to_owned()))
}
