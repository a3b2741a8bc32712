//! The head of a message between one connection and the next: what belongs to one connection only
//! is taken off, what could be read in two ways is refused, and nobody but the mesh speaks of the
//! mesh.

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, Entry, HOST, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};

/// How headers of the mesh begin, before a hyphen.
const MESH: &str = "mesh";
/// A name that no standard knows and some old programs send.
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// What comes with a wish to speak HTTP/2 from now on (RFC 7540, 3.2.1).
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
/// What a connection may be turned into: nothing that carries further requests, for nobody would decide
/// them.
const WEBSOCKET: &str = "websocket";
/// Headers that a `Connection` header cannot take off: they say where a message goes or ends.
const KEPT: [HeaderName; 3] = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING];

/// Why a head is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadHead {
    /// `CONNECT` asks a proxy for a tunnel, which this is not.
    #[error("CONNECT is not for services")]
    Connect,
    /// HTTP/1.1 wants one.
    #[error("it has no Host header")]
    NoHost,
    /// Two programs could choose two of them.
    #[error("it names more than one host")]
    ManyHosts,
    /// It holds what no name of a host does.
    #[error("its Host header is not the name of a host")]
    InvalidHost,
    /// Other than `chunked`, or more than once.
    #[error("its Transfer-Encoding is not \"chunked\"")]
    TransferEncoding,
    /// It stands more than once, or is no number.
    #[error("its Content-Length is not one number")]
    ContentLength,
    /// It has both, and two programs could choose either.
    #[error("it has both Content-Length and Transfer-Encoding")]
    TwoLengths,
    /// HTTP/2 forbids it (RFC 9113, 8.2.1), and who reads HTTP/1.1 does not see it: rules would look at
    /// another value than the program.
    #[error("a header begins or ends with a space or a tab")]
    PaddedHeader,
}

/// Checks a request as a program sent it, and brings it into the form in which it goes on: target
/// without scheme and authority, one `Host` header, one `Cookie` header. What is decided is what the
/// program gets.
///
/// # Errors
/// It can be read in two ways, or is not for a service.
pub(crate) fn admit(parts: &mut Parts) -> Result<(), BadHead> {
    if parts.method == Method::CONNECT {
        return Err(BadHead::Connect);
    }
    check_transfer_encoding(&parts.headers)?;
    check_length(&parts.headers)?;
    if parts.headers.values().any(is_padded) {
        return Err(BadHead::PaddedHeader);
    }
    settle_host(parts)?;
    join_cookies(&mut parts.headers);
    Ok(())
}

fn is_padded(value: &HeaderValue) -> bool {
    let is_padding = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_padding(value.as_bytes().first()) || is_padding(value.as_bytes().last())
}

/// HTTP/2 lets a client send its cookies in crumbs, and HTTP/1.1 has one header for all of them
/// (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        // The space behind an empty one at the end would be padding.
        .filter(|crumb| !crumb.is_empty())
        .collect();
    let whole = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]));
    headers.insert(
        COOKIE,
        whole.expect("what stood in headers may stand in one"),
    );
}

fn check_transfer_encoding(headers: &HeaderMap) -> Result<(), BadHead> {
    let mut values = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(first) = values.next() else {
        return Ok(());
    };
    if values.next().is_some() || !first.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err(BadHead::TransferEncoding);
    }
    if headers.contains_key(CONTENT_LENGTH) {
        return Err(BadHead::TwoLengths);
    }
    Ok(())
}

/// HTTP/1.1 was parsed by what looks at this too, HTTP/2 was not.
fn check_length(headers: &HeaderMap) -> Result<(), BadHead> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else {
        return Ok(());
    };
    let digits = length.as_bytes();
    if lengths.next().is_some() || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(BadHead::ContentLength);
    }
    Ok(())
}

/// Leaves one `Host` header: the target's authority, or what the request has.
fn settle_host(parts: &mut Parts) -> Result<(), BadHead> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(BadHead::ManyHosts);
    }
    let Some(authority) = parts.uri.authority() else {
        return match host {
            Some(host) if is_host(host.as_bytes()) => Ok(()),
            Some(_) => Err(BadHead::InvalidHost),
            None if parts.version == Version::HTTP_10 => Ok(()),
            None => Err(BadHead::NoHost),
        };
    };
    let authority = authority.as_str();
    if !is_host(authority.as_bytes()) {
        return Err(BadHead::InvalidHost);
    }
    if host.is_some_and(|host| !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes())) {
        return Err(BadHead::ManyHosts);
    }
    if host.is_none() {
        let host = HeaderValue::from_str(authority).map_err(|_| BadHead::InvalidHost)?;
        parts.headers.insert(HOST, host);
    }
    parts.uri = origin_form(&parts.uri);
    Ok(())
}

