//! Our tunnel against Debian's `wireguard-go`: handshakes both ways, renewal, roaming,
//! keepalives, cookies, and every byte as it was sent. Needs root.

mod cookies;
mod handshakes;
mod inside;
mod keepalives;
mod pair;
mod renewal;
mod roaming;
mod transfer;
