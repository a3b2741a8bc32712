//! Our tunnel against other implementations of WireGuard, as equals: whatever makes a device that
//! `wg` can configure is a [`Program`], ours by the binary `mesh-wireguard`.
//!
//! A [`Device`] is one such program at work in a namespace of the lab.

mod device;
mod flood;
mod overlay;
mod peer;
mod program;

pub use device::{Device, PeerState};
pub use flood::Flood;
pub use overlay::{OVERLAY_MTU, WIREGUARD_PORT, addresses, overlay};
pub use peer::{Peer, private_key, public_key};
pub use program::Program;
