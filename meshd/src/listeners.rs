//! Whether a program of this host listens for a flow, as `/proc/net` tells. Only for people who
//! ask why: nothing is decided by it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use model::address::HostAddresses;
use model::pair::Listener;
use model::rule::ip_protocol;

/// The kernel's number of a TCP socket that listens (`include/net/tcp_states.h`).
const TCP_LISTEN: &str = "0A";
/// What it says of a UDP socket that is connected to nobody.
const UDP_UNCONNECTED: &str = "07";

/// Looks for a listener on a port, at the host's own overlay addresses. `None`: the protocol has no
/// listeners, or the kernel does not tell. Blocks.
pub fn look(protocol: u8, port: u16, own: HostAddresses) -> Option<Listener> {
    let (name, state) = match protocol {
        ip_protocol::TCP => ("tcp", TCP_LISTEN),
        ip_protocol::UDP => ("udp", UDP_UNCONNECTED),
        _ => return None,
    };
    match bound(name, state) {
        Ok(bound) => Some(judge(&bound, port, own)),
        Err(error) => {
            tracing::debug!(%error, "the sockets of this host cannot be listed");
            None
        }
    }
}

fn bound(name: &str, state: &str) -> io::Result<Vec<SocketAddr>> {
    let mut all = read(
        &std::fs::read_to_string(format!("/proc/net/{name}"))?,
        state,
    );
    // Not there on a machine without IPv6.
    if let Ok(text) = std::fs::read_to_string(format!("/proc/net/{name}6")) {
        all.extend(read(&text, state));
    }
    Ok(all)
}

/// A socket on `::` takes IPv4 too, unless it says otherwise, which `/proc/net` does not tell.
fn judge(bound: &[SocketAddr], port: u16, own: HostAddresses) -> Listener {
    let mut on_port = bound.iter().filter(|at| at.port() == port).peekable();
    if on_port.peek().is_none() {
        return Listener::Nothing;
    }
    let is_reached = |at: &SocketAddr| at.ip().is_unspecified() || own.contains(at.ip());
    if on_port.any(is_reached) {
        Listener::Listening
    } else {
        Listener::Elsewhere
    }
}

/// Reads the local addresses of the sockets in a state (proc_net_tcp.rst of the kernel).
fn read(text: &str, state: &str) -> Vec<SocketAddr> {
    let rows = text.lines().skip(1);
    rows.filter_map(|row| {
        let mut fields = row.split_ascii_whitespace().skip(1);
        let (local, _remote, its_state) = (fields.next()?, fields.next()?, fields.next()?);
        (its_state == state).then(|| address(local)).flatten()
    })
    .collect()
}

/// An address as words of 32 bits in the machine's own byte order, in hexadecimal.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |index: usize| {
        let digits = ip.get(index * 8..index * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let ip: IpAddr = match ip.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut octets = [0; 16];
            for (index, four) in octets.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(index)?);
            }
            let v6 = Ipv6Addr::from(octets);
            v6.to_ipv4_mapped().map_or(v6.into(), IpAddr::V4)
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn own() -> HostAddresses {
        HostAddresses {
            v4: [100, 64, 0, 16].into(),
            v6: "fd00::16".parse().unwrap(),
        }
    }

    #[test]
    fn a_socket_counts_where_the_overlay_reaches_it() {
        let at = |text: &str| text.parse().unwrap();
        for (bound, expected) in [
            (vec![], Listener::Nothing),
            (vec![at("0.0.0.0:81")], Listener::Nothing),
            (vec![at("0.0.0.0:80")], Listener::Listening),
            (vec![at("[::]:80")], Listener::Listening),
            (vec![at("100.64.0.16:80")], Listener::Listening),
            (vec![at("[fd00::16]:80")], Listener::Listening),
            (vec![at("127.0.0.1:80")], Listener::Elsewhere),
            (
                vec![at("127.0.0.1:80"), at("100.64.0.16:80")],
                Listener::Listening,
            ),
        ] {
            assert_eq!(judge(&bound, 80, own()), expected, "{bound:?}");
        }
    }

    #[test]
    fn the_kernel_s_own_list_is_understood() {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let tcp = tcp.local_addr().unwrap();
        assert!(bound("tcp", TCP_LISTEN).unwrap().contains(&tcp));
        let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = udp.local_addr().unwrap().port();
        assert_eq!(
            look(ip_protocol::UDP, port, own()),
            Some(Listener::Listening)
        );
        assert_eq!(look(ip_protocol::ICMP, 0, own()), None);
    }

    #[test]
    fn rows_that_are_no_rows_are_passed_over() {
        let text = "  sl  local_address rem_address   st\n\
                    \n   0: zz:00 00000000:0000 0A\n   1: 0100007F 0 0A\n   2: 00:1F90 0 0A\n";
        assert_eq!(read(text, TCP_LISTEN), []);
    }
}
