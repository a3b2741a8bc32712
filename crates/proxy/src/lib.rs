//! Calls between services: connections of local programs that were caught, the streams that carry
//! them from host to host, and their delivery to local programs. What may be called is decided by
//! `policy`, which endpoint and how often by `traffic`; interception and the question who opened a
//! socket are the program's (`meshd`).

#![forbid(unsafe_code)]

mod config;
mod surroundings;

pub use config::{ProxyConfig, ProxyLimits};
pub use surroundings::{Caller, Listeners, Surroundings};
