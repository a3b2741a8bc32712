//! What a program speaks, and how a request is put so that it reads it. A program that shows that it
//! speaks HTTP/1.1 alone is remembered for that.

use std::cell::Cell;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Uri, Version};
use http_body::Body;
use tokio::time::Instant;

use crate::body::ProxyBody;
use crate::head;

/// How a program is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speech {
    /// HTTP/1.1, one request at a time on a connection.
    Http1,
    /// HTTP/2 without asking first, and HTTP/1.1 where the program does not know it.
    Http2,
    /// HTTP/2 and nothing else: gRPC cannot be said otherwise.
    Http2Alone,
}

/// For how long a program that speaks HTTP/1.1 alone is not asked again for what else it speaks: it will
/// hardly learn it, and logs each time that it was asked.
const KNOWN_FOR: Duration = Duration::from_secs(600);
/// The same where a call cannot do without HTTP/2: who repairs its program is to see that it works.
const KNOWN_FOR_WITHOUT_CHOICE: Duration = Duration::from_secs(5);

/// How a program showed that it speaks HTTP/1.1 alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lesson {
    /// It answered HTTP/2 in HTTP/1.1.
    Said,
    /// It answered HTTP/1.1, and said nothing to HTTP/2: so does also a program that had yet to begin, or
    /// was about to end.
    Silent,
}

/// Whether a program was found to speak HTTP/1.1 alone, how, and when.
#[derive(Debug, Default)]
pub(super) struct Http1Alone(Cell<Option<(Lesson, Instant)>>);

impl Http1Alone {
    pub(super) fn learn(&self, lesson: Lesson, now: Instant) {
        self.0.set(Some((lesson, now)));
    }

    /// It may be another program by now.
    pub(super) fn forget(&self) {
        self.0.set(None);
    }

    /// Returns whether it is known well enough for a call that would like to speak so. One that has no
    /// choice is not refused for what nobody said.
    pub(super) fn is_known(&self, speech: Speech, now: Instant) -> bool {
        let Some((lesson, at)) = self.0.get() else {
            return false;
        };
        let known_for = match (speech, lesson) {
            (Speech::Http2Alone, Lesson::Silent) => Duration::ZERO,
            (Speech::Http2Alone, Lesson::Said) => KNOWN_FOR_WITHOUT_CHOICE,
            (Speech::Http1 | Speech::Http2, _) => KNOWN_FOR,
        };
        now - at < known_for
    }
}

/// Brings a request into the form in which HTTP/1.1 has it.
pub(super) fn put_in_http1(request: &mut Request<ProxyBody>) {
    *request.version_mut() = Version::HTTP_11;
    *request.uri_mut() = head::origin_form(request.uri());
    announce_body(request);
}

/// Says of a body whose length nobody knows that it comes in chunks: of a `GET` or `HEAD` that does not
/// say so hyper leaves the body out.
pub(crate) fn announce_body(request: &mut Request<ProxyBody>) {
    if !request.headers().contains_key(CONTENT_LENGTH) && !request.body().is_end_stream() {
        let chunked = HeaderValue::from_static("chunked");
        request.headers_mut().insert(TRANSFER_ENCODING, chunked);
    }
}

/// Brings a request into the form in which HTTP/2 has it.
pub(super) fn put_in_http2(request: &mut Request<ProxyBody>) {
    *request.version_mut() = Version::HTTP_2;
    let host = request.headers_mut().remove(HOST);
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority.unwrap_or_else(|| Authority::from_static("mesh")));
    let target = request.uri().path_and_query().cloned();
    parts.path_and_query = Some(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
    *request.uri_mut() = Uri::from_parts(parts).expect("scheme, authority and path are there");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_no_choice_asks_sooner_again() {
        let (known, begin) = (Http1Alone::default(), Instant::now());
        let is_known = |speech, after| known.is_known(speech, begin + after);
        assert!(!is_known(Speech::Http2, Duration::ZERO));
        known.learn(Lesson::Said, begin);
        assert!(is_known(Speech::Http2, Duration::ZERO));
        assert!(is_known(Speech::Http2Alone, Duration::ZERO));
        assert!(is_known(Speech::Http2, KNOWN_FOR_WITHOUT_CHOICE));
        assert!(!is_known(Speech::Http2Alone, KNOWN_FOR_WITHOUT_CHOICE));
        assert!(!is_known(Speech::Http2, KNOWN_FOR));
        known.forget();
        assert!(!is_known(Speech::Http2, Duration::ZERO));
    }

    #[test]
    fn who_has_no_choice_is_not_refused_for_a_silence() {
        let (known, begin) = (Http1Alone::default(), Instant::now());
        known.learn(Lesson::Silent, begin);
        assert!(known.is_known(Speech::Http2, begin));
        assert!(!known.is_known(Speech::Http2Alone, begin));
    }

    #[test]
    fn a_request_of_http_2_becomes_one_of_http_1_and_back() {
        let request = Request::get("http://orders:80/v1?x=1")
            .version(Version::HTTP_2)
            .header(HOST, "orders:80");
        let mut request = request.body(ProxyBody::Empty).unwrap();
        put_in_http1(&mut request);
        assert_eq!(request.version(), Version::HTTP_11);
        assert_eq!(request.uri(), "/v1?x=1");
        assert_eq!(request.headers()[HOST], "orders:80");
        put_in_http2(&mut request);
        assert_eq!(request.uri(), "http://orders:80/v1?x=1");
        assert_eq!(request.headers().get(HOST), None);
    }
}
