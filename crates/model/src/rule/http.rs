//! Which requests a rule is about, as it was written. How a request is compared with it is
//! `policy`'s.

use std::fmt;

use crate::name::text_name;

/// Requests: all that is said has to match.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HttpMatch {
    /// Any of these; none: any method.
    pub methods: Vec<Method>,
    /// The path without the query.
    pub path: PathPattern,
    /// The host that the request is for, as the caller calls it.
    pub host: Option<HostPattern>,
    /// Each of these.
    pub headers: Vec<HeaderMatch>,
}

/// A header that a request has to have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeaderMatch {
    /// In lower case.
    pub name: HeaderName,
    /// What it has to say.
    pub value: HeaderValue,
}

/// What a header has to say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HeaderValue {
    /// Anything.
    Present,
    /// Exactly this.
    Exact(HeaderText),
    /// What begins with this.
    Prefix(HeaderText),
}

text_name!(
    /// A method of HTTP, in upper case, such as `GET`.
    Method, "method", check_method, "^[A-Z][A-Z0-9_-]{0,31}$"
);
text_name!(
    /// The path of requests: `*` stands for one segment, `**` at the end for any rest, also none.
    PathPattern, "path", check_path, "^/"
);
text_name!(
    /// The path of one request: decoded, without the query, and without what requests are refused for.
    RequestPath, "path of a request", check_request_path, "^/[^*]*$"
);
text_name!(
    /// A host by its name, or `*.example.com` for all below it. In lower case, without a port.
    HostPattern, "host", check_host, "^(\\*\\.)?[a-z0-9.-]+$"
);
text_name!(
    /// The name of a header, in lower case.
    HeaderName, "header", check_header, "^[a-z0-9!#$%&'+.^_`|~-]{1,64}$"
);
text_name!(
    /// What a header says: visible ASCII, with spaces inside.
    HeaderText, "header value", check_header_text, "^[!-~]([ -~]*[!-~])?$"
);

impl PathPattern {
    /// Returns the pattern of every path.
    pub fn any() -> Self {
        Self("/**".into())
    }
}

impl HttpMatch {
    /// Returns whether every request matches.
    pub fn is_everything(&self) -> bool {
        self.methods.is_empty()
            && self.path == PathPattern::any()
            && self.host.is_none()
            && self.headers.is_empty()
    }
}

/// As the short form of the language writes it: `GET /v1/**`, `GET,POST /v1/orders`, `* /admin/**`;
/// with a host and headers behind.
impl fmt::Display for HttpMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.methods.is_empty() {
            f.write_str("*")?;
        }
        for (position, method) in self.methods.iter().enumerate() {
            let comma = if position > 0 { "," } else { "" };
            write!(f, "{comma}{method}")?;
        }
        write!(f, " {}", self.path)?;
        if let Some(host) = &self.host {
            write!(f, " host {host}")?;
        }
        for header in &self.headers {
            write!(f, " {header}")?;
        }
        Ok(())
    }
}

impl fmt::Display for HeaderMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            HeaderValue::Present => write!(f, "{}: *", self.name),
            HeaderValue::Exact(text) => write!(f, "{}: {text}", self.name),
            HeaderValue::Prefix(text) => write!(f, "{}: {text}*", self.name),
        }
    }
}

/// Bytes of a path pattern.
const PATH_BYTES_MAX: usize = 1024;

fn check_method(text: &str) -> Result<(), &'static str> {
    if text.len() > 32 {
        return Err("it is longer than 32 characters");
    }
    if !text.starts_with(|c: char| c.is_ascii_uppercase()) {
        return Err("it has to begin with a letter, in upper case");
    }
    let fits =
        |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    if !text.bytes().all(fits) {
        return Err("only A-Z, 0-9, - and _ may stand in it");
    }
    Ok(())
}

