//! Our packet threads, interface, firewall and policy, as `mesh-wireguard` puts them up.

use std::path::Path;

use interop::Program;
use lab::LabError;

use super::{Contender, Joined, wireguard};
use crate::ground::Ground;

pub(crate) struct Ours(Program);

impl Ours {
    pub(crate) fn built_in(directory: &Path) -> Self {
        Self(Program::ours(directory.join("mesh-wireguard")))
    }
}

impl Contender for Ours {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn program(&self) -> Option<&Program> {
        Some(&self.0)
    }

    fn join(&self, ground: &Ground) -> Result<Joined, LabError> {
        wireguard::join(&self.0, ground)
    }
}
