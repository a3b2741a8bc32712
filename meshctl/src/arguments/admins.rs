//! `meshctl admins`: who may use the admin API.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use model::admin::Role;
use model::name::Name;

/// `meshctl admins`
#[derive(Debug, Subcommand)]
pub enum Admins {
    /// Make a credential for somebody; its secret is shown this once
    Create(CreateAdmin),
    /// List who has a credential
    List,
    /// Make another credential in the place of one, which opens nothing from then on
    Replace {
        /// Whose
        name: Name,
        /// Write the credential to this file, mode 0600, instead of showing it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Withdraw a credential; the last one with the role admin stays
    Revoke {
        /// Whose
        name: Name,
    },
}

/// `meshctl admins create`
#[derive(Debug, Args)]
pub struct CreateAdmin {
    /// Who it is for; stands in the audit log beside what they do
    pub name: Name,
    /// What they may do
    #[arg(long, value_name = "ROLE")]
    pub role: RoleName,
    /// How long it is good for: 12h, 90d [default: until it is revoked]
    #[arg(long, value_name = "SPAN", value_parser = crate::commands::tokens::parse_span)]
    pub valid_for: Option<u64>,
    /// Write the credential to this file, mode 0600, instead of showing it
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// A role, as the command line has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoleName {
    /// Sees everything that is not secret, asks why
    Viewer,
    /// As a viewer, and manages hosts and tokens
    Operator,
    /// As a viewer, and changes the policy
    PolicyEditor,
    /// Everything
    Admin,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Viewer => Self::Viewer,
            RoleName::Operator => Self::Operator,
            RoleName::PolicyEditor => Self::PolicyEditor,
            RoleName::Admin => Self::Admin,
        }
    }
}
