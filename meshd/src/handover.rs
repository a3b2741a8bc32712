//! Handing over to another `meshd` on this host without cutting a connection: the one that runs (the
//! *predecessor*) starts the installed program (the *successor*), gives it its descriptors and what
//! it knows of peers and flows, never a key, and serves until the other one does. It goes on as if
//! nothing had been when that does not come about. Who says what, when, and what happens when either
//! dies is in `docs/decisions/upgrades-hand-over-descriptors.md`.

mod blob;
mod link;
mod message;
mod predecessor;
mod program;
mod successor;

pub(crate) use link::Link;
pub(crate) use message::Kept;
pub(crate) use predecessor::{Predecessor, Serving};
pub(crate) use program::Program;
pub use successor::refuse;
pub(crate) use successor::run;
