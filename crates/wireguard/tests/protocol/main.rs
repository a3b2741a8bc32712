//! Tests of the whole protocol: two tunnels, or one and another implementation.

mod ciphers;
mod convergence;
mod corruption;
mod crossing;
mod expiry;
mod handshakes;
mod host;
mod keepalives;
mod oracle;
