//! Debian's `wireguard-go`.

use interop::Program;
use lab::LabError;

use super::{Contender, Joined, wireguard};
use crate::ground::Ground;

pub(crate) struct WireguardGo;

impl Contender for WireguardGo {
    fn name(&self) -> &'static str {
        "wireguard-go"
    }

    fn join(&self, ground: &Ground) -> Result<Joined, LabError> {
        wireguard::join(&Program::wireguard_go(), ground)
    }
}
