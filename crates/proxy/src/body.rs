//! Bodies of requests and answers on their way through: frames are passed on as they come, and no
//! more is taken than the other side has room for.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::awaiting::AwaitedBody;
use crate::head;
use crate::local_apps::AppBody;
use crate::pipe::PipeBody;
use crate::replay::ReplayBody;
use crate::serving::ServedBody;
use crate::sessions::StreamPlace;
use crate::socket_body::SocketBody;

/// A body that the proxy sends.
#[derive(Debug, Default)]
pub enum ProxyBody {
    /// Nothing.
    #[default]
    Empty,
    /// All of it.
    Full(Bytes),
    /// What a local program sends.
    Local(Incoming),
    /// What another host sends.
    Stream(StreamBody),
    /// What a local program answers.
    App(AppBody),
    /// What may have to be sent again.
    Replay(ReplayBody),
    /// The bytes of a connection.
    Socket(SocketBody),
    /// The bytes of a connection that was upgraded.
    Pipe(PipeBody),
    /// The answer to a call that was served here.
    Served(Box<ServedBody>),
    /// What its sender keeps until it is asked for it.
    Awaited(Box<AwaitedBody>),
}

/// What another host sends on a stream.
pub struct StreamBody {
    stream: RecvStream,
    length: Option<u64>,
    data_is_over: bool,
    is_over: bool,
    /// Given back when the stream is over, or nobody wants it any more.
    place: Option<StreamPlace>,
}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The local program's connection.
    #[error("the program's connection broke: {0}")]
    Local(#[from] hyper::Error),
    /// The socket of a local program.
    #[error("the program's connection broke: {0}")]
    Socket(#[from] std::io::Error),
    /// The stream between two hosts.
    #[error("the stream between the hosts broke: {0}")]
    Stream(#[from] h2::Error),
    /// The proxy gave up.
    #[error("{0}")]
    GivenUp(&'static str),
}

impl ProxyBody {
    /// Ready once nobody is to get more of it, even what was taken from it already.
    pub(crate) fn poll_given_up(&self, context: &Context<'_>) -> Poll<()> {
        match self {
            Self::Socket(body) => body.poll_given_up(context),
            _ => Poll::Pending,
        }
    }
}

impl StreamBody {
    pub(crate) fn new(stream: RecvStream, length: Option<u64>, place: Option<StreamPlace>) -> Self {
        let mut body = Self {
            data_is_over: stream.is_end_stream(),
            is_over: false,
            stream,
            length,
            place,
        };
        if body.data_is_over {
            body.end();
        }
        body
    }

    /// It has come to its end.
    fn end(&mut self) {
        self.is_over = true;
        if let Some(place) = self.place.take() {
            place.let_go();
        }
    }

    /// It broke off.
    fn break_off(&mut self) {
        self.is_over = true;
        self.place = None;
    }
}

impl fmt::Debug for StreamBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamBody")
            .field("is_over", &self.is_over)
            .finish_non_exhaustive()
    }
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if !self.data_is_over {
            match ready!(self.stream.poll_data(context)) {
                Some(Ok(data)) => {
                    // Whoever asks has room: the sender may send as much again.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    if self.stream.is_end_stream() {
                        self.end();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => {
                    self.break_off();
                    return Poll::Ready(Some(Err(error.into())));
                }
                None => self.data_is_over = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(context));
        match trailers {
            Ok(trailers) => {
                self.end();
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Err(error) => {
                self.break_off();
                Poll::Ready(Some(Err(error.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }

    fn size_hint(&self) -> SizeHint {
        match self.length {
            Some(length) if !self.is_over => SizeHint::with_exact(length),
            _ if self.is_over => SizeHint::with_exact(0),
            _ => SizeHint::default(),
        }
    }
}

impl Body for ProxyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Full(_) => {
                let Self::Full(bytes) = std::mem::take(&mut *self) else {
                    unreachable!("it was matched");
                };
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Local(incoming) => Pin::new(incoming).poll_frame(context).map_err(Into::into),
            Self::Stream(stream) => Pin::new(stream).poll_frame(context),
            Self::App(body) => Pin::new(body).poll_frame(context),
            Self::Replay(body) => Pin::new(body).poll_frame(context),
            Self::Socket(body) => Pin::new(body).poll_frame(context),
            Self::Pipe(body) => Pin::new(body).poll_frame(context),
            Self::Served(body) => Pin::new(body).poll_frame(context),
            Self::Awaited(body) => Pin::new(body).poll_frame(context),
        };
        let mut frame = ready!(frame);
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            // They are headers like those before the body, whoever reads them.
            head::strip_mesh(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Local(incoming) => incoming.is_end_stream(),
            Self::Stream(stream) => stream.is_end_stream(),
            Self::App(body) => body.is_end_stream(),
            Self::Replay(body) => body.is_end_stream(),
            Self::Socket(body) => body.is_end_stream(),
            Self::Pipe(body) => body.is_end_stream(),
            Self::Served(body) => body.is_end_stream(),
            Self::Awaited(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Local(incoming) => incoming.size_hint(),
            Self::Stream(stream) => stream.size_hint(),
            Self::App(body) => body.size_hint(),
            Self::Replay(body) => body.size_hint(),
            Self::Socket(body) => body.size_hint(),
            Self::Pipe(body) => body.size_hint(),
            Self::Served(body) => body.size_hint(),
            Self::Awaited(body) => body.size_hint(),
        }
    }
}
