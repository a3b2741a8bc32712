//! Our packet threads, interface, firewall and policy, as `mesh-wireguard` puts them up.

use std::path::Path;

use interop::Program;
use lab::LabError;

use super::{Contender, Joined, wireguard};
use crate::tunnels::ground::Ground;

pub(crate) struct Ours {
    name: &'static str,
    cipher: &'static str,
    program: Program,
}

impl Ours {
    /// With WireGuard's own cipher, as all others.
    pub(crate) fn with_standard_cipher(directory: &Path) -> Self {
        Self {
            name: "ours",
            cipher: wireguard::CIPHER,
            program: Program::ours(directory.join("mesh-wireguard")),
        }
    }

    /// With AES-256-GCM, which two of ours agree on where both have instructions for it.
    pub(crate) fn with_aes(directory: &Path) -> Self {
        let standard = Self::with_standard_cipher(directory);
        Self {
            name: "ours, AES",
            cipher: "aes-256-gcm",
            program: standard.program.with("--cipher").with("aes-256-gcm"),
        }
    }
}

impl Contender for Ours {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cipher(&self) -> &'static str {
        self.cipher
    }

    fn version(&self) -> Result<Option<String>, LabError> {
        self.program.version().map(Some)
    }

    fn join(&self, ground: &Ground) -> Result<Joined, LabError> {
        wireguard::join(&self.program, ground)
    }
}
