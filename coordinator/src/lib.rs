//! The coordinator of a fleet: all the IO around `fleet`, which decides. A library and a thin
//! `main`, so that tests can hold its parts. `daemon` says how they go together: read it first.

mod addresses;
pub mod admin;
mod authority_file;
mod authority_keeper;
mod backup;
pub mod brain;
pub mod control;
mod credential_file;
pub mod daemon;
mod former_keys;
mod founding;
pub mod metrics;
mod overlap;
mod public;
pub mod recover;
pub mod restore;
mod server_certificate;
pub mod sessions;
pub mod settings;
mod storage;
pub mod store;
mod watchdog;
mod workshop;
