//! Tests of the whole protocol: two tunnels, or one and another implementation.

mod convergence;
mod corruption;
mod crossing;
mod expiry;
mod handshakes;
mod host;
mod keepalives;
mod oracle;
