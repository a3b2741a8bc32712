//! The bare link: what no tunnel can beat.

use interop::Program;
use lab::LabError;

use super::{Contender, Joined};
use crate::ground::Ground;

pub(crate) struct NoTunnel;

impl Contender for NoTunnel {
    fn name(&self) -> &'static str {
        "no tunnel"
    }

    fn program(&self) -> Option<&Program> {
        None
    }

    fn join(&self, ground: &Ground) -> Result<Joined, LabError> {
        Ok(Joined {
            target: ground.right.address,
            handshakes: None,
            daemons: Vec::new(),
        })
    }
}
