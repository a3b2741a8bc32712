//! Connections that the kernel has accepted and nobody has taken yet. A listener that is closed resets them,
//! also where another daemon listens beside it and would have had them, had they come a moment later.

use std::io::ErrorKind;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

/// As many as may wait (net.core.somaxconn, as a rule), so that new ones keep nobody here for ever.
const WAITING_MAX: usize = 4096;

/// Takes what waits, and closes the listener when it is dropped.
pub(crate) fn waiting(listener: TcpListener) -> impl Iterator<Item = (TcpStream, SocketAddr)> {
    let listener = listener
        .into_std()
        .inspect_err(|error| tracing::warn!(%error, "connections that waited are reset"));
    let accepted = std::iter::from_fn(move || {
        let listener = listener.as_ref().ok()?;
        loop {
            match listener.accept() {
                Ok(accepted) => return Some(accepted),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(_) => return None,
            }
        }
    });
    accepted.take(WAITING_MAX).filter_map(|(stream, peer)| {
        stream.set_nonblocking(true).ok()?;
        Some((TcpStream::from_std(stream).ok()?, peer))
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream as Program;

    use super::*;

    #[tokio::test]
    async fn all_that_waited_are_taken_and_then_nobody_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let programs: Vec<_> = (0..3).map(|_| Program::connect(at).unwrap()).collect();
        let taken: Vec<_> = waiting(listener).collect();
        let of_programs = programs.iter().map(|program| program.local_addr().unwrap());
        let of_taken = taken.iter().map(|(_, peer)| *peer);
        assert_eq!(Vec::from_iter(of_taken), Vec::from_iter(of_programs));
        assert!(Program::connect(at).is_err());
    }
}
