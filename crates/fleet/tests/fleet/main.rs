//! The fleet against a toy store that delays, reorders, refuses and crashes.

#![allow(clippy::unwrap_used)] // the helpers of tests are tests

mod abilities;
mod admins;
mod audit;
mod authority;
mod ciphers;
mod commits;
mod concern;
mod enrolment;
mod former_names;
mod greed;
mod hosts;
mod interest;
mod interleavings;
mod key_changes;
mod machine;
mod maps;
mod model_host;
mod policies;
mod policy_steps;
mod policy_work;
mod recorded;
mod recovery;
mod rememberer;
mod retired_roots;
mod scale;
mod sessions;
mod signing_again;
mod storms;
mod testimony;
mod tokens;
mod toy_store;
mod why;
mod world;
