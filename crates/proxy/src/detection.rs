//! What a connection speaks, by its first bytes. They are looked at where they lie and not taken.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// HTTP/1.0 or 1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// Something else, or nothing: its server speaks first.
    Bytes,
}

/// With these a client says that it speaks HTTP/2: RFC 9113 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Methods are shorter.
const METHOD_BYTES_MAX: usize = 20;
/// When bytes that tell nothing yet are looked at again, for the kernel tells only that there are some:
/// after the first pause, and then each time after twice as long, up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_millis(250);

/// Waits for the first bytes. Who is silent for `wait`, or does not make up its mind, speaks bytes.
///
/// # Errors
/// The connection broke.
pub(crate) async fn detect(stream: &TcpStream, wait: Duration) -> io::Result<Spoken> {
    timeout(wait, look(stream))
        .await
        .unwrap_or(Ok(Spoken::Bytes))
}

async fn look(stream: &TcpStream) -> io::Result<Spoken> {
    let mut first = [0; PREFACE.len()];
    let mut seen = 0;
    let mut pause = FIRST_PAUSE;
    loop {
        let length = stream.peek(&mut first).await?;
        match spoken(&first[..length]) {
            Some(spoken) => return Ok(spoken),
            // It has ended before it said anything.
            None if length == 0 => return Ok(Spoken::Bytes),
            None if length == seen => {
                sleep(pause).await;
                pause = longer(pause);
            }
            None => seen = length,
        }
    }
}

fn longer(pause: Duration) -> Duration {
    (pause * 2).min(LAST_PAUSE)
}

/// Returns what begins so; `None`: more of it is needed.
pub(crate) fn spoken(first: &[u8]) -> Option<Spoken> {
    if first.len() >= PREFACE.len() && first.starts_with(PREFACE) {
        return Some(Spoken::Http2);
    }
    if PREFACE.starts_with(first) {
        return None;
    }
    let method = first
        .iter()
        .take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-');
    let method = method.count();
    match (method, first.get(method), first.get(method + 1)) {
        (1..=METHOD_BYTES_MAX, None, _) | (1..=METHOD_BYTES_MAX, Some(b' '), None) => None,
        (1..=METHOD_BYTES_MAX, Some(b' '), Some(b'/' | b'*' | b'h' | b'H')) => Some(Spoken::Http1),
        _ => Some(Spoken::Bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_go_on_is_looked_at_seldom() {
        let minute = Duration::from_secs(60);
        let (mut looks, mut passed, mut pause) = (0, Duration::ZERO, FIRST_PAUSE);
        while passed < minute {
            looks += 1;
            passed += pause;
            pause = longer(pause);
        }
        assert!(looks < 5 * minute.as_secs(), "{looks}");
    }

    #[test]
    fn protocols_are_known_by_their_first_bytes() {
        for (first, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], Some(Spoken::Http1)),
            (b"OPTIONS * HTTP/1.1", Some(Spoken::Http1)),
            (b"M-SEARCH * ", Some(Spoken::Http1)),
            (b"GET http://x/", Some(Spoken::Http1)),
            (PREFACE, Some(Spoken::Http2)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0", Some(Spoken::Http2)),
            (b"", None),
            (b"P", None),
            (b"PRI * HT", None),
            (b"POS", None),
            (b"POST ", None),
            (b"SSH-2.0-OpenSSH", Some(Spoken::Bytes)),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", Some(Spoken::Bytes)),
            (b"\x16\x03\x01", Some(Spoken::Bytes)),
            (b"GET\r\n", Some(Spoken::Bytes)),
            (b"EHLO there", Some(Spoken::Bytes)),
            (b"ABCDEFGHIJKLMNOPQRSTUVWX", Some(Spoken::Bytes)),
        ] {
            assert_eq!(
                spoken(first),
                expected,
                "{:?}",
                String::from_utf8_lossy(first)
            );
        }
    }
}