fn check_path(text: &str) -> Result<(), &'static str> {
    if text.len() > PATH_BYTES_MAX {
        return Err("it is longer than 1024 bytes");
    }
    let Some(rest) = text.strip_prefix('/') else {
        return Err("a path begins with /");
    };
    if text.chars().any(char::is_control) || text.ends_with(' ') {
        return Err("it has a control character, or a space at its end");
    }
    if text.contains(['?', '#']) {
        return Err("the query is no part of the path: leave ? and # out");
    }
    if text.contains(['\\', ';']) {
        return Err(
            "requests with \\ or ; in their path are refused: servers read them differently",
        );
    }
    if text.contains('%') {
        return Err("paths are compared decoded: write the character itself instead of %");
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let mut segments = rest.split('/').peekable();
    let is_root = rest.is_empty() && text.len() == 1;
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "" if is_root => {}
            "" => return Err("it has an empty segment, and requests with // are refused"),
            "." | ".." => return Err("requests with . or .. segments are refused"),
            "*" => {}
            "**" if is_last => {}
            "**" => return Err("** stands for any rest, and only at the end"),
            _ if segment.contains('*') => {
                return Err("* stands for a whole segment, ** for any rest at the end");
            }
            _ => {}
        }
    }
    if text.ends_with("**/") {
        return Err("** stands for any rest, and only at the end");
    }
    Ok(())
}

fn check_request_path(text: &str) -> Result<(), &'static str> {
    if text.contains('*') {
        return Err("one request is asked about: its path has no *");
    }
    check_path(text)
}

fn check_host(text: &str) -> Result<(), &'static str> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    if text.len() > 253 {
        return Err("it is longer than 253 characters");
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte)
            })
    };
    if !name.split('.').all(is_label) {
        return Err("a host is a name in lower case without a port, or *.NAME for all below it");
    }
    Ok(())
}

fn check_header(text: &str) -> Result<(), &'static str> {
    if !(1..=64).contains(&text.len()) {
        return Err("it has to have 1 to 64 characters");
    }
    // Tokens of RFC 9110 5.6.2 but `*`, in lower case.
    let fits = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'+-.^_`|~".contains(&byte)
    };
    if !text.bytes().all(fits) {
        return Err("the name of a header is written in lower case, without : and spaces");
    }
    if text.starts_with("mesh-") {
        return Err("headers that begin with mesh- are the mesh's own and never an application's");
    }
    if text == "host" {
        return Err("the host of a request has a key of its own: `host`");
    }
    Ok(())
}

fn check_header_text(text: &str) -> Result<(), &'static str> {
    if !(1..=256).contains(&text.len()) {
        return Err("it has to have 1 to 256 characters");
    }
    if !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err("only ASCII may stand in it");
    }
    if text.trim() != text {
        return Err("it may not begin or end with a space");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_and_stars_are_whole_segments() {
        for good in ["/", "/**", "/v1/*/items/**", "/v1/", "/caf\u{e9}", "/a b"] {
            assert!(good.parse::<PathPattern>().is_ok(), "{good}");
        }
        for bad in [
            "", "v1", "//", "/a//b", "/../x", "/./x", "/a%2fb", "/**/x", "/a*", "/a/***", "/a?b",
            "/a;b", "/a\\b", "/a ", "/**/", "/a//",
        ] {
            assert!(bad.parse::<PathPattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn headers_hosts_and_methods_are_written_in_one_way() {
        for (header, is_right) in [
            ("x-user", true),
            ("X-User", false),
            ("mesh-call", false),
            ("host", false),
        ] {
            assert_eq!(header.parse::<HeaderName>().is_ok(), is_right, "{header}");
        }
        for (host, is_right) in [
            ("a.example", true),
            ("*.a", true),
            ("A", false),
            ("a:80", false),
            ("*", false),
        ] {
            assert_eq!(host.parse::<HostPattern>().is_ok(), is_right, "{host}");
        }
        for (method, is_right) in [
            ("GET", true),
            ("get", false),
            ("M-SEARCH", true),
            ("*", false),
            ("", false),
        ] {
            assert_eq!(method.parse::<Method>().is_ok(), is_right, "{method}");
        }
    }
}
