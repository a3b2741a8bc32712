//! What the daemon owns of the kernel: one interface, its routes, one nftables table. Everything
//! here is made by name, and taken back by name. And what it asks the kernel about other programs:
//! whose socket is at the other end of a connection that was caught.

pub mod allocator;
pub(crate) mod cgroups;
pub(crate) mod classic_bpf;
pub(crate) mod conntrack;
pub mod firewall;
mod inspection;
pub mod interception;
pub mod interface;
mod kernel_question;
pub(crate) mod late_port;
pub(crate) mod precedence;
pub(crate) mod processes;
pub mod routes;
pub mod send_runs;
pub(crate) mod sock_diag;
pub(crate) mod socket_drops;
pub(crate) mod standard_input;
pub mod steering;
pub mod tun_offload;
pub(crate) mod underlay_mtu;
pub(crate) mod users;
