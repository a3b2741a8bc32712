//! One connection to a host, and the streams on it.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use h2::Reason;
use h2::client::SendRequest;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Request, Response};
use http_body::Body;
use model::ids::Digest;
use quinn::Connection;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::Instant;

use super::SessionError;
use super::manner::STREAMS_MAX;
use super::sending;
use super::transport::Transport;
use crate::body::{ProxyBody, StreamBody};

/// A connection that has been believed.
pub(super) struct Carrier {
    /// The key that was shown.
    pub(super) key: Digest,
    streams: SendRequest<Bytes>,
    use_: Rc<Use>,
    driver: AbortHandle,
    /// What it is one stream of; `None`: it has a TCP connection of its own.
    session: Option<Connection>,
}

/// How a connection is used; its driver looks at it, too.
pub(super) struct Use {
    count: Cell<usize>,
    idle_since: Cell<Instant>,
    is_over: Cell<bool>,
}

/// A stream's place on its connection. Given back when it is dropped.
pub(crate) struct StreamPlace {
    use_: Rc<Use>,
    pump: Option<AbortHandle>,
}

impl Use {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            count: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            is_over: Cell::new(false),
        })
    }

    pub(super) fn take(self: &Rc<Self>) -> StreamPlace {
        self.count.set(self.count.get() + 1);
        StreamPlace {
            use_: Rc::clone(self),
            pump: None,
        }
    }

    pub(super) fn end(&self) {
        self.is_over.set(true);
    }

    /// Returns since when there has been no stream; `None`: there is one.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.count.get() == 0).then(|| self.idle_since.get())
    }
}

impl StreamPlace {
    /// The answer has come to its end; what is still being sent goes on to its own, as on a
    /// connection whose two directions end apart. Who does not want it resets the stream.
    pub(crate) fn let_go(mut self) {
        self.pump = None;
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.use_.count.set(self.use_.count.get() - 1);
        self.use_.idle_since.set(Instant::now());
        if let Some(pump) = &self.pump {
            // Whoever does not want the answer does not want to send the rest either.
            pump.abort();
        }
    }
}

impl Carrier {
    pub(super) fn new(
        key: Digest,
        streams: SendRequest<Bytes>,
        use_: Rc<Use>,
        driver: AbortHandle,
        session: Option<Connection>,
    ) -> Self {
        Self {
            key,
            streams,
            use_,
            driver,
            session,
        }
    }

    pub(super) fn transport(&self) -> Transport {
        match self.session {
            None => Transport::Tcp,
            Some(_) => Transport::Quic,
        }
    }

    /// Returns the session of QUIC that it is on, if that stands.
    pub(super) fn session(&self) -> Option<&Connection> {
        let session = self.session.as_ref();
        session.filter(|session| session.close_reason().is_none())
    }

    pub(super) fn is_over(&self) -> bool {
        self.use_.is_over.get()
    }

    pub(super) fn stream_count(&self) -> usize {
        self.use_.count.get()
    }

    pub(super) fn has_room(&self) -> bool {
        !self.is_over() && self.stream_count() < STREAMS_MAX
    }

    /// Takes a place, so that nobody else does before the request is sent.
    pub(super) fn take(self: &Rc<Self>) -> Taken {
        Taken {
            carrier: Rc::clone(self),
            place: self.use_.take(),
        }
    }

    /// Breaks it off, with all its streams.
    pub(super) fn close(&self) {
        self.use_.end();
        self.driver.abort();
        if let Some(session) = &self.session {
            session.close(0_u32.into(), b"it is not believed any more");
        }
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A connection with a place for one stream.
pub(crate) struct Taken {
    carrier: Rc<Carrier>,
    place: StreamPlace,
}

impl Taken {
    pub(super) fn transport(&self) -> Transport {
        self.carrier.transport()
    }

    /// Sends the request, and waits for the head of the answer.
    pub(crate) async fn request(
        self,
        request: Request<ProxyBody>,
    ) -> Result<Response<StreamBody>, SessionError> {
        let Self { carrier, mut place } = self;
        let streams = carrier.streams.clone().ready().await;
        let mut streams = streams.map_err(|error| {
            carrier.use_.end();
            SessionError::Refused(error.to_string())
        })?;
        let (head, body) = request.into_parts();
        let is_whole = body.is_end_stream();
        let sent = streams.send_request(Request::from_parts(head, ()), is_whole);
        let (answer, to) = sent.map_err(|error| SessionError::Refused(error.to_string()))?;
        if !is_whole {
            let pump = spawn_local(async move {
                // The answer tells what became of it.
                let _ = sending::send(body, to).await;
            });
            place.pump = Some(pump.abort_handle());
        }
        let answer = answer.await.map_err(|error| failure(&error))?;
        let (head, stream) = answer.into_parts();
        let body = StreamBody::new(stream, length(&head.headers), Some(place));
        Ok(Response::from_parts(head, body))
    }
}

fn failure(error: &h2::Error) -> SessionError {
    let is_unprocessed = error.reason() == Some(Reason::REFUSED_STREAM)
        // Streams that a GOAWAY names as taken go on; the others get it as their error.
        || error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR);
    if is_unprocessed {
        SessionError::Refused(error.to_string())
    } else {
        SessionError::Broken(error.to_string())
    }
}

pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
