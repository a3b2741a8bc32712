//! The IO that more than one program needs: start and stop, settings, logs, metrics, TLS, the
//! control channel, local sockets. It knows the messages of `model`, and no brain.

pub mod api_client;
pub mod clock;
pub mod config;
pub mod control;
pub mod linux;
pub mod local_socket;
pub mod logs;
pub mod metrics;
pub mod process;
pub mod reason;
pub mod refusal;
pub mod service_manager;
pub mod state_dir;
pub mod tls;
pub mod tls_server;
