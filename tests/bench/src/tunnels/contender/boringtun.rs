//! Cloudflare's `boringtun-cli` of crates.io.

use std::path::Path;

use interop::Program;
use lab::LabError;

use super::{Contender, Joined, wireguard};
use crate::tunnels::ground::Ground;

pub(crate) struct Boringtun(Program);

impl Boringtun {
    pub(crate) fn installed_in(directory: &Path) -> Self {
        let executable = directory.join("boringtun-cli");
        // Without its privileges it could not be given its addresses by `ip` alone.
        let arguments = ["--foreground", "--disable-drop-privileges"];
        Self(Program::other(executable, &arguments))
    }
}

impl Contender for Boringtun {
    fn name(&self) -> &'static str {
        "boringtun-cli"
    }

    fn cipher(&self) -> &'static str {
        wireguard::CIPHER
    }

    fn version(&self) -> Result<Option<String>, LabError> {
        self.0.version().map(Some)
    }

    fn join(&self, ground: &Ground) -> Result<Joined, LabError> {
        wireguard::join(&self.0, ground)
    }
}
