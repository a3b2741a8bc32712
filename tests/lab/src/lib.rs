//! The real programs in network namespaces, for tests and for the demo.
//!
//! A [`Lab`] makes namespaces and removes them with certainty: after success, failure, a panic,
//! Ctrl-C and its own `kill -9`. [`fleet`] starts the built programs in it. Needs root.

#![allow(
    clippy::print_stderr,
    reason = "a lab that fails shows the logs of its programs to the person who ran it"
)]

mod dial;
mod error;
pub mod fleet;
mod guardian;
mod lab;
mod launch;
pub mod metrics;
mod namespace;
mod network;
mod process;
mod programs;
pub mod schema;
mod service;
mod unit;
mod wait;
mod wiretap;

pub use dial::Dialled;
pub use error::{LabError, something_failed};
pub use lab::{Lab, kept_labs, remove_lab};
pub use launch::{Launch, Ran};
pub use namespace::Namespace;
pub use network::{Attachment, Network, Subnets};
pub use process::Process;
pub use programs::{Programs, python_packages, replace_program};
pub use unit::Unit;
pub use wait::{wait_for_exit, wait_until};
pub use wiretap::{Overheard, Wiretap};
