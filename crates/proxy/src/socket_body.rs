//! The bytes of a connection as the body of a stream, and back: no more is read than the other side
//! has room for, and an end in one direction does not end the other.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::body::BodyError;

/// Bytes that are read at once in the beginning; four times as many each time they do not do.
const FIRST_READ_BYTES: usize = 8 << 10;

/// What comes from a socket, as a body.
pub struct SocketBody {
    socket: Rc<TcpStream>,
    activity: Rc<Activity>,
    buffer: BytesMut,
    read_bytes: usize,
    read_bytes_max: usize,
    is_over: bool,
    /// Until it is opened nothing is taken.
    hold: Option<Rc<Hold>>,
}

/// Keeps a body from being read until somebody is there to take it.
#[derive(Default)]
pub struct Hold {
    is_open: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Hold {
    /// Lets the body be read.
    pub fn open(&self) {
        self.is_open.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn poll_open(&self, context: &Context<'_>) -> Poll<()> {
        if self.is_open.get() {
            return Poll::Ready(());
        }
        self.waker.set(Some(context.waker().clone()));
        Poll::Pending
    }
}

/// When something last passed on a connection, and which directions have ended.
#[derive(Debug)]
pub struct Activity {
    last: Cell<Instant>,
    /// From the socket, and to it.
    directions: [Cell<Direction>; 2],
    changed: Notify,
    /// Who takes what comes from the socket.
    reader: RefCell<Option<Waker>>,
    /// Bytes that came from the socket, and that went to it.
    from_socket: Cell<u64>,
    to_socket: Cell<u64>,
}

/// How far one direction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Open,
    /// It came to its end.
    Ended,
    /// It broke off.
    Broken,
}

const FROM_SOCKET: usize = 0;
const TO_SOCKET: usize = 1;

impl Activity {
    /// Begins now.
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            last: Cell::new(Instant::now()),
            directions: [const { Cell::new(Direction::Open) }; 2],
            changed: Notify::new(),
            reader: RefCell::default(),
            from_socket: Cell::new(0),
            to_socket: Cell::new(0),
        })
    }

    /// Returns the bytes that came from the socket, and that went to it.
    pub fn bytes(&self) -> (u64, u64) {
        (self.from_socket.get(), self.to_socket.get())
    }

    /// Returns when both directions have ended: true, or one broke off: false.
    pub async fn over(&self) -> bool {
        loop {
            let [from, to] = self.directions.each_ref().map(Cell::get);
            if from == Direction::Broken || to == Direction::Broken {
                return false;
            }
            if from == Direction::Ended && to == Direction::Ended {
                return true;
            }
            self.changed.notified().await;
        }
    }

    /// Returns when nothing has passed for `idle`, or for `half_closed` since one direction ended.
    pub async fn silence(&self, idle: Duration, half_closed: Duration) {
        loop {
            let is_half = self.directions.iter().any(|it| it.get() != Direction::Open);
            let wait = if is_half { half_closed.min(idle) } else { idle };
            let until = self.last.get() + wait;
            if until <= Instant::now() {
                return;
            }
            tokio::select! {
                () = sleep_until(until) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    /// Says that something has passed.
    pub fn passed(&self) {
        self.last.set(Instant::now());
    }

    fn end(&self, direction: usize, how: Direction) {
        if self.directions[direction].get() == Direction::Open {
            self.directions[direction].set(how);
            self.passed();
            self.changed.notify_waiters();
        }
        if how == Direction::Broken
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
    }

    /// Says that what goes to the socket broke off.
    pub fn broke(&self) {
        self.end(TO_SOCKET, Direction::Broken);
    }

    /// The connection is broken off, even if the direction had come to its end.
    fn break_off(&self) {
        self.directions[TO_SOCKET].set(Direction::Broken);
        self.end(TO_SOCKET, Direction::Broken);
        self.changed.notify_waiters();
    }

    fn is_broken(&self) -> bool {
        self.directions[TO_SOCKET].get() == Direction::Broken
    }

    /// Ready once the connection broke off: then nobody is to get more of what came from it.
    fn poll_broken(&self, context: &Context<'_>) -> Poll<()> {
        if self.is_broken() {
            return Poll::Ready(());
        }
        let mut reader = self.reader.borrow_mut();
        if !reader
            .as_ref()
            .is_some_and(|known| known.will_wake(context.waker()))
        {
            *reader = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

impl SocketBody {
    /// Reads at most `read_bytes_max` at once.
    pub fn new(socket: Rc<TcpStream>, activity: Rc<Activity>, read_bytes_max: usize) -> Self {
        Self {
            socket,
            activity,
            buffer: BytesMut::new(),
            read_bytes: FIRST_READ_BYTES.min(read_bytes_max),
            read_bytes_max,
            is_over: false,
            hold: None,
        }
    }

    /// Reads nothing until it is opened.
    pub fn held(mut self, hold: Rc<Hold>) -> Self {
        self.hold = Some(hold);
        self
    }

    /// Ready once nobody is to get what is left of it, even what was read already.
    pub(crate) fn poll_given_up(&self, context: &Context<'_>) -> Poll<()> {
        self.activity.poll_broken(context)
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        loop {
            ready!(self.socket.poll_read_ready(context))?;
            self.buffer.reserve(self.read_bytes);
            match self.socket.try_read_buf(&mut self.buffer) {
                Ok(length) => {
                    if length >= self.read_bytes {
                        self.read_bytes = (self.read_bytes * 4).min(self.read_bytes_max);
                    }
                    return Poll::Ready(Ok(self.buffer.split().freeze()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // One that waits holds no memory.
                    self.buffer = BytesMut::new();
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// What a body says of itself after that.
pub(crate) const BROKEN_OFF: BodyError = BodyError::GivenUp("the connection was broken off");

impl fmt::Debug for SocketBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketBody")
            .field("is_over", &self.is_over)
            .finish_non_exhaustive()
    }
}

/// Nobody reads on: the direction broke off, unless it has come to its end or was not begun.
impl Drop for SocketBody {
    fn drop(&mut self) {
        if self.hold.as_ref().is_some_and(|hold| !hold.is_open.get()) {
            return;
        }
        self.activity.end(FROM_SOCKET, Direction::Broken);
    }
}

impl Body for SocketBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if self.activity.is_broken() {
            self.is_over = true;
            return Poll::Ready(Some(Err(BROKEN_OFF)));
        }
        if let Some(hold) = &self.hold {
            ready!(hold.poll_open(context));
            self.hold = None;
        }
        match ready!(self.poll_read(context)) {
            Ok(data) if data.is_empty() => {
                self.is_over = true;
                self.activity.end(FROM_SOCKET, Direction::Ended);
                Poll::Ready(None)
            }
            Ok(data) => {
                let before = self.activity.from_socket.get();
                self.activity.from_socket.set(before + data.len() as u64);
                self.activity.passed();
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Err(error) => Poll::Ready(Some(Err(error.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }
}

/// Writes a body to a socket, and its end too.
///
/// # Errors
/// The body or the socket broke.
pub(crate) async fn pump<B>(
    mut body: B,
    socket: &TcpStream,
    activity: &Activity,
) -> Result<(), BodyError>
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            write(data, socket, activity).await?;
        }
    }
    SockRef::from(socket).shutdown(Shutdown::Write)?;
    activity.end(TO_SOCKET, Direction::Ended);
    Ok(())
}

async fn write(mut data: Bytes, socket: &TcpStream, activity: &Activity) -> io::Result<()> {
    while !data.is_empty() {
        match socket.try_write(&data) {
            Ok(length) => {
                data.advance(length);
                activity
                    .to_socket
                    .set(activity.to_socket.get() + length as u64);
                activity.passed();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Breaks a connection off, so that both ends of it see that it did not end.
pub(crate) fn break_off(socket: &TcpStream, activity: &Activity) {
    activity.break_off();
    reset(socket);
}

/// Lets the program see that its connection did not end but broke.
pub(crate) fn reset(socket: &TcpStream) {
    let socket = SockRef::from(socket);
    let _ = socket.set_linger(Some(Duration::ZERO));
    // Whoever still reads it stops; the last to close it sends the reset.
    let _ = socket.shutdown(Shutdown::Read);
}
