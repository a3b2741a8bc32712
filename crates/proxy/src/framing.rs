//! Where the requests of an HTTP/1.1 connection begin and end, seen beside the parser that serves
//! them. That parser takes a request with both `Content-Length` and `Transfer-Encoding` by the
//! latter and forgets the former (RFC 9112 6.3 lets it); here such requests are noticed, so that
//! they are refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes of a line that are looked at: enough for the names and values that matter here.
const LINE_BYTES_MAX: usize = 128;

/// The first request of a connection that says its length in two ways, by its number from 0.
#[derive(Clone, Debug)]
pub(crate) struct Suspect(Arc<AtomicU32>);

impl Default for Suspect {
    fn default() -> Self {
        Self(Arc::new(AtomicU32::new(u32::MAX)))
    }
}

impl Suspect {
    /// Returns whether the request is it, or comes behind it.
    pub(crate) fn covers(&self, number: u32) -> bool {
        number >= self.0.load(Ordering::Relaxed)
    }

    /// Returns its number, if there is one.
    pub(crate) fn number(&self) -> Option<u32> {
        Some(self.0.load(Ordering::Relaxed)).filter(|number| *number != u32::MAX)
    }
}

/// Follows the bytes of one connection.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    place: Place,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    head: Head,
    heads: u32,
    suspect: Suspect,
}

/// What comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// A line of a head.
    #[default]
    Head,
    /// So many bytes of a body.
    Body(u64),
    /// The length of a chunk.
    ChunkLength,
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The end of the line behind a chunk.
    ChunkEnd,
    /// A line behind the last chunk.
    Trailers,
    /// Nothing that this follows: the parser will refuse it.
    Lost,
}

/// What a head has said so far.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    has_begun: bool,
    length: Option<u64>,
    is_chunked: bool,
}

impl Framing {
    /// Begins with a connection.
    pub(crate) fn new(suspect: Suspect) -> Self {
        Self {
            suspect,
            ..Self::default()
        }
    }

    /// Takes what was read.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = match self.place {
                Place::Lost => return,
                Place::Body(left) => self.skip(bytes, left, Place::Body, Place::Head),
                Place::Chunk(left) => self.skip(bytes, left, Place::Chunk, Place::ChunkEnd),
                Place::Head | Place::ChunkLength | Place::ChunkEnd | Place::Trailers => {
                    self.read_line(bytes)
                }
            };
        }
    }

    fn skip<'b>(
        &mut self,
        bytes: &'b [u8],
        left: u64,
        more: fn(u64) -> Place,
        after: Place,
    ) -> &'b [u8] {
        let skipped = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let left = left - skipped as u64;
        self.place = if left == 0 { after } else { more(left) };
        &bytes[skipped..]
    }

    fn read_line<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            self.keep(bytes);
            return &[];
        };
        let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
        if self.line.is_empty() {
            self.take(line.strip_suffix(b"\r").unwrap_or(line));
        } else {
            self.keep(line);
            let mut kept = std::mem::take(&mut self.line);
            self.take(kept.strip_suffix(b"\r").unwrap_or(&kept));
            kept.clear();
            self.line = kept;
        }
        rest
    }

    fn keep(&mut self, part: &[u8]) {
        let room = LINE_BYTES_MAX.saturating_sub(self.line.len());
        self.line.extend_from_slice(&part[..part.len().min(room)]);
    }

    fn take(&mut self, line: &[u8]) {
        self.place = match self.place {
            Place::Head => self.take_head_line(line),
            Place::ChunkLength => match chunk_length(line) {
                Some(0) => Place::Trailers,
                Some(length) => Place::Chunk(length),
                None => Place::Lost,
            },
            Place::ChunkEnd if line.is_empty() => Place::ChunkLength,
            Place::Trailers if line.is_empty() => Place::Head,
            Place::Trailers => Place::Trailers,
            _ => Place::Lost,
        };
    }

    fn take_head_line(&mut self, line: &[u8]) -> Place {
        if line.is_empty() {
            // Empty lines before a request mean nothing.
            return if self.head.has_begun {
                self.end_head()
            } else {
                Place::Head
            };
        }
        if !std::mem::replace(&mut self.head.has_begun, true) {
            return Place::Head;
        }
        if let Some(value) = value_of(line, b"content-length") {
            // What cannot be read is refused by the parser.
            let value = std::str::from_utf8(value).ok();
            let length = value.and_then(|value| value.parse().ok());
            self.head.length = Some(length.unwrap_or(0));
        } else if value_of(line, b"transfer-encoding").is_some() {
            self.head.is_chunked = true;
        }
        Place::Head
    }

    fn end_head(&mut self) -> Place {
        let head = std::mem::take(&mut self.head);
        if head.is_chunked && head.length.is_some() {
            self.suspect.0.fetch_min(self.heads, Ordering::Relaxed);
        }
        self.heads += 1;
        match head.length {
            _ if head.is_chunked => Place::ChunkLength,
            Some(length @ 1..) => Place::Body(length),
            _ => Place::Head,
        }
    }
}

fn value_of<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let (before, after) = line.split_at_checked(name.len())?;
    let value = after.trim_ascii_start().strip_prefix(b":")?;
    before
        .eq_ignore_ascii_case(name)
        .then(|| value.trim_ascii())
}

fn chunk_length(line: &[u8]) -> Option<u64> {
    let digits = line
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    let is_hex = (1..=16).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| is_hex)?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the number of the request that is suspected.
    fn suspected(stream: &str, cuts: &[usize]) -> u32 {
        let suspect = Suspect::default();
        let mut framing = Framing::new(suspect.clone());
        let mut rest = stream.as_bytes();
        for cut in cuts {
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            framing.read(now);
            rest = later;
        }
        framing.read(rest);
        suspect.0.load(Ordering::Relaxed)
    }

    const GOOD: &str = "\r\nPOST / HTTP/1.1\r\nhost: a\r\ncontent-length: 41\r\n\r\n\
        transfer-encoding: x\r\ncontent-length: 2\r\n\
        POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
        13;x=y\r\ncontent-length: 5\r\n\r\n0\r\nx-trailer: content-length\r\n\r\n\
        GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    const BAD: &str = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length : 4\r\n\r\n";

    proptest! {
        #[test]
        fn only_the_request_with_two_lengths_is_suspected(
            cuts in proptest::collection::vec(0usize..40, 0..40),
        ) {
            prop_assert_eq!(suspected(GOOD, &cuts), u32::MAX);
            prop_assert_eq!(suspected(&format!("{GOOD}{BAD}"), &cuts), 3);
        }

        #[test]
        fn nothing_brings_it_out_of_step_with_a_panic(bytes: Vec<u8>) {
            Framing::default().read(&bytes);
        }
    }
}
