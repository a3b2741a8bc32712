//! What the daemon owns of the kernel: one interface, its routes, one nftables table. Everything
//! here is made by name, and taken back by name.

pub(crate) mod classic_bpf;
pub mod firewall;
mod inspection;
pub mod interface;
pub mod routes;
pub mod send_runs;
pub(crate) mod socket_drops;
pub(crate) mod standard_input;
pub mod steering;
pub mod tun_offload;
pub(crate) mod underlay_mtu;
