//! The command line.

mod admins;
mod policy;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use model::name::{Label, Name};
use model::question::HeaderFact;
use model::rule::{HeaderText, Method, RequestPath};

use crate::failure::EXIT_CODES;
use crate::output::Color;

pub use admins::{Admins, CreateAdmin, RoleName};
pub use policy::{ApplyPolicy, Policy, RollbackPolicy};

/// The exit codes, for the end of the manual page.
fn exit_codes() -> String {
    let mut text = "Exit codes:".to_owned();
    for (code, word, when) in EXIT_CODES {
        text += &format!("\n  {code} {word}: {when}");
    }
    text
}

/// The operator's hand on the mesh.
#[derive(Debug, Parser)]
#[command(name = "meshctl", version, about, long_about = None, after_help = exit_codes())]
pub struct Arguments {
    /// Whom to ask.
    #[command(flatten)]
    pub targets: Targets,
    /// Answer in JSON of a stable shape
    #[arg(long, global = true)]
    pub json: bool,
    /// When to use colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Whom to ask.
#[derive(Clone, Debug, Default, Args)]
pub struct Targets {
    /// Socket of this host's daemon [default: /run/mesh/meshd.sock]
    #[arg(long, global = true, value_name = "PATH", env = "MESHD_SOCKET")]
    pub socket: Option<PathBuf>,
    /// Socket of the coordinator on its own machine [default: /run/mesh/coordinator.sock]
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "MESH_COORDINATOR_SOCKET"
    )]
    pub coordinator_socket: Option<PathBuf>,
    /// Credential for the coordinator [default: ~/.config/mesh/credential.json]
    #[arg(long, global = true, value_name = "FILE", env = "MESH_CREDENTIAL")]
    pub credential: Option<PathBuf>,
    /// Why, for the audit log of the coordinator
    #[arg(long, global = true, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make this host a member of a fleet
    Join(Join),
    /// Take this host out of its fleet, and forget its keys
    Leave,
    /// Wait until this host is in the overlay; a coordinator need not be reachable
    WaitOnline(WaitOnline),
    /// Put this host's settings, and the installed meshd when it is another one, in force; no connection is cut
    Reload(Reload),
    /// Show how this host is, and the coordinator where it is reachable
    Status,
    /// List the peers that this host knows
    Peers,
    /// Send echoes through the tunnel: which way, how long, how large
    Ping(Ping),
    /// Change this host's keys
    #[command(subcommand)]
    Keys(Keys),
    /// List and change the fleet's hosts
    #[command(subcommand)]
    Hosts(Hosts),
    /// Make, list and revoke join tokens
    #[command(subcommand)]
    Tokens(Tokens),
    /// Make, list and withdraw operators' credentials
    #[command(subcommand)]
    Admins(Admins),
    /// Write a backup of the coordinator, on its own machine; it holds the fleet's keys
    Backup {
        /// Where to; there must be no such file
        file: PathBuf,
    },
    /// Show what a restored coordinator still asks its hosts, or end it
    Recovery {
        /// What to do instead of showing it
        #[command(subcommand)]
        verb: Option<Recovery>,
    },
    /// Change the keys of the fleet's authority while it works
    #[command(subcommand)]
    Authority(Authority),
    /// Check, test, apply and roll back the policy
    #[command(subcommand)]
    Policy(Policy),
    /// Show who changed what, and whether the log is whole
    Audit(Audit),
    /// Tell whether a flow is allowed, and which rule says so, at both ends
    Why(Why),
    /// Show which packets this host dropped, why, and what to try
    Drops(Drops),
    /// Show what the daemon tells Prometheus
    Metrics(Metrics),
    /// Show what mesh DNS answers here, and how programs come to ask it
    #[command(subcommand)]
    Dns(Dns),
    /// Show the services that this host may reach or offers
    #[command(subcommand)]
    Services(Services),
    /// Show who calls what through this host, how fast and how well, and the endpoints
    Top(Top),
    /// Tell what became of one call of a service, and which rule decided
    Explain(Explain),
    /// Look for what is wrong on this host, and say what to do; changes nothing
    Doctor(Doctor),
    /// Collect what is known of this host in one file for who is to help; no secrets
    Bugreport(Bugreport),
    /// Show the versions of this program, the daemon and the coordinator
    Version,
    /// Print what a shell needs to complete the command line
    Completion {
        /// Which shell
        shell: CompletionShell,
    },
}

