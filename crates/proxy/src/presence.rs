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

/// After which pause it is asked again whether a program is there that has said its last word, for
/// nothing comes when it goes; then each time after twice as long, up to the last. It costs two questions
/// to the kernel, and a program may say its last word on many connections at once.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(5);

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
        let mut pause = FIRST_PAUSE;
        loop {
            // What is there and was not read is the end, or what comes after the request; in either case
            // it may be followed by an end that nobody would see.
            let readable = poll_fn(|context| {
                let readable = self.socket.lock().poll_read_ready(context);
                if readable.is_pending() {
                    // What was there has been read: what comes is something else.
                    pause = FIRST_PAUSE;
                }
                readable
            });
            if readable.await.is_err() || !surroundings.has_program(self.app, self.dialled) {
                return;
            }
            sleep(pause).await;
            pause = longer(pause);
        }
    }
}

fn longer(pause: Duration) -> Duration {
    (pause * 2).min(LAST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_long_is_asked_after_seldom() {
        let hour = Duration::from_secs(3600);
        let (mut asked, mut passed, mut pause) = (0, Duration::ZERO, FIRST_PAUSE);
        while passed < hour {
            asked += 1;
            passed += pause;
            pause = longer(pause);
            assert!(pause <= LAST_PAUSE);
        }
        assert_eq!(asked, 3 + (3600 - 7_u32).div_ceil(5));
    }
}
