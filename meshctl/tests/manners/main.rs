//! How the program behaves where things go wrong around it: an output that takes nothing, a daemon
//! or a coordinator that is stopped or starts anew. The program that is built, against a server that
//! the test plays.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]

mod full_output;
mod membership;
mod policy;
mod restart;
mod server;
mod silence;