/// `meshctl join`
#[derive(Debug, Args)]
pub struct Join {
    /// The token; `-` reads it from standard input
    #[arg(required_unless_present_any = ["token_file", "unattended"], conflicts_with = "token_file")]
    pub token: Option<String>,
    /// Read the token from a file; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Take the token from /etc/mesh/join-token or a credential, and wipe it after the join
    #[arg(long, conflicts_with_all = ["token", "token_file"])]
    pub unattended: bool,
    /// Name to take [default: the machine's host name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

/// What `meshctl reload` is given.
#[derive(Debug, Args)]
pub struct Reload {
    /// Hand over to the installed meshd even when it is the one that runs
    #[arg(long)]
    pub hand_over: bool,
}

/// `meshctl wait-online`
#[derive(Debug, Args)]
pub struct WaitOnline {
    /// How long to wait; 0 only looks
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub timeout: u64,
}

/// `meshctl ping`
#[derive(Debug, Args)]
pub struct Ping {
    /// A host's name or overlay address
    pub host: String,
    /// How many echoes
    #[arg(short, long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub count: u32,
    /// Do not look for the largest packet that passes
    #[arg(long)]
    pub no_mtu: bool,
    /// How long to wait for each answer
    #[arg(short = 'W', long, value_name = "MILLISECONDS", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub timeout: u64,
}

/// `meshctl metrics`
#[derive(Debug, Args)]
pub struct Metrics {
    /// Of the coordinator, on its own machine
    #[arg(long)]
    pub coordinator: bool,
}

/// `meshctl keys`
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Give this host another WireGuard key; open connections live on
    Rotate,
}

/// `meshctl hosts`
#[derive(Debug, Subcommand)]
pub enum Hosts {
    /// List the hosts of the fleet
    List,
    /// Show one host
    Show {
        /// Its name
        host: String,
    },
    /// Change labels of a host: KEY=VALUE sets one, KEY- removes it
    Label {
        /// Its name
        host: String,
        /// KEY=VALUE or KEY-
        #[arg(required = true)]
        changes: Vec<String>,
    },
    /// Give a host another name; its rules, labels and addresses stay
    Rename {
        /// Its name
        host: String,
        /// What it is called from now on
        name: String,
    },
    /// Ask a host to give itself another WireGuard key; open connections live on
    RotateKey {
        /// Its name
        host: String,
    },
    /// Remove a host from the fleet; its machine may join anew
    Remove {
        /// Its name
        host: String,
    },
    /// Remove a host that is no longer to be trusted: cut it off, never let its keys in again
    Revoke {
        /// Its name
        host: String,
        /// How many seconds to wait until the online hosts have cut it off; 0 does not wait
        #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(..=86_400))]
        wait: u64,
    },
    /// List the hosts that were removed, or show which hosts know of one of them
    Removed {
        /// Its last name or its id
        host: Option<String>,
    },
}

/// `meshctl recovery`
#[derive(Debug, Subcommand)]
pub enum Recovery {
    /// The store is behind its hosts: ask them all what they remember
    Start {
        /// How that is known, for people
        #[arg(default_value = "an operator says so")]
        why: String,
    },
    /// Wait for no more hosts, and sign a new epoch
    Finish {
        /// Also when no host has told what it remembers
        #[arg(long)]
        force: bool,
    },
}

/// `meshctl authority`
#[derive(Debug, Subcommand)]
pub enum Authority {
    /// Show which roots are believed, which hosts have moved to the newest, and which have not
    Show,
    /// Make new keys beside the old ones; hosts move by themselves, and nothing is cut
    Rotate,
    /// Believe the old root no more, and erase its keys; refused while a host has not moved
    Retire {
        /// Leave the hosts behind that have not moved: each has to join anew
        #[arg(long)]
        force: bool,
    },
}

/// `meshctl tokens`
#[derive(Debug, Subcommand)]
pub enum Tokens {
    /// Make a join token; it is shown this once
    Create(CreateToken),
    /// List the join tokens
    List,
    /// Revoke a join token; hosts that joined with it stay
    Revoke {
        /// Its id, as `tokens list` shows it
        id: String,
    },
}

/// `meshctl tokens create`
#[derive(Debug, Args)]
pub struct CreateToken {
    /// Label for each host that joins with it (repeatable)
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<Label>,
    /// How many hosts may join with it [default: one]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "unlimited")]
    pub uses: Option<u32>,
    /// Any number of hosts may join with it until it expires
    #[arg(long)]
    pub unlimited: bool,
    /// How long it is good for: 30m, 12h, 7d
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = crate::commands::tokens::parse_span)]
    pub valid_for: u64,
    /// Name that may be taken, or a prefix ending in * (repeatable) [default: any]
    #[arg(long = "name", value_name = "NAME")]
    pub names: Vec<String>,
    /// What it is for
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub comment: String,
}

/// `meshctl audit`
#[derive(Debug, Args)]
pub struct Audit {
    /// Only since then: a span such as 12h, or a time such as 2026-11-22T20:00:00Z [default: the last 50 entries]
    #[arg(long, value_name = "WHEN", value_parser = crate::commands::audit::parse_since)]
    pub since: Option<u64>,
    /// Only what this one did: an admin's name, `host NAME`, `token ID`, `local:UID`
    #[arg(long, value_name = "WHO")]
    pub who: Option<String>,
    /// Everything that the coordinator still has
    #[arg(long)]
    pub all: bool,
    /// Check that no entry was altered or left out; exit with 5 when one was
    #[arg(long, conflicts_with_all = ["since", "who", "all"])]
    pub verify: bool,
    /// An entry that an earlier check printed: it has to be in the log still
    #[arg(long, value_name = "NUMBER:HASH", requires = "verify", value_parser = crate::commands::audit::parse_kept)]
    pub kept: Option<(u64, model::ids::Digest)>,
}

