//! The HTTP/2 connections to one program. Servers let a connection have so many streams; calls of many
//! callers come together here, and none of them is to wait for streams of others to end.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use hyper::client::conn::http2::SendRequest;
use tokio::sync::Mutex;

use super::AppError;
use crate::body::ProxyBody;

/// Streams on one connection: no server that is known allows fewer unless it is told to (nginx 128,
/// hyper 200, Go 250; RFC 9113, 6.5.2 asks for 100).
const STREAMS_MAX: usize = 100;

#[derive(Default)]
pub(super) struct Http2Connections {
    all: RefCell<Vec<Rc<Connection>>>,
    /// One is made at a time, and serves those who wait for it.
    making: Mutex<()>,
}

/// What sends requests on a connection of which the program has shown that it is one of HTTP/2.
pub(super) type Http2Sender = SendRequest<ProxyBody>;

struct Connection {
    sender: Http2Sender,
    streams: Cell<usize>,
}

/// A stream's place on a connection. Given back when it is dropped.
pub(super) struct Place(Rc<Connection>);

impl Http2Connections {
    /// Returns a place on a connection, which is made if there is none with room.
    ///
    /// # Errors
    /// None can be made.
    pub(super) async fn place(
        &self,
        make: impl Future<Output = Result<Http2Sender, AppError>>,
    ) -> Result<Place, AppError> {
        if let Some(place) = self.take() {
            return Ok(place);
        }
        let _alone = self.making.lock().await;
        // Perhaps somebody has made one meanwhile.
        if let Some(place) = self.take() {
            return Ok(place);
        }
        let connection = Rc::new(Connection {
            sender: make.await?,
            streams: Cell::new(0),
        });
        self.all.borrow_mut().push(Rc::clone(&connection));
        Ok(Place::on(&connection))
    }

    /// Closes those without a stream, but for one.
    pub(super) fn sweep(&self) {
        let mut has_idle = false;
        self.all.borrow_mut().retain(|connection| {
            let is_idle = connection.streams.get() == 0;
            !connection.sender.is_closed() && (!is_idle || !std::mem::replace(&mut has_idle, true))
        });
    }

    /// Takes a place on the fullest that has room, so that the others may become idle.
    fn take(&self) -> Option<Place> {
        let all = self.all.borrow();
        let with_room = all.iter().filter(|connection| {
            connection.streams.get() < STREAMS_MAX && !connection.sender.is_closed()
        });
        let fullest = with_room.max_by_key(|connection| connection.streams.get());
        fullest.map(Place::on)
    }
}

impl Place {
    fn on(connection: &Rc<Connection>) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        Self(Rc::clone(connection))
    }

    /// Returns what sends requests on the connection.
    pub(super) fn sender(&self) -> Http2Sender {
        self.0.sender.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
    }
}
