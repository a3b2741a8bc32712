//! Who is measured. A contender joins two machines and says under which address the right one is
//! reached then; it is a file of its own in here.

mod boringtun;
mod no_tunnel;
mod ours;
mod wireguard;
mod wireguard_go;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use interop::{Device, Program};
use lab::LabError;

use crate::ground::Ground;

/// A way to join two machines.
pub(crate) trait Contender {
    /// What the table calls it.
    fn name(&self) -> &'static str;

    /// The program, where there is one; it tells its version with `--version`.
    fn program(&self) -> Option<&Program>;

    /// Joins the machines; the first packet may still have to wait for a handshake.
    fn join(&self, ground: &Ground) -> Result<Joined, LabError>;
}

/// Two machines that are joined as long as this lives.
pub(crate) struct Joined {
    /// Where the left machine reaches the right one.
    pub(crate) target: IpAddr,
    /// Where the right machine's daemon takes handshakes, and the number of its device.
    pub(crate) handshakes: Option<(SocketAddr, u8)>,
    daemons: Vec<Box<dyn Daemon>>,
}

/// A running program whose memory and time are counted; it ends when this is dropped.
pub(crate) trait Daemon {
    /// Its process id.
    fn id(&self) -> u32;
}

impl Daemon for Device {
    fn id(&self) -> u32 {
        self.process().id()
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
        Box::new(ours::Ours::built_in(ours)),
        Box::new(ours::Ours::with_aes(ours)),
        Box::new(boringtun::Boringtun::installed_in(tools)),
        Box::new(wireguard_go::WireguardGo::default()),
    ]
}
