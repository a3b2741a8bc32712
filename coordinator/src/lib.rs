//! The coordinator of a fleet as a library, so that tests can hold its parts; `main.rs` is thin.

pub mod store;
