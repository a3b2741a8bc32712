//! What a connection was before it was caught: the kernel's connection tracking remembers where the
//! program meant to go, and under which port it left.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use rustix::net::netlink::NETFILTER;
use socket2::SockRef;

use super::kernel_question::{KernelQuestions, attribute, push_attribute};

/// `NFNL_SUBSYS_CTNETLINK` and `IPCTNL_MSG_CT_GET` (linux/netfilter/nfnetlink.h).
const GET: u16 = 1 << 8 | 1;
/// `struct nfgenmsg`: family, version, resource.
const GENERAL_BYTES: usize = 4;
/// linux/netfilter/nfnetlink_conntrack.h.
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const NESTED: u16 = 0x8000;

/// Returns where the program at the other end of an accepted connection meant to go.
///
/// # Errors
/// The connection was not caught.
pub(crate) fn original_destination(accepted: impl AsFd) -> io::Result<SocketAddr> {
    let socket = SockRef::from(&accepted);
    let own = socket.local_addr()?.as_socket();
    let destination = match own.map(|own| own.ip().to_canonical()) {
        Some(IpAddr::V4(_)) => socket.original_dst_v4(),
        Some(IpAddr::V6(_)) => socket.original_dst_v6(),
        None => return Err(io::ErrorKind::Unsupported.into()),
    }?;
    let destination = destination.as_socket();
    destination.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Asks what connections were; threads may ask at the same time.
#[derive(Debug)]
pub(crate) struct Conntrack(KernelQuestions);

impl Default for Conntrack {
    fn default() -> Self {
        Self(KernelQuestions::new(NETFILTER))
    }
}

impl Conntrack {
    /// Returns the two ends of a caught TCP connection as its program knows them: from, to. `accepted_at`
    /// and `seen_from` are the ends as whoever accepted it knows them. The port that it came from is
    /// another one where two connections to different places left from the same.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub(crate) fn original_ends(
        &self,
        accepted_at: SocketAddr,
        seen_from: SocketAddr,
    ) -> io::Result<Option<(SocketAddr, SocketAddr)>> {
        // Answers go the way back.
        let Some(question) = question(accepted_at, seen_from) else {
            return Ok(None);
        };
        self.0.with(|kernel| {
            let answer = kernel.ask(GET, &question)?;
            Ok(answer.and_then(|it| read(it.get(GENERAL_BYTES..)?)))
        })
    }
}

fn question(from: SocketAddr, to: SocketAddr) -> Option<Vec<u8>> {
    let (family, ends) = match (from.ip().to_canonical(), to.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut ends = Vec::new();
            push_attribute(&mut ends, CTA_IP_V4_SRC, &from.octets());
            push_attribute(&mut ends, CTA_IP_V4_DST, &to.octets());
            (libc::AF_INET, ends)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut ends = Vec::new();
            push_attribute(&mut ends, CTA_IP_V6_SRC, &from.octets());
            push_attribute(&mut ends, CTA_IP_V6_DST, &to.octets());
            (libc::AF_INET6, ends)
        }
        _ => return None,
    };
    let mut transport = Vec::new();
    let tcp = u8::try_from(libc::IPPROTO_TCP).ok()?;
    push_attribute(&mut transport, CTA_PROTO_NUM, &[tcp]);
    push_attribute(
        &mut transport,
        CTA_PROTO_SRC_PORT,
        &from.port().to_be_bytes(),
    );
    push_attribute(&mut transport, CTA_PROTO_DST_PORT, &to.port().to_be_bytes());
    let mut tuple = Vec::new();
    push_attribute(&mut tuple, CTA_TUPLE_IP | NESTED, &ends);
    push_attribute(&mut tuple, CTA_TUPLE_PROTO | NESTED, &transport);
    let mut question = vec![u8::try_from(family).ok()?, 0, 0, 0];
    push_attribute(&mut question, CTA_TUPLE_REPLY | NESTED, &tuple);
    Some(question)
}