/// `meshctl why`
#[derive(Debug, Args)]
pub struct Why {
    /// A host's name or overlay address
    pub from: String,
    /// HOST:PORT, HOST:PORT/udp, HOST/icmp, or a service; an address may stand for a host, as in [fd12::1]:22
    pub to: String,
    /// Who on the host calls [default: whoever does]
    #[arg(long, value_name = "NAME")]
    pub workload: Option<Name>,
    /// The request's method [default for this and what follows: any]
    #[arg(long, value_name = "METHOD", value_parser = crate::commands::why::parse_method)]
    pub method: Option<Method>,
    /// Its path, decoded; a query is left out
    #[arg(long, value_name = "PATH", value_parser = crate::commands::why::parse_path)]
    pub path: Option<RequestPath>,
    /// The host that it is for
    #[arg(long, value_name = "HOST")]
    pub host: Option<HeaderText>,
    /// A header of it, as "x-user: ada"; "x-user:" says that it does not have it (repeatable)
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = crate::commands::why::parse_header)]
    pub headers: Vec<HeaderFact>,
    /// When: now, or as "2026-11-23 23:30 Europe/Paris"
    #[arg(long, value_name = "TIME", value_parser = crate::commands::why::parse_time)]
    pub at: Option<u64>,
}

/// `meshctl drops`
#[derive(Debug, Args)]
pub struct Drops {
    /// Show it again and again, until it is interrupted
    #[arg(short, long)]
    pub watch: bool,
    /// How many seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 2, requires = "watch", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub interval: u64,
    /// Explain also the reasons that did not occur within the last minute
    #[arg(short, long)]
    pub all: bool,
}

/// `meshctl top`
#[derive(Debug, Args)]
pub struct Top {
    /// How many seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub interval: u64,
    /// How often to show it [default: once, or until it is interrupted on a terminal]
    #[arg(short = 'n', long, value_name = "TIMES")]
    pub count: Option<u64>,
    /// Show where the time of calls goes, on average
    #[arg(long)]
    pub stages: bool,
}

/// `meshctl explain`
#[derive(Debug, Args)]
pub struct Explain {
    /// The call's id: the header mesh-call of an answer, 16 hexadecimal digits
    pub id: String,
}

/// `meshctl doctor`
#[derive(Debug, Args)]
pub struct Doctor {
    /// Show every check, also what is in order
    #[arg(short, long)]
    pub all: bool,
    /// Settings file of the daemon [default: /etc/mesh/meshd.toml]
    #[arg(long, value_name = "FILE", env = "MESHD_CONFIG")]
    pub config: Option<PathBuf>,
}

/// `meshctl bugreport`
#[derive(Debug, Args)]
pub struct Bugreport {
    /// Where to; there must be no such file [default: meshctl-bugreport-HOST-TIME.tar.gz here]
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Replace public addresses by names that stand for them
    #[arg(long)]
    pub redact_addresses: bool,
    /// Show what would be in it, and write nothing
    #[arg(long, conflicts_with = "file")]
    pub list: bool,
    /// Settings file of the daemon [default: /etc/mesh/meshd.toml]
    #[arg(long, value_name = "FILE", env = "MESHD_CONFIG")]
    pub config: Option<PathBuf>,
}

/// `meshctl dns`
#[derive(Debug, Subcommand)]
pub enum Dns {
    /// Show every name that is answered, and how the host's resolver is set up
    Show,
    /// Ask for one name: what mesh DNS says, and what programs of this host get
    Query(DnsQuery),
}

/// `meshctl dns query`
#[derive(Debug, Args)]
pub struct DnsQuery {
    /// A name; without a dot one of the mesh; or an address
    pub name: String,
    /// A, AAAA, SRV, PTR, … [default: A and AAAA; PTR for an address, SRV for _NAME._tcp]
    #[arg(value_name = "TYPE")]
    pub record_type: Option<String>,
}

/// `meshctl services`
#[derive(Debug, Subcommand)]
pub enum Services {
    /// List the services, and how many of their endpoints this host may reach
    List,
    /// Show the endpoints of one service
    Show {
        /// Its name
        service: String,
    },
}

/// A shell that completes command lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum CompletionShell {
    /// GNU Bash
    Bash,
    /// Zsh
    Zsh,
    /// Fish
    Fish,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn nobody_waits_beyond_the_end_of_the_clock() {
        let wait = |secs: &str| {
            Arguments::try_parse_from(["meshctl", "policy", "apply", "dir", "--wait", secs])
        };
        assert!(wait("0").is_ok());
        assert!(wait("18446744073709551615").is_err());
    }
}
