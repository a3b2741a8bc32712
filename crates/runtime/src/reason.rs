//! Why an operator does something, as it goes with a request: a header that any text fits in.

use model::limits::Limits;

/// The header's name.
pub const HEADER: &str = "mesh-reason";

/// Writes a reason for the header: what is not plain ASCII as `%XX`, byte for byte (RFC 3986 2.1).
pub fn encode(reason: &str) -> String {
    let mut text = String::with_capacity(reason.len());
    for byte in reason.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// Reads a reason from the header; `None`: it is none, or too long.
pub fn decode(header: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(header.len());
    let mut rest = header.iter().copied();
    while let Some(byte) = rest.next() {
        let decoded = match byte {
            b'%' => hex(rest.next()?)? << 4 | hex(rest.next()?)?,
            b' '..=b'~' => byte,
            _ => return None,
        };
        bytes.push(decoded);
    }
    let text = String::from_utf8(bytes).ok()?;
    let fits = text.chars().count() <= Limits::TEXT_CHARS;
    fits.then_some(text)
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_survive_the_header() {
        for reason in ["", "plain", "100 % größer\nand \u{1f980}", "%41"] {
            let header = encode(reason);
            assert!(header.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            assert_eq!(decode(header.as_bytes()).as_deref(), Some(reason));
        }
    }

    #[test]
    fn what_is_no_reason_is_none() {
        for header in [&b"%"[..], b"%4", b"%zz", b"%ff", b"\xff", b"a\nb"] {
            assert_eq!(decode(header), None, "{header:?}");
        }
        let long = "x".repeat(Limits::TEXT_CHARS + 1);
        assert_eq!(decode(long.as_bytes()), None);
    }
}
