//! Debian's `wireguard-go`.

use interop::Program;
use lab::LabError;

use super::{Contender, Joined, wireguard};
use crate::ground::Ground;

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

    fn program(&self) -> Option<&Program> {
        Some(&self.0)
    }

    fn join(&self, ground: &Ground) -> Result<Joined, LabError> {
        wireguard::join(&self.0, ground)
    }
}
