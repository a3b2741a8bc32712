//! Our yardstick: a tunnel with nothing in it but the moving of packets (`src/bin/bare-forwarder`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use interop::OVERLAY_MTU;
use lab::LabError;

use super::own_files::{self, INTERFACE, PORT};
use super::{Contender, Joined, version_line};
use crate::tunnels::ground::Ground;

const READY_DEADLINE: Duration = Duration::from_secs(10);

pub(crate) struct BareForwarder {
    name: &'static str,
    cipher: &'static str,
    executable: PathBuf,
}

impl BareForwarder {
    /// With WireGuard's cipher.
    pub(crate) fn with_standard_cipher(directory: &Path) -> Self {
        Self::new("bare forwarder", "chacha20-poly1305", directory)
    }

    /// With the cipher that two of ours may agree on.
    pub(crate) fn with_aes(directory: &Path) -> Self {
        Self::new("bare forwarder, AES", "aes-256-gcm", directory)
    }

    /// What moving costs alone.
    pub(crate) fn without_cipher(directory: &Path) -> Self {
        Self::new("bare forwarder, no cipher", "none", directory)
    }

    fn new(name: &'static str, cipher: &'static str, directory: &Path) -> Self {
        Self {
            name,
            cipher,
            executable: directory.join("bare-forwarder"),
        }
    }
}

impl Contender for BareForwarder {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cipher(&self) -> &'static str {
        self.cipher
    }

    fn version(&self) -> Result<Option<String>, LabError> {
        version_line(&self.executable, "--version")
    }

    fn join(&self, ground: &Ground) -> Result<Joined, LabError> {
        let ends = own_files::ends(ground)?;
        own_files::start(&ends, |end| {
            let mut daemon = end
                .launch(&self.executable)
                .args(["--interface", INTERFACE, "--cipher", self.cipher])
                .args(["--mtu", &OVERLAY_MTU.to_string()])
                .args(["--listen-port", &PORT.to_string()])
                .args(["--peer", &format!("{}:{PORT}", end.other.address)])
                .args(["--side", &end.number.to_string()])
                .spawn(end.name())?;
            daemon.wait_ready(READY_DEADLINE)?;
            let machine = &end.machine.namespace;
            machine.run("sh", ["-ec", &end.up_commands()])?;
            Ok(daemon)
        })
    }
}
