//! Who has a socket (sock_diag(7)). Of TCP, one exact look-up by the addresses at both ends, never a list: it
//! takes some ten microseconds, however many sockets the machine has. Of UDP, all that have a port.

use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::net::netlink::SOCK_DIAG;

use super::kernel_question::{KernelQuestion, KernelQuestions, attribute, number};

/// linux/sock_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `struct inet_diag_sockid` (linux/inet_diag.h): ports and addresses in network byte order, the
/// interface, and the cookie.
const ID_BYTES: usize = 48;
/// `struct inet_diag_msg`: family, state, timer, retransmissions, the id, five numbers.
const ANSWER_BYTES: usize = 4 + ID_BYTES + 20;
const STATE_AT: usize = 1;
const ID_AT: usize = 4;
const UID_AT: usize = ID_AT + ID_BYTES + 12;
const INODE_AT: usize = ID_AT + ID_BYTES + 16;
/// No cookie is asked for (`INET_DIAG_NOCOOKIE`).
const ANY_COOKIE: [u8; 8] = [0xff; 8];
/// The attribute with the control group's number; Linux 5.9 and newer tell it unasked.
const INET_DIAG_CGROUP_ID: u16 = 21;

/// The kernel's numbers of TCP's states (net/tcp_states.h).
const TCP_ESTABLISHED: u8 = 1;
const TCP_SYN_SENT: u8 = 2;
const TCP_CLOSE_WAIT: u8 = 8;
const TCP_LISTEN: u8 = 10;

/// A socket as the kernel describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnedSocket {
    /// Of the user that made it.
    pub(crate) uid: u32,
    /// Its number among sockets: `socket:[NUMBER]` below /proc/PID/fd.
    pub(crate) inode: u32,
    /// The control group (version 2) of the process that made it; `None`: the kernel does not tell.
    pub(crate) cgroup: Option<u64>,
    state: u8,
}

impl OwnedSocket {
    /// Whether both ends of a TCP connection are open, or the other end has only said its last.
    pub(crate) fn is_connected(&self) -> bool {
        matches!(self.state, TCP_ESTABLISHED | TCP_CLOSE_WAIT)
    }
}

/// Asks the kernel; threads may ask at the same time.
#[derive(Debug)]
pub(crate) struct SockDiag(KernelQuestions);

impl Default for SockDiag {
    fn default() -> Self {
        Self(KernelQuestions::new(SOCK_DIAG))
    }
}

impl SockDiag {
    /// Returns the socket with these two ends, as its own program sees them. `None`: there is none, or
    /// no process has it any more.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub(crate) fn look_up(
        &self,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> io::Result<Option<OwnedSocket>> {
        let (local, remote) = (canonical(local), canonical(remote));
        self.0.with(|kernel| ask(kernel, local, remote))
    }

    /// Returns the UDP sockets that can send from the port of an address, under that address.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub(crate) fn udp_sockets_at(&self, source: SocketAddr) -> io::Result<Vec<OwnedSocket>> {
        // A socket of IPv6 may speak IPv4.
        let families: &[i32] = match canonical(source) {
            SocketAddr::V4(_) => &[libc::AF_INET, libc::AF_INET6],
            SocketAddr::V6(_) => &[libc::AF_INET6],
        };
        self.0.with(|kernel| {
            let mut sockets = Vec::new();
            for family in families {
                let question = udp_question(*family, source.port());
                kernel.list(SOCK_DIAG_BY_FAMILY, &question, |answer| {
                    sockets.extend(read_udp(answer, source.port()));
                })?;
            }
            Ok(sockets)
        })
    }
}

fn ask(
    kernel: &mut KernelQuestion,
    local: SocketAddr,
    remote: SocketAddr,
) -> io::Result<Option<OwnedSocket>> {
    let Some(question) = question(local, remote) else {
        return Ok(None);
    };
    let answer = kernel.ask(SOCK_DIAG_BY_FAMILY, &question)?;
    Ok(answer.and_then(|it| read(it, local, remote)))
}

/// IPv4 is looked up as such, also for a socket that speaks it through IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// `struct inet_diag_req_v2`: family, protocol, extensions, padding, states, the id.
fn question(local: SocketAddr, remote: SocketAddr) -> Option<Vec<u8>> {
    let family = match (local.ip(), remote.ip()) {
        (IpAddr::V4(_), IpAddr::V4(_)) => libc::AF_INET,
        (IpAddr::V6(_), IpAddr::V6(_)) => libc::AF_INET6,
        _ => return None,
    };
    let mut body = vec![u8::try_from(family).ok()?];
    body.push(u8::try_from(libc::IPPROTO_TCP).ok()?);
    body.extend([0, 0]);
    body.extend(u32::MAX.to_ne_bytes());
    body.extend(local.port().to_be_bytes());
    body.extend(remote.port().to_be_bytes());
    body.extend(words(local.ip()));
    body.extend(words(remote.ip()));
    body.extend(0u32.to_ne_bytes());
    body.extend(ANY_COOKIE);
    Some(body)
}

/// The same for all UDP sockets of a family that have a port.
fn udp_question(family: libc::c_int, port: u16) -> Vec<u8> {
    let mut body = vec![u8::try_from(family).expect("families are small numbers")];
    body.push(u8::try_from(libc::IPPROTO_UDP).expect("protocols have one byte"));
    body.extend([0, 0]);
    body.extend(u32::MAX.to_ne_bytes());
    body.extend(port.to_be_bytes());
    body.extend([0; 2 + 16 + 16 + 4]);
    body.extend(ANY_COOKIE);
    body
}

