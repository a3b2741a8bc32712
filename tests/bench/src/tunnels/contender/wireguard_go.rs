//! Debian's `wireguard-go`.

use interop::Program;
use lab::LabError;

use super::{Contender, Joined, wireguard};
use crate::tunnels::ground::Ground;

pub(crate) struct WireguardGo(Program);

impl Default for WireguardGo {
    fn default() -> Self {
        Self(Program::wireguard_go())
    }
}

impl Contender for WireguardGo {
    fn name(&self) -> &'static str {
        "wireguard-go"
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
