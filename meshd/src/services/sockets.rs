//! The sockets on which calls come in, one of each for every thread of the proxy. They share their
//! port with those of a daemon that takes over, which root alone may do.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use proxy::Listeners;
use socket2::{Domain, Protocol, Socket, Type};

use super::ServiceSettings;
use crate::linux::interface::ipv6_is_available;

/// Connections that may wait to be accepted; the kernel takes the lesser of this and
/// net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// Why calls cannot come in.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {at}, TCP: {source}{advice}")]
pub(crate) struct ListenError {
    at: SocketAddr,
    source: io::Error,
    advice: String,
}

/// Binds everything, or nothing.
///
/// # Errors
/// The first address that is taken or not this host's.
pub(crate) fn bind(settings: &ServiceSettings) -> Result<Listeners, ListenError> {
    let has_ipv6 = ipv6_is_available();
    let own = SocketAddr::from((Ipv4Addr::LOCALHOST, settings.intercept_port));
    let own_v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, settings.intercept_port));
    let outgoing = [Some(own), has_ipv6.then_some(own_v6)];
    let outgoing: Vec<SocketAddr> = outgoing.into_iter().flatten().collect();
    let any: IpAddr = match has_ipv6 {
        true => Ipv6Addr::UNSPECIFIED.into(),
        false => Ipv4Addr::UNSPECIFIED.into(),
    };
    let streams = SocketAddr::new(settings.listen.unwrap_or(any), settings.port);
    Ok(Listeners {
        outgoing: of_each_thread(settings.threads, &outgoing, "intercept_port")?,
        streams: of_each_thread(settings.threads, &[streams], "services_port")?,
    })
}

fn of_each_thread(
    threads: usize,
    places: &[SocketAddr],
    key: &str,
) -> Result<Vec<Vec<TcpListener>>, ListenError> {
    let one = |_| places.iter().map(|at| listen(*at, key)).collect();
    (0..threads).map(one).collect()
}

fn listen(at: SocketAddr, key: &str) -> Result<TcpListener, ListenError> {
    try_listen(at).map_err(|source| ListenError {
        at,
        advice: match source.kind() {
            io::ErrorKind::AddrInUse => format!(
                "; see who has it (ss -ltnp 'sport = {}'), or choose another port with {key}",
                at.port()
            ),
            io::ErrorKind::PermissionDenied => "; meshd needs CAP_NET_BIND_SERVICE".to_owned(),
            io::ErrorKind::AddrNotAvailable => {
                "; services_listen has to be an address of this host".to_owned()
            }
            _ => String::new(),
        },
        source,
    })
}

fn try_listen(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    // A connection of the daemon before may still be there, in its last moments.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if at.is_ipv6() {
        socket.set_only_v6(!at.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use proxy::Telling;

    use super::*;

    fn settings(port: u16, intercept_port: u16) -> ServiceSettings {
        ServiceSettings {
            port,
            listen: Some(Ipv4Addr::LOCALHOST.into()),
            threads: 2,
            intercept_port,
            telling: Telling::default(),
        }
    }

    fn free_port() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    }

    #[test]
    fn two_daemons_may_listen_while_one_takes_over() {
        let settings = settings(free_port(), free_port());
        let before = bind(&settings).unwrap();
        let after = bind(&settings).unwrap();
        assert_eq!((before.outgoing.len(), after.streams.len()), (2, 2));
        let at = after.outgoing[1][0].local_addr().unwrap();
        assert_eq!(
            at,
            SocketAddr::from(([127, 0, 0, 1], settings.intercept_port))
        );
        drop((before, after));
    }

    #[test]
    fn a_port_that_is_taken_is_named_with_what_to_try() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let said = bind(&settings(port, free_port())).unwrap_err().to_string();
        assert!(said.contains(&format!("127.0.0.1:{port}")), "{said}");
        assert!(said.contains("services_port"), "{said}");
    }
}
