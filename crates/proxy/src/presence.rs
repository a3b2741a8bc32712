//! Whether a program that waits for its answer is still there. One that has said its last word has
//! closed its connection, or only its half of it and still listens: from here they look the same. But
//! both ends are on this host, and the kernel knows whether anybody has the other one.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::surroundings::Surroundings;

/// How often it is asked whether a program is there that has said its last word: nothing comes when it
/// goes.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A program's socket, for whoever reads and writes it and for whoever looks after the program. Both are
/// on one thread and never wait for each other.
#[derive(Clone, Debug)]
pub(crate) struct SharedSocket(Arc<Mutex<TcpStream>>);

impl SharedSocket {
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self(Arc::new(Mutex::new(socket)))
    }

    /// Returns the socket, for as long as one call takes.
    pub(crate) fn lock(&self) -> MutexGuard<'_, TcpStream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The program at the other end of a connection that was caught.
#[derive(Debug)]
pub(crate) struct Presence {
    /// Its connection.
    pub(crate) socket: SharedSocket,
    /// Where it was accepted from.
    pub(crate) app: SocketAddr,
    /// What the program meant to connect to.
    pub(crate) dialled: SocketAddr,
}

impl Presence {
    /// Returns when the program is gone. To be polled in the same task as what reads the socket, and
    /// after it.
    pub(crate) async fn over(&self, surroundings: &dyn Surroundings) {
        loop {
            // What is there and was not read is the end, or what comes after the request; in either case
            // it may be followed by an end that nobody would see.
            let readable = poll_fn(|context| self.socket.lock().poll_read_ready(context)).await;
            if readable.is_err() || !surroundings.has_program(self.app, self.dialled) {
                return;
            }
            sleep(ASK_AGAIN).await;
        }
    }
}
