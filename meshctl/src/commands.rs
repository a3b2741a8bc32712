//! One file a verb.

pub mod hosts;
pub mod join;
pub mod peers;
pub mod policy;
pub mod status;
pub mod tokens;
pub mod why;

use crate::arguments::{Arguments, Command};
use crate::failure::Failure;
use crate::output::Output;

/// Runs a command.
///
/// # Errors
/// Says what failed, why, and what to try.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let output = Output::new(arguments.json, arguments.color);
    let targets = &arguments.targets;
    match arguments.command {
        Command::Join(join) => join::join(join, targets, &output).await,
        Command::Leave => join::leave(targets, &output).await,
        Command::Status => status::status(targets, &output).await,
        Command::Peers => peers::list(targets, &output).await,
        Command::Ping(ping) => peers::ping(ping, targets, &output).await,
        Command::Hosts(hosts) => hosts::run(hosts, targets, &output).await,
        Command::Tokens(tokens) => tokens::run(tokens, targets, &output).await,
        Command::Policy(policy) => policy::run(policy, targets, &output).await,
        Command::Why(why) => why::why(why, targets, &output).await,
    }
}
