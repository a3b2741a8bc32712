//! What changed of the endpoints that an operator wants to read in a log.

use std::time::Duration;

use model::ids::HostId;

use crate::breaker::Tripped;

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// An endpoint gets no calls for a time.
    Ejected {
        /// Which.
        endpoint: HostId,
        /// What it did.
        why: Tripped,
        /// How long, until a probe.
        penalty: Duration,
    },
    /// An endpoint deserved it, but too many are ejected already.
    Spared {
        /// Which.
        endpoint: HostId,
        /// What it did.
        why: Tripped,
    },
    /// An endpoint's own host says that it is down: it gets no calls.
    ToldDown {
        /// Which.
        endpoint: HostId,
    },
    /// It takes calls again.
    ToldUp {
        /// Which.
        endpoint: HostId,
    },
    /// A probe succeeded: the endpoint gets calls again.
    Recovered {
        /// Which.
        endpoint: HostId,
    },
    /// Fewer than half are healthy: all get calls, lest the others break down.
    UsingAll {
        /// How many are healthy.
        healthy: usize,
        /// How many there are.
        of: usize,
    },
    /// Enough are healthy again.
    UsingHealthy {
        /// How many are healthy.
        healthy: usize,
        /// How many there are.
        of: usize,
    },
}
