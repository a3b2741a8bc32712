//! The nouns of the mesh and the messages between its programs. No IO, no clock, no randomness:
//! every other crate may use this one, and it uses none of them.

#![forbid(unsafe_code)]

pub mod address;
pub mod admin;
pub mod catalogue;
pub mod control;
pub mod identity;
pub mod ids;
pub mod key;
pub mod limits;
pub mod local;
pub mod map;
pub mod memory;
pub mod name;
pub mod pair;
pub mod question;
pub mod record;
pub mod rule;
pub mod store;
pub mod time;
pub mod wire;
