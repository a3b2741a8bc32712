//! The mesh daemon of one host: all the IO around `agent`, which decides, and `dataplane`, which
//! moves packets. A library and a thin `main`, so that tests can hold its parts.

pub mod brain;
pub mod channel;
pub mod ciphers;
pub mod daemon;
pub mod dns;
pub mod drops;
pub mod handover;
pub mod linux;
pub mod listeners;
pub mod local_api;
pub mod machine;
pub mod metrics;
pub mod mtu;
mod number_or_word;
pub mod overlay;
pub mod packets;
pub mod ping;
pub mod plan;
pub mod programs;
pub mod reload;
pub mod resolver;
pub mod services;
mod serving;
pub mod settings;
pub mod shards;
pub mod state_files;
pub mod stopping;
mod stored;
mod watchdog;
