//! One datagram that neither this host nor a router may cut, over a socket whose others may be.

use std::io;
use std::net::UdpSocket;

use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};

use crate::linux::send_runs::{Run, send_runs};

/// Sends one datagram whole or not at all, whatever the kernel believes of the path: ip(7) and
/// ipv6(7), `IP_PMTUDISC_PROBE`. Nobody else sends what may have to be cut on the socket meanwhile: tunnels
/// are its thread's own, and QUIC's datagrams, which the proxy sends, pass everywhere.
///
/// # Errors
/// As `sendmsg(2)`; `EMSGSIZE`: the interface does not take so many bytes.
pub(super) fn send_unfragmented(socket: &UdpSocket, run: Run<'_>) -> io::Result<()> {
    if run.to.is_ipv4() {
        sockopt::set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::PROBE)?;
        let sent = send_runs(socket, &[run]);
        sockopt::set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::DONT)?;
        sent?;
    } else {
        sockopt::set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::PROBE)?;
        let sent = send_runs(socket, &[run]);
        sockopt::set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::DONT)?;
        sent?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use super::super::udp_sender::single;
    use super::*;

    #[test]
    fn what_the_interface_does_not_take_at_once_is_refused_and_others_are_cut_as_before() {
        for loopback in [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            Ipv6Addr::LOCALHOST.into(),
        ] {
            let receiver = UdpSocket::bind((loopback, 0)).unwrap();
            let sender = UdpSocket::bind((loopback, 0)).unwrap();
            let to = receiver.local_addr().unwrap();
            // The loopback device's MTU is 65536: IPv4's largest fits, IPv6's does not.
            let (fits, is_cut) = match loopback {
                IpAddr::V4(_) => (65507, None),
                IpAddr::V6(_) => (65488, Some(65500)),
            };
            let bytes = vec![7; 65535];
            send_unfragmented(&sender, single(to, None, &bytes[..fits])).unwrap();
            let mut received = vec![0; 65535];
            assert_eq!(receiver.recv(&mut received).unwrap(), fits);
            if let Some(length) = is_cut {
                let large = single(to, None, &bytes[..length]);
                let refused = send_unfragmented(&sender, large).unwrap_err();
                assert_eq!(refused.raw_os_error(), Some(libc::EMSGSIZE));
                send_runs(&sender, &[large]).unwrap();
                assert_eq!(receiver.recv(&mut received).unwrap(), length);
            }
        }
    }
}
