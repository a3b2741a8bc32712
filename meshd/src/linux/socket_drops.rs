//! What the kernel dropped because a socket's receive buffer was full, asked of the socket itself:
//! `/proc/net/udp` tells the same, of all sockets of the machine, and takes the longer the more of them
//! anybody has opened.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// As many words as come up to the count of drops (linux/sock_diag.h).
const WORDS: usize = libc::SK_MEMINFO_DROPS as usize + 1;

/// Returns the datagrams that a socket has had no room for since it was made, modulo 2^32.
///
/// # Errors
/// The kernel is older than Linux 4.12, which cannot be asked.
pub(crate) fn socket_drops(socket: impl AsFd) -> io::Result<u32> {
    let mut words = [0u32; WORDS];
    let mut length = size_of_val(&words) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `words`, which are as many as it has, and the
    // bytes written to `length`; both live through the call (getsockopt(2)).
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            words.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if (length as usize) < size_of_val(&words) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(words[WORDS - 1])
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn datagrams_that_find_no_room_are_counted_and_others_are_not() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = socket.local_addr().unwrap();
        sender.send_to(b"fits", to).unwrap();
        assert_eq!(socket_drops(&socket).unwrap(), 0);
        // The kernel makes of it the least that there is (socket(7)).
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 1).unwrap();
        for _ in 0..64 {
            sender.send_to(&[0; 1024], to).unwrap();
        }
        let drops = socket_drops(&socket).unwrap();
        assert!((32..=64).contains(&drops), "{drops} of 64");
    }

    #[test]
    fn what_is_no_socket_says_so() {
        assert!(socket_drops(File::open("/dev/null").unwrap()).is_err());
    }
}
