//! The operator's hand on the mesh: asks the daemon of this host and the coordinator, and shows
//! the answers to people and to programs. It decides nothing.

pub mod answers;
pub mod arguments;
pub mod commands;
pub mod connect;
pub mod failure;
pub mod membership;
pub mod output;
pub mod private_file;
pub mod waiting;
