//! The bare link: what no tunnel can beat.

use std::time::Instant;

use lab::LabError;

use super::{Contender, Joined};
use crate::tunnels::ground::{Ground, LINK_MTU};

pub(crate) struct NoTunnel;

impl Contender for NoTunnel {
    fn name(&self) -> &'static str {
        "no tunnel"
    }

    fn cipher(&self) -> &'static str {
        "none"
    }

    fn mtu(&self) -> u16 {
        LINK_MTU
    }

    fn version(&self) -> Result<Option<String>, LabError> {
        Ok(None)
    }

    fn join(&self, ground: &Ground) -> Result<Joined, LabError> {
        Ok(Joined {
            target: ground.right.address,
            started: Instant::now(),
            handshakes: None,
            daemons: Vec::new(),
        })
    }
}
