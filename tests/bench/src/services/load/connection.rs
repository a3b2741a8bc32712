//! One connection of a client, and the answers that it understands: those with a length, and status 200.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Call;
use crate::services::origin::head_length;

/// Of an answer's head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// What is read at once of small answers and of large ones.
const SMALL_READ_BYTES: usize = 2 << 10;
const LARGE_READ_BYTES: usize = 256 << 10;

pub(super) struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    received: Vec<u8>,
}

impl Connection {
    pub(super) async fn open(call: Call) -> io::Result<Self> {
        let stream = TcpStream::connect(call.target).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET /bytes/{} HTTP/1.1\r\nhost: orders.mesh.internal:8080\r\nuser-agent: bench\r\naccept: */*\r\n\r\n",
            call.bytes
        );
        let at_once = match call.bytes > SMALL_READ_BYTES {
            true => LARGE_READ_BYTES,
            false => SMALL_READ_BYTES,
        };
        Ok(Self {
            stream,
            request: request.into_bytes(),
            received: Vec::with_capacity(at_once),
        })
    }

    /// Sends the request and reads the answer to its end; `count` is told of every piece of its body.
    pub(super) async fn ask(&mut self, count: impl Fn(usize)) -> io::Result<()> {
        self.stream.write_all(&self.request).await?;
        self.received.clear();
        let head_bytes = loop {
            if let Some(length) = head_length(&self.received) {
                break length;
            }
            if self.received.len() > HEAD_BYTES_MAX {
                return Err(io::Error::other("the head of an answer has no end"));
            }
            self.read().await?;
        };
        let body_bytes = body_length(&self.received[..head_bytes])?;
        let mut got = self.received.len() - head_bytes;
        count(got);
        while got < body_bytes {
            self.received.clear();
            self.read().await?;
            got += self.received.len();
            count(self.received.len());
        }
        match got == body_bytes {
            true => Ok(()),
            false => Err(io::Error::other("an answer is longer than it says")),
        }
    }

    async fn read(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.received).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// The length of the body of a good answer.
fn body_length(head: &[u8]) -> io::Result<usize> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.lines();
    let status = lines.next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(io::Error::other(format!("the answer is {text}")));
    }
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse().ok()).flatten()
    });
    length.ok_or_else(|| io::Error::other(format!("an answer without a length: {text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_good_answers_with_a_length_are_understood() {
        let good = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 12\r\n\r\n";
        assert_eq!(body_length(good).ok(), Some(12));
        assert!(body_length(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").is_err());
        assert!(body_length(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
