//! Mullvad's `gotatun-cli` of crates.io.

use std::path::Path;

use interop::Program;
use lab::LabError;

use super::{Contender, Joined, wireguard};
use crate::tunnels::ground::Ground;

pub(crate) struct Gotatun(Program);

impl Gotatun {
    pub(crate) fn installed_in(directory: &Path) -> Self {
        let arguments = ["--foreground", "--disable-drop-privileges"];
        Self(Program::other(directory.join("gotatun"), &arguments))
    }
}

impl Contender for Gotatun {
    fn name(&self) -> &'static str {
        "gotatun-cli"
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