/// Reads one of the answers. A socket without a number is no process's, and nobody can say whose; it
/// counts all the same, since it can send.
fn read_udp(answer: &[u8], port: u16) -> Option<OwnedSocket> {
    let its_port = answer.get(ID_AT..ID_AT + 2)?;
    if its_port != port.to_be_bytes() {
        return None;
    }
    let inode = number(answer, INODE_AT)?;
    let cgroup = attribute(answer.get(ANSWER_BYTES..)?, INET_DIAG_CGROUP_ID);
    Some(OwnedSocket {
        uid: number(answer, UID_AT)?,
        inode,
        cgroup: cgroup
            .filter(|_| inode != 0)
            .and_then(|it| Some(u64::from_ne_bytes(it.try_into().ok()?))),
        state: *answer.get(STATE_AT)?,
    })
}

fn words(ip: IpAddr) -> [u8; 16] {
    let mut words = [0; 16];
    match ip {
        IpAddr::V4(v4) => words[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => words = v6.octets(),
    }
    words
}

/// Reads an answer. The kernel falls back to a socket that listens on the port: that is another one, as is one
/// that nobody has answered yet. One without a number has left its process, and the user it names is nobody's.
fn read(answer: &[u8], local: SocketAddr, remote: SocketAddr) -> Option<OwnedSocket> {
    let id = answer.get(ID_AT..ID_AT + ID_BYTES)?;
    let port = |at: usize| Some(u16::from_be_bytes(id.get(at..at + 2)?.try_into().ok()?));
    let is_local = port(0)? == local.port() && is_at(&id[4..20], local.ip());
    let is_remote = port(2)? == remote.port() && is_at(&id[20..36], remote.ip());
    let inode = number(answer, INODE_AT)?;
    let state = *answer.get(STATE_AT)?;
    let is_connection = !matches!(state, TCP_LISTEN | TCP_SYN_SENT);
    if !is_local || !is_remote || inode == 0 || !is_connection {
        return None;
    }
    let attributes = answer.get(ANSWER_BYTES..)?;
    let cgroup = attribute(attributes, INET_DIAG_CGROUP_ID);
    Some(OwnedSocket {
        uid: number(answer, UID_AT)?,
        inode,
        cgroup: cgroup.and_then(|it| Some(u64::from_ne_bytes(it.try_into().ok()?))),
        state,
    })
}

/// A socket of IPv6 that speaks IPv4 may be described either way.
fn is_at(words: &[u8], ip: IpAddr) -> bool {
    let Ok(octets) = <[u8; 16]>::try_from(words) else {
        return false;
    };
    match ip {
        IpAddr::V4(v4) => {
            octets[..4] == v4.octets() && octets[4..] == [0; 12]
                || octets == v4.to_ipv6_mapped().octets()
        }
        IpAddr::V6(v6) => octets == v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    fn inode(socket: impl AsFd) -> u32 {
        let status = rustix::fs::fstat(socket).unwrap();
        u32::try_from(status.st_ino).unwrap()
    }

    fn own_user() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    fn found(of: &SockDiag, local: SocketAddr, remote: SocketAddr) -> Option<OwnedSocket> {
        of.look_up(local, remote).unwrap()
    }

    #[test]
    fn each_end_of_a_connection_is_found_with_its_own_socket() {
        let diag = SockDiag::default();
        for host in [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ] {
            let listener = TcpListener::bind((host, 0)).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, _) = listener.accept().unwrap();
            let (local, remote) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
            let of_client = found(&diag, local, remote).unwrap();
            assert_eq!(of_client.inode, inode(&client));
            assert_eq!(of_client.uid, own_user());
            assert!(of_client.is_connected() && of_client.cgroup.is_some());
            let of_server = found(&diag, remote, local).unwrap();
            assert_eq!(of_server.inode, inode(&server));
        }
    }

    #[test]
    fn ipv4_through_a_socket_of_ipv6_is_found_by_either_spelling() {
        let diag = SockDiag::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(format!("[::ffff:127.0.0.1]:{port}")).unwrap();
        let (_server, app) = listener.accept().unwrap();
        let dialled = listener.local_addr().unwrap();
        assert_eq!(found(&diag, app, dialled).unwrap().inode, inode(&client));
        let (mapped, to) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        assert!(mapped.is_ipv6());
        assert_eq!(found(&diag, mapped, to).unwrap().inode, inode(&client));
    }

    #[test]
    fn a_listener_does_not_stand_in_for_a_connection_that_is_none() {
        let diag = SockDiag::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        assert_eq!(found(&diag, at, "127.0.0.1:1".parse().unwrap()), None);
        assert_eq!(found(&diag, at, "127.0.0.1:0".parse().unwrap()), None);
        assert_eq!(found(&diag, at, "[::1]:9".parse().unwrap()), None);
    }

    #[test]
    fn a_socket_that_was_closed_belongs_to_nobody() {
        let diag = SockDiag::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_server, app) = listener.accept().unwrap();
        let dialled = client.peer_addr().unwrap();
        // It waits in FIN_WAIT2 for a server that does not close, and root would be its user.
        drop(client);
        assert_eq!(found(&diag, app, dialled), None);
        let of_server = found(&diag, dialled, app).unwrap();
        assert!(of_server.is_connected(), "it may still answer");
    }
}
