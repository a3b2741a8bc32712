//! What carries the HTTP/2 of a connection between two hosts.

use std::fmt;

/// TCP wherever it gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TLS over TCP, to the port for streams.
    Tcp,
    /// QUIC, to the port of the tunnels.
    Quic,
}

impl Transport {
    /// Returns its name, as operators read it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Quic => "quic",
        }
    }

    /// Returns the one that is tried when this one does not get through.
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Tcp => Self::Quic,
            Self::Quic => Self::Tcp,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
