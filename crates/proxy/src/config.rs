//! What a proxy is started with, and every bound that it keeps.

use std::time::Duration;

/// How a proxy runs.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// Proxy threads, each with its own runtime and listeners; at least 1.
    pub threads: usize,
    /// How much of anything there may be.
    pub limits: ProxyLimits,
    /// From where balancing and back-off take their dice.
    pub seed: u64,
}

/// Bounds of one proxy thread, or where it is said, of one connection or request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyLimits {
    /// Connections of programs served at once; more wait in the kernel's queue.
    pub connections: usize,
    /// Of those, connections of one user of this host; more are broken off. Those of whom nobody knows
    /// are one user's.
    pub connections_of_user: usize,
    /// Bytes of one request's or answer's head; more is 431.
    pub head_bytes: u32,
    /// From the first wait for a request until its head is whole, idle time between requests
    /// included; then the connection is closed.
    pub head_wait: Duration,
    /// How long a request's or answer's body may stand still while it could go on.
    pub body_wait: Duration,
    /// How long the first bytes of a connection are waited for to tell HTTP from others. A program
    /// that waits for its server to speak first waits this long, once.
    pub detection_wait: Duration,
    /// Streams of one HTTP/2 connection of a program.
    pub http2_streams: u32,
    /// Streams of one HTTP/2 connection that a program may reset before they were looked at.
    pub http2_pending_resets: usize,
    /// Requests that one connection of a program may give up, unanswered, above those that it lets be
    /// answered; then no more are taken on it.
    pub given_up_requests: u32,
    /// Bytes of a request's body that are kept to send it again.
    pub replay_bytes: usize,
    /// Idle connections kept to one port of this host.
    pub idle_local_connections: usize,
    /// How long a program of this host may take to accept a connection, and to show that it speaks HTTP/2
    /// to a call that can be put in HTTP/1.1 as well.
    pub local_connect_wait: Duration,
    /// How long an idle connection to a program of this host is kept: less than what servers keep.
    pub idle_local_wait: Duration,
    /// Bytes under way in each direction of a connection of bytes.
    pub copy_bytes: usize,
    /// How long a connection of which one direction has ended waits for the other.
    pub half_closed_wait: Duration,
    /// Connections of bytes are decided again at least this often: rules may know the time of day.
    pub decide_again_every: Duration,
}

impl Default for ProxyLimits {
    fn default() -> Self {
        Self {
            connections: 16_384,
            connections_of_user: 8192,
            head_bytes: 64 << 10,
            head_wait: Duration::from_secs(60),
            body_wait: Duration::from_secs(300), // TRAFFIC.md, Timeouts: idle HTTP stream
            detection_wait: Duration::from_millis(300),
            http2_streams: 256,
            http2_pending_resets: 64,
            given_up_requests: 1000,
            replay_bytes: 64 << 10, // TRAFFIC.md, Retries
            idle_local_connections: 256,
            local_connect_wait: Duration::from_secs(1), // TRAFFIC.md, Timeouts: connect
            idle_local_wait: Duration::from_secs(4),
            copy_bytes: 128 << 10,
            half_closed_wait: Duration::from_secs(600),
            decide_again_every: Duration::from_secs(2),
        }
    }
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            threads: 1,
            limits: ProxyLimits::default(),
            seed: 0,
        }
    }
}
