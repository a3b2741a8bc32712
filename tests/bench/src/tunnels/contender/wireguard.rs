//! What all implementations of WireGuard have in common: `wg` configures them.

use std::net::SocketAddr;
use std::time::Instant;

use interop::{Device, Peer, Program, WIREGUARD_PORT, addresses};
use lab::LabError;

use super::Joined;
use crate::tunnels::ground::Ground;

/// What WireGuard seals with (whitepaper 5.4.6).
pub(super) const CIPHER: &str = "chacha20-poly1305";

const LEFT: u8 = 0;
const RIGHT: u8 = 1;

/// Starts the program on both machines and makes them peers.
pub(super) fn join(program: &Program, ground: &Ground) -> Result<Joined, LabError> {
    let started = Instant::now();
    let left = Device::start(program, &ground.left.namespace, LEFT)?;
    let right = Device::start(program, &ground.right.namespace, RIGHT)?;
    let peer = |number, address| Peer {
        endpoint: Some(SocketAddr::new(address, WIREGUARD_PORT)),
        ..Peer::numbered(number)
    };
    right.configure(&[peer(LEFT, ground.left.address)])?;
    left.configure(&[peer(RIGHT, ground.right.address)])?;
    Ok(Joined {
        target: addresses(RIGHT).v4.into(),
        started,
        handshakes: Some((SocketAddr::new(ground.right.address, WIREGUARD_PORT), RIGHT)),
        daemons: vec![Box::new(left), Box::new(right)],
    })
}
