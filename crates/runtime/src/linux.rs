//! What the kernel knows about the other end of a local socket.

pub mod peer_groups;