fn read(attributes: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let tuple = attribute(attributes, CTA_TUPLE_ORIG)?;
    let (ends, transport) = (
        attribute(tuple, CTA_TUPLE_IP)?,
        attribute(tuple, CTA_TUPLE_PROTO)?,
    );
    let v4 = |kind| Some(<[u8; 4]>::try_from(attribute(ends, kind)?).ok()?.into());
    let v6 = |kind| Some(<[u8; 16]>::try_from(attribute(ends, kind)?).ok()?.into());
    let port = |kind| {
        let port = attribute(transport, kind)?.try_into().ok()?;
        Some(u16::from_be_bytes(port))
    };
    let from: IpAddr = v4(CTA_IP_V4_SRC).or_else(|| v6(CTA_IP_V6_SRC))?;
    let to: IpAddr = v4(CTA_IP_V4_DST).or_else(|| v6(CTA_IP_V6_DST))?;
    let from = SocketAddr::new(from, port(CTA_PROTO_SRC_PORT)?);
    Some((from, SocketAddr::new(to, port(CTA_PROTO_DST_PORT)?)))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::super::interface::tests::{is_in_namespace, said_by};
    use super::*;

    const CATCH: &str = "table inet catching {
        chain catch { type nat hook output priority -110;
            ip daddr { 192.0.2.1, 192.0.2.2 } tcp dport 80 redirect to :747
            ip6 daddr 2001:db8::1 tcp dport 80 redirect to :747
        }
    }";

    /// Catches what goes to port 80 of 192.0.2.1, 192.0.2.2 and 2001:db8::1, in a namespace of the test's own.
    pub(crate) fn set_up() {
        let script = format!(
            "ip link add away0 type veth peer name away1
             ip link set away0 up && ip link set away1 up
             ip addr add 198.51.100.9/32 dev away0
             ip addr add 2001:db8:9::9/128 dev away0 nodad
             ip route add 192.0.2.0/24 dev away0 src 198.51.100.9
             ip -6 route add 2001:db8::/64 dev away0 src 2001:db8:9::9
             nft '{CATCH}'"
        );
        said_by("sh", &["-ec", &script]);
    }

    #[test]
    fn a_caught_connection_remembers_where_it_was_going_and_whence() {
        if !is_in_namespace(
            "linux::conntrack::tests::a_caught_connection_remembers_where_it_was_going_and_whence",
        ) {
            return;
        }
        set_up();
        for (own, dialled) in [
            ("127.0.0.1:747", "192.0.2.1:80"),
            ("[::1]:747", "[2001:db8::1]:80"),
        ] {
            let listener = TcpListener::bind(own).unwrap();
            let dialled: SocketAddr = dialled.parse().unwrap();
            let client = TcpStream::connect(dialled).unwrap();
            let (accepted, seen_from) = listener.accept().unwrap();
            assert!(!seen_from.ip().is_loopback());
            assert_eq!(original_destination(&accepted).unwrap(), dialled);
            let own = listener.local_addr().unwrap();
            let ends = Conntrack::default().original_ends(own, seen_from).unwrap();
            assert_eq!(ends, Some((client.local_addr().unwrap(), dialled)));
        }
    }

    #[test]
    fn two_that_left_from_one_port_are_told_apart() {
        if !is_in_namespace("linux::conntrack::tests::two_that_left_from_one_port_are_told_apart") {
            return;
        }
        set_up();
        let listener = TcpListener::bind("127.0.0.1:747").unwrap();
        let own = listener.local_addr().unwrap();
        let mut open = Vec::new();
        for dialled in ["192.0.2.1:80", "192.0.2.2:80"] {
            let dialled: SocketAddr = dialled.parse().unwrap();
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            let from: SocketAddr = "198.51.100.9:40000".parse().unwrap();
            socket.bind(&from.into()).unwrap();
            socket.connect(&dialled.into()).unwrap();
            let (accepted, seen_from) = listener.accept().unwrap();
            let ends = Conntrack::default().original_ends(own, seen_from).unwrap();
            assert_eq!(ends, Some((from, dialled)), "seen from {seen_from}");
            open.push((socket, accepted, seen_from));
        }
        assert_ne!(open[0].2, open[1].2, "one of them was given another port");
    }

    #[test]
    fn what_nobody_caught_says_so() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let destination = original_destination(&client);
        // A machine that tracks loopback knows the connection, and that it went where it went.
        assert!(destination.is_err() || destination.unwrap() == listener.local_addr().unwrap());
    }
}
