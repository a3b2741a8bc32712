//! What programs and other hosts say to a proxy: what is admitted means one thing to everybody who
//! reads it, and what a connection speaks does not depend on how its bytes come.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version};
use proxy::reading;

use crate::Seed;

/// Reads bytes as the beginning of a connection, as a path by itself, and as a request.
pub fn target(bytes: &[u8]) {
    a_protocol_is_told_once(bytes);
    lengths_are_seen_however_they_come(bytes);
    let text = String::from_utf8_lossy(bytes);
    for line in text.lines() {
        a_path_has_one_meaning(line);
    }
    let Some(request) = request(bytes) else {
        return;
    };
    a_path_has_one_meaning(request.uri.path());
    marks_are_read_as_they_are_written(&request.headers);
    a_trace_goes_on(request.headers.clone());
    what_is_admitted_has_one_meaning(request);
}

/// More bytes change nothing once there is an answer.
fn a_protocol_is_told_once(bytes: &[u8]) {
    let first = &bytes[..bytes.len().min(64)];
    let mut told = None;
    for length in 0..=first.len() {
        let spoken = reading::spoken(&first[..length]);
        assert!(
            told.is_none() || told == spoken,
            "{told:?}, then {spoken:?}"
        );
        told = spoken;
    }
    if first.len() > 24 {
        assert!(told.is_some(), "so many bytes tell it");
    }
}

fn lengths_are_seen_however_they_come(bytes: &[u8]) {
    let whole = reading::suspected([bytes]);
    assert_eq!(whole, reading::suspected(bytes.chunks(1)));
    assert_eq!(whole, reading::suspected(bytes.chunks(7)));
}

/// What is decided on is what every program sees: decoded as often as it likes, with or without
/// parameters, empty segments and dots taken out.
fn a_path_has_one_meaning(raw: &str) {
    let Some(path) = reading::path(raw) else {
        return;
    };
    assert_eq!(decoded(raw.as_bytes()), path.as_bytes(), "{raw}");
    assert_eq!(decoded(path.as_bytes()), path.as_bytes(), "{raw}");
    if path == "*" {
        return;
    }
    assert!(path.starts_with('/'), "{raw}");
    let segments: Vec<&str> = path[1..].split('/').collect();
    let (last, others) = segments.split_last().expect("a split has a last part");
    assert!(others.iter().all(|segment| !segment.is_empty()), "{raw}");
    for segment in others.iter().chain([last]) {
        assert!(![".", ".."].contains(segment), "{raw}");
        let is_doubtful = |it: char| matches!(it, ';' | '\\') || it.is_ascii_control();
        assert!(!segment.contains(is_doubtful), "{raw}");
    }
}

