//! `meshctl policy`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `meshctl policy`
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Check a bundle's directory; needs no coordinator
    Check {
        /// The directory
        directory: PathBuf,
    },
    /// Run a bundle's tests, against the fleet when a coordinator is reachable
    Test {
        /// The directory
        directory: PathBuf,
    },
    /// Write the files of a bundle's directory canonically; comments stay
    Fmt {
        /// The directory
        directory: PathBuf,
        /// Change nothing; exit with 5 when a file would be written differently
        #[arg(long)]
        check: bool,
    },
    /// Print the JSON Schema of a bundle's files, for editors
    Schema,
    /// Show what differs, rule by rule, between two bundles
    Diff {
        /// The old one: a version or a directory; alone, what is compared with the version in force
        #[arg(value_name = "VERSION|DIRECTORY")]
        first: String,
        /// The new one
        #[arg(value_name = "VERSION|DIRECTORY")]
        second: Option<String>,
    },
    /// Show which hosts would gain or lose what, and what deserves a look before it is applied
    Plan {
        /// The directory, or an old version
        #[arg(value_name = "DIRECTORY|VERSION")]
        what: String,
    },
    /// Put a bundle in force
    Apply(ApplyPolicy),
    /// List the versions
    History,
    /// Show the files of a version
    Show {
        /// The version [default: the one in force]
        version: Option<u64>,
    },
    /// Put the content of an old version in force, as a new version
    Rollback(RollbackPolicy),
    /// Show where the current version is in force
    Status,
}

/// `meshctl policy apply`
#[derive(Debug, Args)]
pub struct ApplyPolicy {
    /// The directory
    pub directory: PathBuf,
    /// What the change is for
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    pub message: String,
    /// Refuse when another version than this is in force
    #[arg(long, value_name = "VERSION")]
    pub base: Option<u64>,
    /// Check and test against the fleet, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How many seconds to wait until the online hosts enforce it; 0 does not wait
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub wait: u64,
}

/// `meshctl policy rollback`
#[derive(Debug, Args)]
pub struct RollbackPolicy {
    /// The old version
    pub version: u64,
    /// What the change is for [default: which version it is back to]
    #[arg(
        short,
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub message: String,
    /// Refuse when another version than this is in force
    #[arg(long, value_name = "VERSION")]
    pub base: Option<u64>,
    /// Check and test against the fleet, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How many seconds to wait until the online hosts enforce it; 0 does not wait
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub wait: u64,
}
