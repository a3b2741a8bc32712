//! The server that is called: small and fast, so that what stands before it is measured. It answers a
//! request for `/bytes/N` with so many bytes, and knows nothing else.

use std::io;
use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::thread::{self, JoinHandle};

use lab::{LabError, Namespace};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

/// Of the longest head of a request, what proxies add to it included.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// What is written at once of a long body.
static PIECE: [u8; 256 << 10] = [b'x'; 256 << 10];

/// The server; it ends when this is dropped.
pub(super) struct Origin {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Origin {
    /// Listens on all addresses of the machine.
    pub(super) fn start(machine: &Namespace, port: u16) -> Result<Self, LabError> {
        let failed = |error| LabError::new(format!("the server cannot be started: {error}"));
        let listener = machine
            .inside(|| StdListener::bind((Ipv4Addr::UNSPECIFIED, port)))?
            .map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let runtime = Builder::new_current_thread().enable_io().build();
        let runtime = runtime.map_err(failed)?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            // Whoever drops the sender stops the server, too.
            runtime.block_on(async {
                tokio::select! {
                    _ = serve(listener) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: StdListener) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // A client that goes away ends its own connection only.
        tokio::spawn(answer_all(stream));
    }
}

async fn answer_all(mut stream: TcpStream) -> io::Result<()> {
    let mut heads = Vec::with_capacity(1024);
    loop {
        while let Some(length) = head_length(&heads) {
            let size = asked_bytes(&heads[..length]);
            heads.drain(..length);
            answer(&mut stream, size).await?;
        }
        if heads.len() > HEAD_BYTES_MAX || stream.read_buf(&mut heads).await? == 0 {
            return Ok(());
        }
    }
}

async fn answer(stream: &mut TcpStream, size: Option<usize>) -> io::Result<()> {
    let Some(size) = size else {
        let answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        return stream.write_all(answer).await;
    };
    let mut start = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {size}\r\n\r\n"
    )
    .into_bytes();
    // A short body goes out with its head.
    let with_head = size.min(16 << 10);
    start.extend(&PIECE[..with_head]);
    stream.write_all(&start).await?;
    let mut left = size - with_head;
    while left > 0 {
        let written = stream.write(&PIECE[..left.min(PIECE.len())]).await?;
        left -= written;
    }
    Ok(())
}

/// Returns where the head ends, when it is complete.
pub(super) fn head_length(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(end + 4)
}

/// `GET /bytes/N HTTP/1.1`
fn asked_bytes(head: &[u8]) -> Option<usize> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let path = std::str::from_utf8(line).ok()?.split(' ').nth(1)?;
    path.strip_prefix("/bytes/")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_how_many_bytes_it_wants() {
        let head = b"GET /bytes/128 HTTP/1.1\r\nhost: a\r\n\r\nGET";
        assert_eq!(head_length(head), Some(head.len() - 3));
        assert_eq!(asked_bytes(head), Some(128));
        assert_eq!(asked_bytes(b"GET / HTTP/1.1\r\n\r\n"), None);
        assert_eq!(head_length(b"GET / HTTP/1.1\r\n"), None);
    }
}
