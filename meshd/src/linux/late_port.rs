//! A socket that is bound to an address and has its port only when it is known where it goes: the same
//! port serves for many destinations then, and not for one alone.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Puts off the choice of the port from bind(2) to connect(2), for IPv4 and IPv6 (ip(7),
/// IP_BIND_ADDRESS_NO_PORT).
///
/// # Errors
/// It is no socket of TCP or UDP.
pub(crate) fn choose_port_late(socket: impl AsFd) -> io::Result<()> {
    let yes: libc::c_int = 1;
    // SAFETY: the kernel reads an int, which lives through the call (setsockopt(2)).
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const yes).cast(),
            size_of_val(&yes) as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

    use socket2::{Domain, Socket, Type};

    use super::*;

    #[test]
    fn a_bound_socket_has_no_port_before_it_goes_somewhere() {
        for ip in [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ] {
            let at = SocketAddr::new(ip, 0);
            let socket = Socket::new(Domain::for_address(at), Type::STREAM, None).unwrap();
            choose_port_late(&socket).unwrap();
            socket.bind(&at.into()).unwrap();
            let bound = socket.local_addr().unwrap().as_socket();
            assert_eq!(bound, Some(at));
        }
        assert!(choose_port_late(File::open("/dev/null").unwrap()).is_err());
    }
}
