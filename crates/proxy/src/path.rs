//! The path of a request as policy reads it: decoded once, without its query. What two programs
//! could take for two different paths is refused, so that no program sees another path than the one
//! that was decided on.

use std::borrow::Cow;

/// Why a path cannot be decided on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AmbiguousPath {
    /// It is neither `*` nor does it begin with a slash.
    #[error("it does not begin with a slash")]
    NotAbsolute,
    /// A segment is empty and not the last.
    #[error("it holds //")]
    EmptySegment,
    /// A segment is `.` or `..`.
    #[error("it holds . or .. as a segment")]
    DotSegment,
    /// `\`, which some take for a slash.
    #[error("it holds a backslash")]
    Backslash,
    /// `;`, behind which some ignore the rest of a segment.
    #[error("it holds a semicolon")]
    Semicolon,
    /// A slash that is escaped: one segment or two.
    #[error("it holds an escaped slash")]
    EscapedSlash,
    /// A control character, escaped or not.
    #[error("it holds a control character")]
    Control,
    /// A percent sign without two hexadecimal digits.
    #[error("it holds a broken escape")]
    BrokenEscape,
    /// What is escaped is an escape again.
    #[error("it is escaped twice")]
    EscapedTwice,
    /// Not UTF-8 once it is decoded.
    #[error("it is not UTF-8")]
    NotText,
}

/// Decodes a path for policy. It borrows what needs no decoding.
///
/// # Errors
/// The path could mean more than one thing.
pub(crate) fn normalise(raw: &str) -> Result<Cow<'_, str>, AmbiguousPath> {
    if raw == "*" {
        return Ok(Cow::Borrowed(raw));
    }
    if !raw.starts_with('/') {
        return Err(AmbiguousPath::NotAbsolute);
    }
    let decoded = if raw.contains('%') {
        Cow::Owned(decode(raw)?)
    } else {
        Cow::Borrowed(raw)
    };
    check_characters(&decoded)?;
    check_segments(&decoded)?;
    Ok(decoded)
}

fn decode(raw: &str) -> Result<String, AmbiguousPath> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'%' {
            decoded.push(byte);
            rest = after;
            continue;
        }
        let value = escape(after).ok_or(AmbiguousPath::BrokenEscape)?;
        if value == b'/' {
            return Err(AmbiguousPath::EscapedSlash);
        }
        decoded.push(value);
        rest = &after[2..];
        if value == b'%' && escape(rest).is_some() {
            return Err(AmbiguousPath::EscapedTwice);
        }
    }
    String::from_utf8(decoded).map_err(|_| AmbiguousPath::NotText)
}

/// Returns what the two hexadecimal digits at the front stand for.
fn escape(digits: &[u8]) -> Option<u8> {
    let value = |digit: u8| char::from(digit).to_digit(16);
    let high = value(*digits.first()?)?;
    let low = value(*digits.get(1)?)?;
    u8::try_from(high * 16 + low).ok()
}

fn check_characters(path: &str) -> Result<(), AmbiguousPath> {
    for character in path.chars() {
        match character {
            '\\' => return Err(AmbiguousPath::Backslash),
            ';' => return Err(AmbiguousPath::Semicolon),
            // Those of Unicode, too: terminals obey U+009B as they do ESC [.
            '\0'..' ' | '\x7f'..='\u{9f}' => return Err(AmbiguousPath::Control),
            _ => {}
        }
    }
    Ok(())
}

fn check_segments(path: &str) -> Result<(), AmbiguousPath> {
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "" if segments.peek().is_some() => return Err(AmbiguousPath::EmptySegment),
            "." | ".." => return Err(AmbiguousPath::DotSegment),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_path_is_read_as_it_is() {
        for path in [
            "/",
            "*",
            "/v1/orders",
            "/v1/orders/",
            "/a.b/..c/.d",
            "/é\u{a0}",
            "/a:b@c,d=e",
        ] {
            assert!(
                matches!(normalise(path), Ok(Cow::Borrowed(same)) if same == path),
                "{path}"
            );
        }
    }

    #[test]
    fn escapes_are_decoded_once() {
        assert_eq!(normalise("/%76%31/a%20b").unwrap(), "/v1/a b");
        assert_eq!(normalise("/caf%C3%A9").unwrap(), "/café");
        assert_eq!(normalise("/100%25").unwrap(), "/100%");
        assert_eq!(normalise("/100%25x").unwrap(), "/100%x");
    }

    #[test]
    fn what_could_mean_two_paths_is_refused() {
        for (path, why) in [
            ("", AmbiguousPath::NotAbsolute),
            ("admin", AmbiguousPath::NotAbsolute),
            ("//admin", AmbiguousPath::EmptySegment),
            ("/v1//admin", AmbiguousPath::EmptySegment),
            ("/v1/../admin", AmbiguousPath::DotSegment),
            ("/v1/..", AmbiguousPath::DotSegment),
            ("/./admin", AmbiguousPath::DotSegment),
            ("/v1/%2e%2e/admin", AmbiguousPath::DotSegment),
            ("/v1/.%2E/admin", AmbiguousPath::DotSegment),
            ("/v1%2fadmin", AmbiguousPath::EscapedSlash),
            ("/v1%5cadmin", AmbiguousPath::Backslash),
            ("/v1\\admin", AmbiguousPath::Backslash),
            ("/v1/..;/admin", AmbiguousPath::Semicolon),
            ("/admin;x/y", AmbiguousPath::Semicolon),
            ("/admin%3bx", AmbiguousPath::Semicolon),
            ("/admin%00", AmbiguousPath::Control),
            ("/admin%0d%0a", AmbiguousPath::Control),
            ("/\u{9b}2J", AmbiguousPath::Control),
            ("/%C2%80", AmbiguousPath::Control),
            ("/%c2%9f", AmbiguousPath::Control),
            ("/%", AmbiguousPath::BrokenEscape),
            ("/%4", AmbiguousPath::BrokenEscape),
            ("/%zz", AmbiguousPath::BrokenEscape),
            ("/%+1", AmbiguousPath::BrokenEscape),
            ("/%252e%252e/admin", AmbiguousPath::EscapedTwice),
            ("/%2561dmin", AmbiguousPath::EscapedTwice),
            ("/%ff", AmbiguousPath::NotText),
            ("/%c0%ae%c0%ae/admin", AmbiguousPath::NotText),
        ] {
            assert_eq!(normalise(path), Err(why), "{path}");
        }
    }
}
