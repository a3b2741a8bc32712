//! Frames of HTTP/2, written by hand (RFC 9113, 4 and 6; RFC 7541 for the fields).

use tokio::io::{AsyncRead, AsyncReadExt};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// On `DATA` and `HEADERS`; on `SETTINGS` and `PING` it acknowledges.
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// What a connection begins with.
pub(crate) fn opening() -> Vec<u8> {
    let mut opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    opening.extend(frame(SETTINGS, 0, 0, &[]));
    opening
}

/// A field as it stands, remembered by nobody.
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        field.extend(length(text.len()));
        field.extend(text.as_bytes());
    }
    field
}

/// A number of seven bits or more (RFC 7541, 5.1).
fn length(number: usize) -> Vec<u8> {
    if number < 127 {
        return vec![u8::try_from(number).unwrap()];
    }
    let (mut bytes, mut rest) = (vec![127], number - 127);
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    bytes.push(rest as u8);
    bytes
}

/// The fields of a request, in their order.
pub(crate) fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let fields = fields.iter().map(|(name, value)| field(name, value));
    fields.collect::<Vec<_>>().concat()
}

/// What the other side does about a connection or its first stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reaction {
    /// It ends the connection.
    Ends,
    /// It resets the stream.
    Resets,
    /// It answers, with these fields.
    Answers(Vec<u8>),
}

/// Reads on until something is done about it.
pub(crate) async fn reaction(stream: &mut (impl AsyncRead + Unpin)) -> Reaction {
    let mut head = [0; 9];
    loop {
        if stream.read_exact(&mut head).await.is_err() {
            return Reaction::Ends;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        if stream.read_exact(&mut payload).await.is_err() {
            return Reaction::Ends;
        }
        match head[3] {
            GOAWAY => return Reaction::Ends,
            RST_STREAM => return Reaction::Resets,
            HEADERS => return Reaction::Answers(payload),
            _ => {}
        }
    }
}