/// Returns whether the bytes can be `host` or `host:port`, and nothing beside it.
fn is_host(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes.iter().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']')
        })
}

/// Returns the target without scheme and authority.
pub(crate) fn origin_form(uri: &Uri) -> Uri {
    match uri.path_and_query() {
        Some(target) => Uri::from(target.clone()),
        None => Uri::from_static("/"),
    }
}

/// Takes off what is between two programs only and not for the one behind: `Connection` and all
/// that it names. `Upgrade` too: who passes on an upgrade says so anew.
pub(crate) fn strip_connection(headers: &mut HeaderMap) {
    if let Entry::Occupied(connection) = headers.entry(CONNECTION) {
        let (_, values) = connection.remove_entry_mult();
        let values: Vec<HeaderValue> = values.collect();
        for value in &values {
            for name in value.as_bytes().split(|byte| *byte == b',') {
                let name = HeaderName::from_bytes(name.trim_ascii());
                if let Some(name) = name.ok().filter(|name| !KEPT.contains(name)) {
                    headers.remove(name);
                }
            }
        }
    }
    let others = [
        KEEP_ALIVE,
        PROXY_CONNECTION,
        TRANSFER_ENCODING,
        UPGRADE,
        HTTP2_SETTINGS,
    ];
    for name in others {
        headers.remove(name);
    }
    if headers.get_all(TE).iter().any(|value| value != "trailers") {
        headers.remove(TE);
    }
}

/// Takes off a wish for `100 Continue` where there is nothing to wait for.
pub(crate) fn strip_expectation(headers: &mut HeaderMap) {
    if waits_for_continue(headers) {
        headers.remove(EXPECT);
    }
}

