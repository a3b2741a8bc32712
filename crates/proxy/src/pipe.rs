//! Two directions of a stream as one socket in memory, for a connection that begins as HTTP/1.1 and
//! is upgraded to something else. Rare enough that copying its bytes once more does no harm.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::io::{
    AsyncRead, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf, WriteHalf, duplex, split,
};
use tokio::task::{AbortHandle, spawn_local};

use crate::body::BodyError;

/// Bytes that may wait in one direction.
const ROOM_BYTES: usize = 64 << 10;

/// What was written to the socket, as a body.
#[derive(Debug)]
pub struct PipeBody {
    from: ReadHalf<DuplexStream>,
    is_over: bool,
    /// What carries the other direction, when nobody else holds it.
    other_direction: Option<AbortHandle>,
}

/// The end of a pipe that is fed.
#[derive(Debug)]
pub(crate) struct PipeFeed {
    to: WriteHalf<DuplexStream>,
}

/// Returns a socket in memory, what is written to it as a body, and what feeds it.
pub(crate) fn pipe() -> (DuplexStream, PipeBody, PipeFeed) {
    let (near, far) = duplex(ROOM_BYTES);
    let (from, to) = split(far);
    let body = PipeBody {
        from,
        is_over: false,
        other_direction: None,
    };
    (near, body, PipeFeed { to })
}

impl PipeFeed {
    /// Feeds a body to the socket, in the thread's `LocalSet`.
    pub(crate) fn feed<B>(mut self, mut body: B) -> AbortHandle
    where
        B: Body<Data = Bytes, Error = BodyError> + Unpin + 'static,
    {
        let task = spawn_local(async move {
            while let Some(Ok(frame)) = body.frame().await {
                if let Ok(data) = frame.into_data()
                    && self.to.write_all(&data).await.is_err()
                {
                    return;
                }
            }
            let _ = self.to.shutdown().await;
        });
        task.abort_handle()
    }
}

impl PipeBody {
    /// Ends the other direction when this body is dropped.
    pub fn with(mut self, other_direction: AbortHandle) -> Self {
        self.other_direction = Some(other_direction);
        self
    }
}

impl Drop for PipeBody {
    fn drop(&mut self) {
        if let Some(other_direction) = self.other_direction.take().filter(|_| !self.is_over) {
            other_direction.abort();
        }
    }
}

impl Body for PipeBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let mut room = [0; READ_BYTES];
        let mut buffer = ReadBuf::new(&mut room);
        ready!(Pin::new(&mut self.from).poll_read(context, &mut buffer))?;
        if buffer.filled().is_empty() {
            self.is_over = true;
            return Poll::Ready(None);
        }
        let data = Bytes::copy_from_slice(buffer.filled());
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }
}

/// Bytes that are read at once.
const READ_BYTES: usize = 16 << 10;
