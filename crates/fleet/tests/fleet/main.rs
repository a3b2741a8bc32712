//! The fleet against a toy store that delays, reorders, refuses and crashes.

#![allow(clippy::unwrap_used)] // the helpers of tests are tests

mod commits;
mod enrolment;
mod interleavings;
mod maps;
mod policies;
mod sessions;
mod tokens;
mod why;
mod world;
