//! What the kernel knows about the other end of a local socket, and what came with our start.

pub mod inherited;
pub mod peer_groups;