/// As the simplest of programs does it: what is no escape stays.
fn decoded(raw: &[u8]) -> Vec<u8> {
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    let (mut out, mut at) = (Vec::new(), 0);
    while at < raw.len() {
        match (raw[at], digit(raw.get(at + 1)), digit(raw.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

fn marks_are_read_as_they_are_written(headers: &HeaderMap) {
    for is_connect in [false, true] {
        if let Some(written) = reading::marks(headers, is_connect) {
            let again = reading::marks(&written, is_connect);
            assert_eq!(again.as_ref(), Some(&written), "{headers:?}");
        }
    }
}

fn a_trace_goes_on(headers: HeaderMap) {
    let before = headers.get("traceparent").cloned();
    let after = reading::traced(headers);
    let mut parents = after.get_all("traceparent").iter();
    let parent = parents.next().expect("a trace is told of").as_bytes();
    assert!(parents.next().is_none(), "of one");
    // https://www.w3.org/TR/trace-context/#traceparent-header
    assert_eq!(parent.len(), 55);
    let parts: Vec<&[u8]> = parent.split(|byte| *byte == b'-').collect();
    assert_eq!(
        parts.iter().map(|it| it.len()).collect::<Vec<_>>(),
        [2, 32, 16, 2]
    );
    let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    assert!(parts.concat().iter().all(is_hex), "{parent:?}");
    assert!(
        parts[1..3]
            .iter()
            .all(|id| id.iter().any(|digit| *digit != b'0'))
    );
    let before = before
        .as_ref()
        .map(HeaderValue::as_bytes)
        .unwrap_or_default();
    let goes_on = before.get(3..35) == Some(parts[1]);
    // And again: what is written is a trace.
    let again = reading::traced(after.clone());
    let next = again["traceparent"].as_bytes();
    assert_eq!(
        &next[3..35],
        parts[1],
        "of {before:?}, gone on with: {goes_on}"
    );
}

fn what_is_admitted_has_one_meaning(request: Parts) {
    let is_old = request.version == Version::HTTP_10;
    let Some(admitted) = reading::admitted(request) else {
        return;
    };
    assert_ne!(admitted.method, Method::CONNECT);
    assert_eq!(
        (admitted.uri.scheme(), admitted.uri.authority()),
        (None, None)
    );
    let headers = &admitted.headers;
    let lengths: Vec<&HeaderValue> = headers.get_all(CONTENT_LENGTH).iter().collect();
    let is_number = |length: &&HeaderValue| length.as_bytes().iter().all(u8::is_ascii_digit);
    assert!(
        lengths.len() <= 1 && lengths.iter().all(is_number),
        "{lengths:?}"
    );
    let hosts: Vec<&HeaderValue> = headers.get_all(HOST).iter().collect();
    assert!(hosts.len() == 1 || is_old && hosts.is_empty(), "{hosts:?}");
    for host in hosts {
        let is_doubtful =
            |byte: &u8| matches!(byte, b'/' | b'@' | b',' | b'?' | b'#' | b' ' | b'\\');
        assert!(!host.as_bytes().iter().any(is_doubtful), "{host:?}");
    }
    for of_connections in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        assert!(!headers.contains_key(of_connections), "{headers:?}");
    }
    let mut te = headers.get_all(TE).iter();
    assert!(te.all(|it| it == "trailers"), "{headers:?}");
    let mut names = headers.keys().map(HeaderName::as_str);
    assert!(
        !names.any(|name| name.starts_with("mesh-") || name.starts_with("mesh_")),
        "{headers:?}"
    );
}

/// `METHOD TARGET [old]`, then a header on each line.
fn request(bytes: &[u8]) -> Option<Parts> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let first = std::str::from_utf8(lines.next()?).ok()?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let version = match words.next() {
        Some("old") => Version::HTTP_10,
        Some("two") => Version::HTTP_2,
        _ => Version::HTTP_11,
    };
    let request = Request::builder()
        .method(method)
        .uri(target)
        .version(version);
    let mut parts = request.body(()).ok()?.into_parts().0;
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(line[..colon].trim_ascii()).ok()?;
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
        parts.headers.try_append(name, value).ok()?;
    }
    Some(parts)
}

pub(crate) fn seeds() -> Vec<Seed> {
    vec![
        Seed::new(
            "plain",
            "GET /v1/caf%C3%A9/100%25?x=1\nhost: orders:8080\naccept: */*",
        ),
        Seed::new(
            "absolute",
            "GET http://Orders:80/a\nhost: orders:80\nte: trailers",
        ),
        Seed::new(
            "old",
            "GET / old\nconnection: keep-alive, x-private\nx-private: 1\nkeep-alive: 5",
        ),
        Seed::new("doubtful-path", "GET /a//b/..;x/%2e%2e/%252f\\\nhost: a"),
        Seed::new(
            "smuggled",
            "POST / HTTP/1.1\nhost: a\ncontent-length: 4\ntransfer-encoding: chunked\n\n0\r\n\r\nGET /x HTTP/1.1\r\n",
        ),
        Seed::new(
            "chunks",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nx: y\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        ),
        Seed::new(
            "http2",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        ),
        Seed::new("bytes", b"\0\0\0\x08\x04\xd2\x16\x2f".to_vec()),
        Seed::new(
            "marks",
            "POST /orders.Orders/Get two\nhost: orders\nmesh-service: orders\nmesh-workload: web\nmesh-call: 00000000000000ab\nmesh-deadline: 1500\nmesh-attempt: 2\nmesh-carries: h2",
        ),
        Seed::new(
            "port",
            "GET / two\nhost: a\nmesh-port: 5432\nmesh-call: ffffffffffffffff\nmesh-carries: http/1.1\nmesh_caller: x",
        ),
        Seed::new(
            "traced",
            "GET /\nhost: a\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\ntracestate: a=b",
        ),
        Seed::new(
            "upgrade",
            "GET /ws\nhost: a\nconnection: Upgrade, x-b\nupgrade: websocket\nx-b: 2\nexpect: 100-continue",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_requests_or_the_beginning_of_a_connection() {
        for seed in seeds() {
            let is_request = request(&seed.bytes).is_some();
            assert!(
                is_request || reading::spoken(&seed.bytes).is_some(),
                "{}",
                seed.name
            );
        }
        let marks = seeds()
            .into_iter()
            .find(|seed| seed.name == "marks")
            .unwrap();
        let headers = request(&marks.bytes).unwrap().headers;
        assert!(reading::marks(&headers, false).is_some());
    }
}
