//! An agent that has read what the state directory holds, and has not acted on it yet: what it asks
//! for waits until this daemon is the one that serves.

use std::collections::VecDeque;
use std::sync::Arc;

use agent::{Agent, AgentConfig, Names, Output};
use dataplane::Command;
use model::catalogue::Catalogue;
use policy::Gate;
use runtime::clock::Clock;
use runtime::state_dir::StateDir;

use super::BrainError;
use crate::state_files;

/// The agent and what it asks for.
pub struct Staged {
    pub(super) agent: Agent,
    pub(super) outputs: VecDeque<Output>,
}

impl Staged {
    /// Reads what the last daemon kept. Nothing is written.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn load(
        state: &StateDir,
        config: AgentConfig,
        seed: [u8; 32],
        clock: Clock,
    ) -> Result<Self, BrainError> {
        let stored = state_files::load(state)?;
        let mut agent = Agent::new(config, stored, seed, clock.now())?;
        let outputs = std::iter::from_fn(|| agent.poll_output()).collect();
        Ok(Self { agent, outputs })
    }

    /// Returns what the proxy will be told first.
    pub(crate) fn fleet(&self) -> Option<&(Arc<Catalogue>, Arc<Gate>)> {
        let mut told = self.outputs.iter().filter_map(|output| match output {
            Output::Services(fleet) => Some(fleet.as_ref()),
            _ => None,
        });
        told.next_back().flatten()
    }

    /// Returns what DNS answers from until the agent says otherwise: names that are asked for while a
    /// daemon takes over are not unknown for a moment.
    pub(crate) fn names(&self) -> Arc<Names> {
        let mut told = self.outputs.iter().filter_map(|output| match output {
            Output::Names(names) => Some(Arc::clone(names)),
            _ => None,
        });
        told.next_back().unwrap_or_default()
    }

    /// Takes out what is for the shards, which may know the peers before this daemon serves; another
    /// one hands over to it.
    pub fn take_commands(&mut self) -> Vec<Command> {
        let mut commands = Vec::new();
        // The other daemon's dates are on the disk, and its shards tell ours the last of them.
        self.agent.inherit_dates();
        let outputs = std::mem::take(&mut self.outputs);
        let more = std::iter::from_fn(|| self.agent.poll_output());
        self.outputs = outputs
            .into_iter()
            .chain(more)
            .filter_map(|output| match output {
                Output::Shard(more) => {
                    commands.extend(more);
                    None
                }
                other => Some(other),
            })
            .collect();
        commands
    }
}
