//! Whether a request is one of those that a rule is about: the patterns taken apart once, compared
//! without allocation in time that grows with the request and not with what a pattern could mean.
//!
//! Where servers differ in how they read a request, an allow matches less and a deny more: methods
//! in another case and headers that stand twice.

use model::rule::{HeaderMatch, HeaderValue, HostPattern, HttpMatch, Method, PathPattern};

use crate::call::{Headers, RequestFacts};
use crate::reference::Effect;

/// One entry of `http`.
#[derive(Debug)]
pub(crate) struct RequestPattern {
    methods: Box<[Method]>,
    path: PathMatcher,
    host: Option<HostPattern>,
    headers: Box<[HeaderMatch]>,
}

impl RequestPattern {
    pub(crate) fn new(written: &HttpMatch) -> Self {
        Self {
            methods: written.methods.clone().into(),
            path: PathMatcher::new(&written.path),
            host: written.host.clone(),
            headers: written.headers.clone().into(),
        }
    }

    /// Returns whether the path says anything to it.
    pub(crate) fn reads_path(&self) -> bool {
        !self.path.is_any()
    }

    /// Returns whether the host or a header says anything to it.
    pub(crate) fn reads_headers(&self) -> bool {
        self.host.is_some() || !self.headers.is_empty()
    }

    pub(crate) fn matches(&self, request: &RequestFacts<'_>, effect: Effect) -> bool {
        matches_method(&self.methods, request.method, effect)
            && self.path.matches(request.path)
            && self
                .host
                .as_ref()
                .is_none_or(|pattern| matches_host(pattern, request.host))
            && self
                .headers
                .iter()
                .all(|header| matches_header(header, request.headers, effect))
    }
}

/// Returns whether a method is among some; none mean any.
pub(crate) fn matches_method(methods: &[Method], method: &str, effect: Effect) -> bool {
    methods.is_empty()
        || methods.iter().any(|it| match effect {
            Effect::Allow => it.as_str() == method,
            Effect::Deny => it.as_str().eq_ignore_ascii_case(method),
        })
}

