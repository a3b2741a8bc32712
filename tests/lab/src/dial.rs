//! TCP connections as a program on a lab's machine would open them, and what came of the attempt.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::error::{Doing, LabError};
use crate::namespace::Namespace;

/// After this, an attempt that was answered by nothing at all counts as unanswered. Longer than
/// the first retransmission of a SYN, which may have to wait for a tunnel's handshake.
const PATIENCE: Duration = Duration::from_secs(4);

/// What came of an attempt to connect.
#[derive(Debug)]
pub enum Dialled {
    /// Somebody accepted.
    Connected(TcpStream),
    /// Somebody said no at once: nobody listens, or a policy denies it.
    Refused,
    /// There is no way there, as the kernel or somebody on the way said at once.
    Unreachable,
    /// Nothing was heard.
    Unanswered,
}

impl Dialled {
    /// The connection.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn connected(self) -> Result<TcpStream, LabError> {
        match self {
            Self::Connected(stream) => Ok(stream),
            other => Err(LabError::new(format!("not connected: {other:?}"))),
        }
    }
}

impl Namespace {
    /// Opens a TCP connection from this machine.
    ///
    /// # Errors
    ///
    /// When it fails in a way that has no name here.
    pub fn dial(&self, target: impl Into<SocketAddr>) -> Result<Dialled, LabError> {
        let target = target.into();
        let attempt = self.inside(|| TcpStream::connect_timeout(&target, PATIENCE))?;
        let error = match attempt {
            Ok(stream) => return Ok(Dialled::Connected(stream)),
            Err(error) => error,
        };
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Ok(Dialled::Refused),
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                Ok(Dialled::Unreachable)
            }
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Ok(Dialled::Unanswered),
            _ => Err(error).doing(format_args!("connect {} to {target}", self.name())),
        }
    }
}
