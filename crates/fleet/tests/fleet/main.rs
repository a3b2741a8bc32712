//! The fleet against a toy store that delays, reorders, refuses and crashes.

#![allow(clippy::unwrap_used)] // the helpers of tests are tests

mod commits;
mod concern;
mod enrolment;
mod interest;
mod interleavings;
mod maps;
mod model_host;
mod policies;
mod scale;
mod sessions;
mod tokens;
mod why;
mod world;
