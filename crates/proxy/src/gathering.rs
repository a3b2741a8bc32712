//! A socket under TLS. TLS reads a few kilobytes at a time, however much has come; where much comes,
//! it is read from the kernel in large pieces.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes that are read at once where much comes.
const GATHERED_BYTES: usize = 64 << 10;
/// Who reads so much and gets all of it may have more waiting.
const MUCH_BYTES: usize = 4 << 10;

/// The socket, and what was read of it and not taken yet.
#[derive(Debug)]
pub(crate) struct Gathering {
    socket: TcpStream,
    gathered: BytesMut,
    comes_much: bool,
}

impl Gathering {
    /// Begins with nothing read.
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self {
            socket,
            gathered: BytesMut::new(),
            comes_much: false,
        }
    }

    fn poll_gather(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_read_ready(context))?;
            self.gathered.reserve(GATHERED_BYTES);
            match self.socket.try_read_buf(&mut self.gathered) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // One that waits holds no memory.
                    self.gathered = BytesMut::new();
                    self.comes_much = false;
                }
                outcome => return Poll::Ready(outcome),
            }
        }
    }
}

impl AsyncRead for Gathering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.gathered.is_empty() {
            if !self.comes_much {
                let room = buffer.remaining();
                ready!(Pin::new(&mut self.socket).poll_read(context, buffer))?;
                self.comes_much = room >= MUCH_BYTES && buffer.remaining() == 0;
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_gather(context))?;
        }
        let taken = self.gathered.len().min(buffer.remaining());
        buffer.put_slice(&self.gathered[..taken]);
        self.gathered.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Gathering {
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

    #[tokio::test]
    async fn all_that_comes_is_read_in_its_order() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let (sender, accepted) = tokio::join!(TcpStream::connect(to), listener.accept());
        let (mut sender, mut reader) = (sender.unwrap(), Gathering::new(accepted.unwrap().0));
        let sent: Vec<u8> = (0..3_000_000u32)
            .map(|number| (number / 251) as u8)
            .collect();
        let copy = sent.clone();
        let sending = tokio::spawn(async move {
            for piece in copy.chunks(70_001) {
                sender.write_all(piece).await.unwrap();
            }
        });
        let (mut read, mut piece) = (Vec::new(), [0; MUCH_BYTES]);
        loop {
            let count = reader.read(&mut piece).await.unwrap();
            if count == 0 {
                break;
            }
            read.extend_from_slice(&piece[..count]);
        }
        sending.await.unwrap();
        assert!(read == sent);
    }
}
