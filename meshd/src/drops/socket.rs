//! What the kernel dropped at one socket, each under what went on then: its buffer was full, or the
//! packet thread shed load. The kernel has one count for both, so that who begins or ends shedding looks
//! first, and what found the buffer full while load was shed is counted as shed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::linux::socket_drops::socket_drops;

/// The counts of one socket, from when this was made on. Its lock is held for one system call, never
/// while packets pass.
#[derive(Debug)]
pub(crate) struct SocketDrops {
    socket: OwnedFd,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// The kernel's, modulo 2^32.
    last: u32,
    buffer_full: u64,
    above_share: u64,
    is_shedding: bool,
}

impl SocketDrops {
    /// Counts what a socket drops from now on.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub(crate) fn from_here(socket: impl AsFd) -> io::Result<Self> {
        let socket = socket.as_fd().try_clone_to_owned()?;
        let counts = Counts {
            last: socket_drops(&socket).unwrap_or_default(),
            ..Counts::default()
        };
        Ok(Self {
            socket,
            counts: Mutex::new(counts),
        })
    }

    /// Returns the datagrams, as the kernel had joined them, that found the buffer full while all might
    /// come in.
    pub(crate) fn buffer_full(&self) -> u64 {
        self.look().buffer_full
    }

    /// Returns the datagrams, as the kernel had joined them, that were dropped while senders had shares.
    pub(crate) fn above_share(&self) -> u64 {
        self.look().above_share
    }

    /// Returns all of them.
    pub(crate) fn total(&self) -> u64 {
        let counts = self.look();
        counts.buffer_full + counts.above_share
    }

    /// From now on, what is dropped counts as above its share; or it does not any more.
    pub(crate) fn set_shedding(&self, is_shedding: bool) {
        self.look().is_shedding = is_shedding;
    }

    fn look(&self) -> MutexGuard<'_, Counts> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        // A kernel that is too old to say counts nothing.
        let now = socket_drops(&self.socket).unwrap_or(counts.last);
        let dropped = u64::from(now.wrapping_sub(counts.last));
        counts.last = now;
        match counts.is_shedding {
            true => counts.above_share += dropped,
            false => counts.buffer_full += dropped,
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn each_drop_is_counted_once_and_under_what_was_going_on() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 1).unwrap();
        let flood = || {
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            for _ in 0..64 {
                let to = socket.local_addr().unwrap();
                sender.send_to(&[0; 1024], to).unwrap();
            }
        };
        flood();
        let drops = SocketDrops::from_here(&socket).unwrap();
        assert_eq!(drops.total(), 0, "that was before");
        flood();
        drops.set_shedding(true);
        assert_eq!(drops.buffer_full(), 64);
        flood();
        drops.set_shedding(false);
        flood();
        assert_eq!((drops.buffer_full(), drops.above_share()), (128, 64));
        assert_eq!(drops.total(), 192);
    }
}
