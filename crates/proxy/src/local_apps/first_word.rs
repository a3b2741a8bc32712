//! The first bytes that a program sends on a connection: they show whether it speaks HTTP/2, HTTP/1.1
//! or neither, whatever it was spoken to in.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// What a program began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstWord {
    /// The status line of HTTP/1.0 or 1.1.
    Http1,
    /// The settings that a server of HTTP/2 sends first (RFC 9113, 3.4).
    Http2,
    /// Something else.
    Other,
    /// It ended the connection and said nothing, or not enough.
    Nothing,
}

/// What every answer of HTTP/1 begins with.
const STATUS_LINE: &[u8] = b"HTTP/1.";
/// Length, kind, flags and stream of a frame (RFC 9113, 4.1).
const FRAME_HEAD_BYTES: usize = 9;
const SETTINGS: u8 = 4;

/// Learns the first word of one connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard(Arc<Word>);

#[derive(Debug, Default)]
struct Word {
    first: OnceLock<FirstWord>,
    said: Notify,
}

impl Heard {
    /// Returns the word, if it was said by now.
    pub(super) fn now(&self) -> Option<FirstWord> {
        self.0.first.get().copied()
    }

    /// Waits for the word. One at a time may.
    pub(super) async fn first(&self) -> FirstWord {
        loop {
            if let Some(word) = self.now() {
                return word;
            }
            self.0.said.notified().await;
        }
    }

    fn take(&self, word: FirstWord) {
        if self.0.first.set(word).is_ok() {
            self.0.said.notify_one();
        }
    }
}

/// A connection to a program whose first word is heard.
#[derive(Debug)]
pub(super) struct ProgramSocket {
    socket: TcpStream,
    heard: Heard,
    first: [u8; FRAME_HEAD_BYTES],
    /// Of `first`; all of it once the word is known.
    length: usize,
}

impl ProgramSocket {
    /// Listens from now on.
    pub(super) fn new(socket: TcpStream) -> Self {
        Self {
            socket,
            heard: Heard::default(),
            first: [0; FRAME_HEAD_BYTES],
            length: 0,
        }
    }

    /// Returns what learns the first word.
    pub(super) fn heard(&self) -> Heard {
        self.heard.clone()
    }

    /// Takes what waits in the kernel, whether or not that has told of it.
    fn listen_last(&mut self) {
        let mut last = [0; FRAME_HEAD_BYTES];
        let socket = SockRef::from(&self.socket);
        if let Ok(length) = (&*socket).read(&mut last) {
            self.listen(&last[..length]);
        }
    }

    fn listen(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            self.heard.take(FirstWord::Nothing);
            return;
        }
        let more = bytes.len().min(FRAME_HEAD_BYTES - self.length);
        self.first[self.length..self.length + more].copy_from_slice(&bytes[..more]);
        self.length += more;
        if let Some(word) = word(&self.first[..self.length]) {
            self.length = FRAME_HEAD_BYTES;
            self.heard.take(word);
        }
    }
}

/// Returns what begins so; `None`: more of it is needed.
fn word(first: &[u8]) -> Option<FirstWord> {
    if first.starts_with(STATUS_LINE) {
        return Some(FirstWord::Http1);
    }
    if first.len() < FRAME_HEAD_BYTES {
        return None;
    }
    // The first bit of a stream's number means nothing.
    let stream = [first[5] & 0x7f, first[6], first[7], first[8]];
    let is_settings = first[3] == SETTINGS && stream == [0; 4];
    Some(if is_settings {
        FirstWord::Http2
    } else {
        FirstWord::Other
    })
}

impl Drop for ProgramSocket {
    fn drop(&mut self) {
        // Who hangs up on what it does not understand resets what comes after it: a write may have
        // failed before that was read which says why.
        if self.heard.now().is_none() {
            self.listen_last();
        }
        self.heard.take(FirstWord::Nothing);
    }
}

impl AsyncRead for ProgramSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.socket).poll_read(context, buffer);
        if self.length < FRAME_HEAD_BYTES {
            match &outcome {
                Poll::Ready(Ok(())) => self.listen(&buffer.filled()[before..]),
                Poll::Ready(Err(_)) => self.heard.take(FirstWord::Nothing),
                Poll::Pending => {}
            }
        }
        outcome
    }
}

impl AsyncWrite for ProgramSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_word_is_known_by_its_first_bytes() {
        for (first, expected) in [
            (&b"HTTP/1."[..], Some(FirstWord::Http1)),
            (b"HTTP/1.0 ", Some(FirstWord::Http1)),
            (b"HTTP/1", None),
            (b"", None),
            (b"\0\0\x12\x04\0\0\0\0", None),
            (b"\0\0\x12\x04\0\0\0\0\0", Some(FirstWord::Http2)),
            (b"\0\0\x12\x04\0\x80\0\0\0", Some(FirstWord::Http2)),
            (b"\0\0\x12\x04\0\0\0\0\x01", Some(FirstWord::Other)),
            (b"\0\0\x08\x07\0\0\0\0\0", Some(FirstWord::Other)),
            (b"SSH-2.0-x", Some(FirstWord::Other)),
        ] {
            assert_eq!(word(first), expected, "{first:?}");
        }
    }

    /// What is heard of a program that says this, byte by byte, and hangs up.
    async fn heard(said: &'static [u8]) -> FirstWord {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let mut socket = ProgramSocket::new(TcpStream::connect(at).await.unwrap());
        let heard = socket.heard();
        let (mut program, _) = listener.accept().await.unwrap();
        for byte in said {
            program.write_all(&[*byte]).await.unwrap();
            assert_eq!(socket.read_u8().await.unwrap(), *byte);
        }
        drop(program);
        let _ = socket.read(&mut [0; 1]).await;
        heard.first().await
    }

    #[tokio::test]
    async fn a_word_is_heard_in_whatever_pieces_it_comes() {
        assert_eq!(heard(b"HTTP/1.1 400 Bad Request").await, FirstWord::Http1);
        assert_eq!(heard(b"\0\0\0\x04\0\0\0\0\0").await, FirstWord::Http2);
        assert_eq!(heard(b"-ERR unknown").await, FirstWord::Other);
        assert_eq!(heard(b"HTT").await, FirstWord::Nothing);
        assert_eq!(heard(b"").await, FirstWord::Nothing);
    }

    #[tokio::test]
    async fn nobody_waits_for_a_connection_that_was_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let socket = ProgramSocket::new(TcpStream::connect(at).await.unwrap());
        let heard = socket.heard();
        drop(socket);
        assert_eq!(heard.first().await, FirstWord::Nothing);
    }
}
