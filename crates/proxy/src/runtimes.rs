//! What hyper needs of the thread's runtime: futures that stay on their thread, and sockets that do
//! not wait for ever for somebody who has stopped to read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{Instant, Sleep, sleep};

use crate::framing::{Framing, Suspect};
use crate::presence::SharedSocket;

/// Runs futures in the thread's `LocalSet`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        spawn_local(async move {
            future.await;
        });
    }
}

/// What drives a connection that one call has to itself. Dropped, it ends the connection.
#[derive(Debug)]
pub(crate) struct Driver(Option<AbortHandle>);

impl Driver {
    /// Drives the connection in the thread's `LocalSet`.
    pub(crate) fn start(connection: impl Future<Output = ()> + 'static) -> Self {
        Self(Some(spawn_local(connection).abort_handle()))
    }

    /// Lets the connection end by itself.
    pub(crate) fn let_go(mut self) {
        self.0 = None;
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            connection.abort();
        }
    }
}

/// A program's socket. Its writes fail when the program has taken nothing for a while.
#[derive(Debug)]
pub(crate) struct PatientSocket {
    socket: SharedSocket,
    patience: Duration,
    /// Follows the requests, where they are HTTP/1.1.
    framing: Option<Framing>,
    /// Set while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl PatientSocket {
    /// Waits so long for room.
    pub(crate) const fn new(socket: SharedSocket, patience: Duration) -> Self {
        Self {
            socket,
            patience,
            framing: None,
            stalled: None,
        }
    }

    /// Notices requests that say their length in two ways.
    pub(crate) fn suspecting(mut self, suspect: Suspect) -> Self {
        self.framing = Some(Framing::new(suspect));
        self
    }

    fn after<T>(
        &mut self,
        outcome: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let patience = self.patience;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stalled.as_mut().poll(context));
        stalled.as_mut().reset(Instant::now() + patience);
        let text = format!(
            "the other side has taken nothing for {} s",
            patience.as_secs()
        );
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)))
    }
}

impl AsyncRead for PatientSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut *self.socket.lock()).poll_read(context, buffer);
        if let Some(framing) = &mut self.framing {
            framing.read(&buffer.filled()[before..]);
        }
        outcome
    }
}

impl AsyncWrite for PatientSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut *self.socket.lock()).poll_write(context, bytes);
        self.after(outcome, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut *self.socket.lock()).poll_write_vectored(context, bytes);
        self.after(outcome, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.lock().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.socket.lock()).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.socket.lock()).poll_shutdown(context)
    }
}