/// Returns whether a request's body is sent only when somebody asks for it.
pub(crate) fn waits_for_continue(headers: &HeaderMap) -> bool {
    let expectation = headers.get(EXPECT);
    expectation.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Takes off every header in the name of the mesh, also as `mesh_…`: many programs read both alike.
pub(crate) fn strip_mesh(headers: &mut HeaderMap) {
    while let Some(name) = headers.keys().find(|name| is_of_mesh(name)) {
        let name = name.clone();
        headers.remove(name);
    }
}

fn is_of_mesh(name: &HeaderName) -> bool {
    let rest = name.as_str().strip_prefix(MESH);
    rest.is_some_and(|rest| rest.starts_with(['-', '_']))
}

/// Returns whether the request asks for a WebSocket on its connection. Other wishes may be ignored
/// (RFC 9110, 7.8), and are.
pub(crate) fn is_upgrade(parts: &Parts) -> bool {
    parts.version == Version::HTTP_11 && names_websocket(&parts.headers)
}

/// Returns whether the head says of its connection that it becomes a WebSocket, and nothing else.
pub(crate) fn names_websocket(headers: &HeaderMap) -> bool {
    let mut protocols = headers.get_all(UPGRADE).iter();
    let is_websocket = protocols.next().is_some_and(|protocol| {
        protocol
            .as_bytes()
            .eq_ignore_ascii_case(WEBSOCKET.as_bytes())
    });
    is_websocket
        && protocols.next().is_none()
        && headers.get_all(CONNECTION).iter().any(|value| {
            value
                .as_bytes()
                .split(|byte| *byte == b',')
                .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
        })
}

/// Takes off what belongs to one connection only, but for the wish or the word that it becomes a
/// WebSocket.
pub(crate) fn keep_websocket(headers: &mut HeaderMap) {
    let is_upgrade = names_websocket(headers);
    strip_connection(headers);
    if is_upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(request: http::request::Builder) -> Parts {
        request.body(()).unwrap().into_parts().0
    }

    fn get(uri: &str) -> http::request::Builder {
        http::Request::get(uri)
    }

    #[test]
    fn what_a_connection_names_goes_with_it() {
        let mut parts = parts(
            get("/")
                .header("connection", "keep-alive, x-private")
                .header("connection", "X-Other , content-length")
                .header("keep-alive", "timeout=5")
                .header("x-private", "1")
                .header("x-other", "2")
                .header("content-length", "3")
                .header("te", "gzip")
                .header("proxy-connection", "keep-alive")
                .header("x-kept", "4"),
        );
        strip_connection(&mut parts.headers);
        let mut left: Vec<&str> = parts.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "x-kept"]);
    }

    #[test]
    fn of_what_a_connection_may_become_a_websocket_is_kept() {
        let kept = |protocol| {
            let mut parts = parts(
                get("/")
                    .header("connection", "upgrade, x-private")
                    .header("x-private", "1")
                    .header("http2-settings", "AAMAAABk")
                    .header("upgrade", protocol),
            );
            keep_websocket(&mut parts.headers);
            let left = parts.headers.iter();
            left.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            kept("WebSocket"),
            ["connection: upgrade", "upgrade: websocket"]
        );
        assert!(kept("h2c").is_empty());
    }

    #[test]
    fn trailers_stay_announced() {
        let mut parts = parts(
            get("/")
                .header("te", "trailers")
                .header("connection", "close"),
        );
        strip_connection(&mut parts.headers);
        assert_eq!(parts.headers["te"], "trailers");
    }

    #[test]
    fn nobody_speaks_in_the_name_of_the_mesh() {
        let mut parts = parts(
            get("/")
                .header("mesh-workload", "web")
                .header("mesh-caller", "spiffe://x")
                .header("Mesh-Caller", "again")
                .header("mesh_caller", "as CGI reads it")
                .header("meshed", "kept"),
        );
        strip_mesh(&mut parts.headers);
        let left: Vec<&str> = parts.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["meshed"]);
    }

    #[test]
    fn two_readings_are_refused() {
        let cases = [
            (get("/"), BadHead::NoHost),
            (
                get("/").header("host", "a").header("host", "a"),
                BadHead::ManyHosts,
            ),
            (get("http://a/").header("host", "b"), BadHead::ManyHosts),
            (get("/").header("host", "a, b"), BadHead::InvalidHost),
            (get("/").header("host", "a/b"), BadHead::InvalidHost),
            (get("/").header("host", "a@b"), BadHead::InvalidHost),
            (get("/").header("host", ""), BadHead::InvalidHost),
            (
                get("/")
                    .header("host", "a")
                    .header("transfer-encoding", "gzip, chunked"),
                BadHead::TransferEncoding,
            ),
            (
                get("/")
                    .header("host", "a")
                    .header("transfer-encoding", "chunked")
                    .header("transfer-encoding", "chunked"),
                BadHead::TransferEncoding,
            ),
            (
                get("/")
                    .header("host", "a")
                    .header("transfer-encoding", "chunked")
                    .header("content-length", "3"),
                BadHead::TwoLengths,
            ),
            (
                get("/").header("host", "a").header("content-length", "+1"),
                BadHead::ContentLength,
            ),
            (
                get("/")
                    .header("host", "a")
                    .header("content-length", "1")
                    .header("content-length", "1"),
                BadHead::ContentLength,
            ),
            (
                get("/").header("host", "a").header("x-role", " admin"),
                BadHead::PaddedHeader,
            ),
            (
                get("/").header("host", "a").header("x-role", "admin\t"),
                BadHead::PaddedHeader,
            ),
            (
                get("/").header("host", "a").header("cookie", "\ta=b"),
                BadHead::PaddedHeader,
            ),
            (http::Request::connect("a:1"), BadHead::Connect),
        ];
        for (request, why) in cases {
            assert_eq!(admit(&mut parts(request)), Err(why));
        }
    }

    #[test]
    fn crumbs_become_one_cookie_and_stay_so() {
        let joined = |crumbs: &[&str]| {
            let request = get("http://a/").header("x-empty", "");
            let request = crumbs
                .iter()
                .fold(request, |request, crumb| request.header(COOKIE, *crumb));
            let mut parts = parts(request);
            // The other end admits it once more.
            admit(&mut parts).unwrap();
            admit(&mut parts).unwrap();
            let cookies = parts.headers.get_all(COOKIE).iter();
            cookies
                .map(|cookie| cookie.to_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert!(joined(&[]).is_empty());
        assert_eq!(joined(&["a=b"]), ["a=b"]);
        assert_eq!(joined(&["a=b", "c=d; e=f", "g=h"]), ["a=b; c=d; e=f; g=h"]);
        assert_eq!(joined(&["", "a=b", "", "c=d", ""]), ["a=b; c=d"]);
        assert_eq!(joined(&["", ""]), [""]);
    }

    #[test]
    fn an_absolute_target_becomes_a_host() {
        let mut parts = parts(get("http://Orders:8080/v1?x=1"));
        admit(&mut parts).unwrap();
        assert_eq!(parts.uri, "/v1?x=1");
        assert_eq!(parts.headers[HOST], "Orders:8080");
    }

    #[test]
    fn an_upgrade_is_asked_for_in_two_headers() {
        let to = |protocol| {
            parts(
                get("/")
                    .header("connection", "keep-alive, Upgrade")
                    .header("upgrade", protocol),
            )
        };
        assert!(is_upgrade(&to("websocket")));
        assert!(is_upgrade(&to("WebSocket")));
        for other in ["h2c", "websocket, h2c", "h2c, websocket", "websocket/2", ""] {
            assert!(!is_upgrade(&to(other)), "{other}");
        }
        assert!(!is_upgrade(&parts(get("/").header("upgrade", "websocket"))));
        assert!(!is_upgrade(&parts(
            get("/").header("connection", "upgrade")
        )));
    }
}
