//! Calls of services: the sockets on which they come in, who makes them, and what is caught for it.

mod callers;
mod machine;
mod settings;
mod sockets;

pub use settings::ServiceSettings;
