//! The client and the server alone: what no proxy can beat.

use lab::LabError;

use super::{Contender, Standing};
use crate::link::Link;
use crate::services::ground::Ground;

pub(super) struct Direct;

impl Contender for Direct {
    fn name(&self) -> &'static str {
        "no proxy"
    }

    fn between(&self) -> &'static str {
        "HTTP/1.1, not encrypted"
    }

    fn version(&self) -> Result<Option<String>, LabError> {
        Ok(None)
    }

    fn stand(&self, link: Link) -> Result<Standing, LabError> {
        let ground = Ground::new(link)?;
        Ok(Standing {
            target: ground.direct(),
            daemons: Vec::new(),
            _held: Vec::new(),
            ground,
        })
    }
}
