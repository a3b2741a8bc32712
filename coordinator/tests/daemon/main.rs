//! A whole coordinator in this process, on a port of its own, and those who talk to it: hosts made
//! by hand, operators, strangers.

// A failure anywhere in here is a failed test.
#![allow(clippy::unwrap_used)]

mod admin_api;
mod audit;
mod authority;
mod described;
mod doors;
mod enrolment;
mod first_start;
mod host;
mod openapi;
mod recovery;
mod restart;
mod restoring;
mod stage;
mod streams;