/// Returns whether a host is meant, whatever the case and the port.
pub(crate) fn matches_host(pattern: &HostPattern, authority: &str) -> bool {
    let host = without_port(authority);
    let host = host.strip_suffix('.').unwrap_or(host);
    match pattern.as_str().strip_prefix("*.") {
        None => host.eq_ignore_ascii_case(pattern.as_str()),
        Some(parent) => {
            let (host, parent) = (host.as_bytes(), parent.as_bytes());
            host.len() > parent.len() + 1
                && host[host.len() - parent.len() - 1] == b'.'
                && host[host.len() - parent.len()..].eq_ignore_ascii_case(parent)
        }
    }
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// Returns whether a header says what it has to. Where it stands more than once, an allow needs all
/// of them to say it, and a deny any. What is not known any more may be what a deny means.
pub(crate) fn matches_header(wanted: &HeaderMatch, headers: &dyn Headers, effect: Effect) -> bool {
    if !headers.knows(wanted.name.as_str()) {
        return effect == Effect::Deny;
    }
    let (mut any, mut all) = (false, true);
    headers.each(wanted.name.as_str(), &mut |value| {
        let says_it = match &wanted.value {
            HeaderValue::Present => true,
            HeaderValue::Exact(text) => value == text.as_str().as_bytes(),
            HeaderValue::Prefix(text) => value.starts_with(text.as_str().as_bytes()),
        };
        any |= says_it;
        all &= says_it;
    });
    match effect {
        Effect::Allow => any && all,
        Effect::Deny => any,
    }
}

/// A path pattern, by segments.
#[derive(Debug)]
pub(crate) struct PathMatcher {
    /// `None` stands for any one.
    segments: Box<[Option<Box<str>>]>,
    /// Whether anything may follow.
    has_rest: bool,
}

impl PathMatcher {
    pub(crate) fn new(pattern: &PathPattern) -> Self {
        let text = without_slashes(pattern.as_str());
        let (text, has_rest) = match text.strip_suffix("**") {
            Some(before) => (before.strip_suffix('/').unwrap_or(before), true),
            None => (text, false),
        };
        let segments = text.split('/').filter(|segment| !segment.is_empty());
        let segments = segments.map(|segment| (segment != "*").then(|| segment.into()));
        Self {
            segments: segments.collect(),
            has_rest,
        }
    }

    fn is_any(&self) -> bool {
        self.has_rest && self.segments.is_empty()
    }

    /// Returns whether a path is meant; a slash at its end makes no difference.
    pub(crate) fn matches(&self, path: &str) -> bool {
        if self.is_any() {
            return true;
        }
        if !path.starts_with('/') {
            return false;
        }
        let path = without_slashes(path);
        let mut left = (!path.is_empty()).then_some(path);
        for wanted in &self.segments {
            let Some(text) = left else { return false };
            let (segment, rest) = match text.split_once('/') {
                Some((segment, rest)) => (segment, Some(rest)),
                None => (text, None),
            };
            match wanted {
                Some(literal) if **literal != *segment => return false,
                None if segment.is_empty() => return false,
                _ => left = rest,
            }
        }
        self.has_rest || left.is_none()
    }
}

/// Without the one at the front and one at the end.
fn without_slashes(path: &str) -> &str {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.strip_suffix('/').unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use model::rule::{HeaderName, HeaderText};
    use proptest::prelude::*;

    use super::*;

    fn path(pattern: &str, path: &str) -> bool {
        PathMatcher::new(&pattern.parse().unwrap()).matches(path)
    }

    #[test]
    fn a_star_is_one_segment_and_two_are_any_rest() {
        for (pattern, matching, other) in [
            ("/", &["/"][..], &["/a", "*"][..]),
            (
                "/v1/items",
                &["/v1/items", "/v1/items/"],
                &["/v1", "/v1/items/1", "/v1/item", "/V1/items"],
            ),
            ("/v1/items/", &["/v1/items", "/v1/items/"], &["/v1"]),
            ("/v1/*", &["/v1/a", "/v1/a/"], &["/v1", "/v1/", "/v1/a/b"]),
            ("/*/b", &["/a/b"], &["/b", "/a/c", "/a/b/c"]),
            (
                "/v1/**",
                &["/v1", "/v1/", "/v1/a", "/v1/a/b/c"],
                &["/v11", "/", "/v2/a"],
            ),
            ("/*/x/**", &["/a/x", "/a/x/y"], &["/a", "/x"]),
            ("/**", &["/", "/a", "/a/b", "*"], &[]),
        ] {
            for it in matching {
                assert!(path(pattern, it), "{pattern} {it}");
            }
            for it in other {
                assert!(!path(pattern, it), "{pattern} {it}");
            }
        }
    }

    proptest! {
        #[test]
        fn paths_match_as_they_are_read_plainly(
            pattern in "(/(a|b|\\*)){0,4}(/|/\\*\\*)?",
            path in "(/(a|b|c)){0,5}/?",
        ) {
            let Ok(pattern) = pattern.parse() else { return Ok(()) };
            let plainly = crate::reference::call::matches_path(&pattern, &path);
            prop_assert_eq!(PathMatcher::new(&pattern).matches(&path), plainly);
        }

        #[test]
        fn nothing_that_is_asked_panics(pattern in "/[a-z*/]{0,12}", path in ".{0,40}", host in ".{0,20}") {
            let (Ok(pattern), Ok(parent)) = (pattern.parse(), "*.example".parse()) else {
                return Ok(());
            };
            let plainly = crate::reference::call::matches_path(&pattern, "/x");
            prop_assert_eq!(PathMatcher::new(&pattern).matches("/x"), plainly);
            PathMatcher::new(&pattern).matches(&path);
            matches_host(&parent, &host);
        }
    }

    #[test]
    fn hosts_match_whatever_their_case_and_port() {
        let host = |pattern: &str, host: &str| matches_host(&pattern.parse().unwrap(), host);
        for it in ["api.example", "API.example:8080", "api.example."] {
            assert!(host("api.example", it), "{it}");
        }
        assert!(host("*.example", "a.b.Example:1"));
        for it in [
            "example",
            ".example",
            "api.example.org",
            "xexample",
            "[::1]:80",
            "",
        ] {
            assert!(!host("*.example", it), "{it}");
        }
    }

    fn header(value: HeaderValue, headers: &[(&str, &str)], effect: Effect) -> bool {
        let name: HeaderName = "x-a".parse().unwrap();
        matches_header(&HeaderMatch { name, value }, &headers, effect)
    }

    impl Headers for &[(&str, &str)] {
        fn each(&self, name: &str, look: &mut dyn FnMut(&[u8])) {
            (**self).each(name, look);
        }
    }

    #[test]
    fn a_header_that_stands_twice_allows_less_and_denies_more() {
        let text: HeaderText = "1".parse().unwrap();
        let exact = || HeaderValue::Exact(text.clone());
        let (one, two) = ([("x-a", "1")], [("x-a", "1"), ("x-a", "2")]);
        for effect in [Effect::Allow, Effect::Deny] {
            assert!(header(exact(), &one, effect));
            assert!(header(HeaderValue::Present, &two, effect));
            assert!(!header(HeaderValue::Present, &[("x-b", "")], effect));
        }
        assert!(!header(exact(), &two, Effect::Allow));
        assert!(header(exact(), &two, Effect::Deny));
        assert!(header(
            HeaderValue::Prefix(text.clone()),
            &[("x-a", "12")],
            Effect::Allow
        ));
    }

    /// As of a request whose headers were not kept.
    struct Forgotten;

    impl Headers for Forgotten {
        fn each(&self, _: &str, _: &mut dyn FnMut(&[u8])) {}

        fn knows(&self, _: &str) -> bool {
            false
        }
    }

    #[test]
    fn a_header_that_is_not_known_any_more_allows_nothing_and_may_be_what_is_denied() {
        for value in [
            HeaderValue::Present,
            HeaderValue::Exact("1".parse().unwrap()),
        ] {
            let name = "x-a".parse().unwrap();
            let wanted = HeaderMatch { name, value };
            assert!(!matches_header(&wanted, &Forgotten, Effect::Allow));
            assert!(matches_header(&wanted, &Forgotten, Effect::Deny));
        }
    }

    #[test]
    fn methods_in_another_case_are_denied_and_not_allowed() {
        let methods: [Method; 1] = ["GET".parse().unwrap()];
        assert!(matches_method(&methods, "GET", Effect::Allow));
        assert!(!matches_method(&methods, "get", Effect::Allow));
        assert!(matches_method(&methods, "get", Effect::Deny));
        assert!(matches_method(&[], "ANY", Effect::Allow));
    }
}
