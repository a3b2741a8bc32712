//! One file a verb.

pub mod admins;
pub mod audit;
pub mod authority;
pub mod backup;
pub mod bugreport;
pub mod completion;
pub mod dns;
pub mod doctor;
pub mod drops;
pub mod explain;
pub mod hosts;
pub mod join;
pub mod keys;
mod live;
pub mod metrics;
pub mod peers;
pub mod ping;
pub mod policy;
pub mod reload;
pub mod services;
pub mod status;
pub mod tokens;
pub mod top;
pub mod unattended;
pub mod version;
pub mod wait_online;
pub mod why;

use crate::arguments::{Arguments, Command};
use crate::failure::Failure;
use crate::output::Output;

/// Runs a command.
///
/// # Errors
/// Says what failed, why, and what to try.
pub async fn run(arguments: Arguments, output: &Output) -> Result<(), Failure> {
    let targets = &arguments.targets;
    match arguments.command {
        Command::Join(join) => join::join(join, targets, output).await,
        Command::Leave => join::leave(targets, output).await,
        Command::WaitOnline(wait) => wait_online::wait_online(&wait, targets, output).await,
        Command::Reload(asked) => reload::reload(&asked, targets, output).await,
        Command::Status => status::status(targets, output).await,
        Command::Peers => peers::list(targets, output).await,
        Command::Ping(ping) => ping::ping(ping, targets, output).await,
        Command::Hosts(hosts) => hosts::run(hosts, targets, output).await,
        Command::Keys(keys) => keys::run(keys, targets, output).await,
        Command::Admins(admins) => admins::run(admins, targets, output).await,
        Command::Tokens(tokens) => tokens::run(tokens, targets, output).await,
        Command::Backup { file } => backup::backup(&file, targets, output).await,
        Command::Recovery { verb } => backup::recovery(verb, targets, output).await,
        Command::Authority(verb) => authority::run(verb, targets, output).await,
        Command::Policy(policy) => policy::run(policy, targets, output).await,
        Command::Audit(audit) => audit::run(audit, targets, output).await,
        Command::Drops(drops) => drops::drops(drops, targets, output).await,
        Command::Metrics(asked) => metrics::metrics(&asked, targets, output).await,
        Command::Dns(dns) => dns::run(dns, targets, output).await,
        Command::Services(services) => services::run(services, targets, output).await,
        Command::Top(asked) => top::top(asked, targets, output).await,
        Command::Explain(asked) => explain::explain(asked, targets, output).await,
        Command::Doctor(doctor) => doctor::doctor(doctor, targets, output).await,
        Command::Bugreport(report) => bugreport::bugreport(report, targets, output).await,
        Command::Version => version::version(targets, output).await,
        Command::Completion { shell } => {
            completion::print(shell, output);
            Ok(())
        }
        Command::Why(why) => why::why(why, targets, output).await,
    }
}
