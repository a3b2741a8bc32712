//! What the fields of many messages have in common: fixed lengths, bounds, names, texts for people.

use std::fmt::Display;
use std::str::FromStr;

use super::WireError;
use crate::address::split_host_port;
use crate::limits::Limits;

/// A field that must be there.
pub(super) fn required<T>(field: &'static str, value: Option<T>) -> Result<T, WireError> {
    value.ok_or_else(|| WireError::new(field, "it is missing"))
}

/// An identifier, key or digest of fixed length.
pub(super) fn id<'a, T>(field: &'static str, bytes: &'a [u8]) -> Result<T, WireError>
where
    T: TryFrom<&'a [u8], Error: Display>,
{
    T::try_from(bytes).map_err(|error| WireError::new(field, error.to_string()))
}

/// An identifier or digest of fixed length, or nothing.
pub(super) fn optional_id<'a, T>(
    field: &'static str,
    bytes: &'a [u8],
) -> Result<Option<T>, WireError>
where
    T: TryFrom<&'a [u8], Error: Display>,
{
    if bytes.is_empty() {
        Ok(None)
    } else {
        id(field, bytes).map(Some)
    }
}

/// Bytes of fixed length.
pub(super) fn array<const N: usize>(
    field: &'static str,
    bytes: &[u8],
) -> Result<[u8; N], WireError> {
    bytes
        .try_into()
        .map_err(|_| WireError::new(field, format!("{} bytes, {N} were expected", bytes.len())))
}

/// Bytes of any length from 1 to `max`.
pub(super) fn blob(field: &'static str, bytes: Vec<u8>, max: usize) -> Result<Vec<u8>, WireError> {
    if bytes.is_empty() {
        return Err(WireError::new(field, "it is empty"));
    }
    at_most(field, bytes.len(), max)?;
    Ok(bytes)
}

/// A name, address or prefix in its own notation.
pub(super) fn parsed<T>(field: &'static str, text: &str) -> Result<T, WireError>
where
    T: FromStr<Err: Display>,
{
    text.parse()
        .map_err(|error: T::Err| WireError::new(field, error.to_string()))
}

/// A name or other text in its own notation, or nothing, carried as an empty text.
pub(super) fn optional<T>(field: &'static str, text: &str) -> Result<Option<T>, WireError>
where
    T: FromStr<Err: Display>,
{
    if text.is_empty() {
        Ok(None)
    } else {
        parsed(field, text).map(Some)
    }
}

/// A count or length with an upper bound.
pub(super) fn at_most(field: &'static str, count: usize, max: usize) -> Result<(), WireError> {
    if count > max {
        return Err(WireError::new(
            field,
            format!("{count}, at most {max} are allowed"),
        ));
    }
    Ok(())
}

/// A list with an upper bound whose items are converted one by one.
pub(super) fn list<A, B>(
    field: &'static str,
    items: Vec<A>,
    max: usize,
    convert: impl FnMut(A) -> Result<B, WireError>,
) -> Result<Vec<B>, WireError> {
    at_most(field, items.len(), max)?;
    items.into_iter().map(convert).collect()
}

/// A list as `list`, with at least one item.
pub(super) fn some_list<A, B>(
    field: &'static str,
    items: Vec<A>,
    max: usize,
    convert: impl FnMut(A) -> Result<B, WireError>,
) -> Result<Vec<B>, WireError> {
    if items.is_empty() {
        return Err(WireError::new(field, "it is empty, at least one is needed"));
    }
    list(field, items, max, convert)
}

/// A port number, 0 included.
pub(super) fn port(field: &'static str, value: u32) -> Result<u16, WireError> {
    u16::try_from(value).map_err(|_| WireError::new(field, format!("{value} is not a port")))
}

/// A port that is told only where there is one.
pub(super) fn port_if_told(field: &'static str, value: u32) -> Result<Option<u16>, WireError> {
    port(field, value).map(|port| (port != 0).then_some(port))
}

/// A coordinator's address.
pub(super) fn host_port(field: &'static str, text: String) -> Result<String, WireError> {
    if split_host_port(&text).is_none() {
        return Err(WireError::new(
            field,
            format!("{:?} is not host:port", clipped(&text)),
        ));
    }
    Ok(text)
}

/// A chain of certificates.
pub(super) fn chain(
    field: &'static str,
    certificates: Vec<Vec<u8>>,
) -> Result<Vec<Vec<u8>>, WireError> {
    some_list(field, certificates, Limits::CHAIN_LENGTH, |certificate| {
        blob(field, certificate, Limits::CERTIFICATE_BYTES)
    })
}

/// A text for people: bounded, and nothing in it steers a terminal.
pub(super) fn text(field: &'static str, text: String) -> Result<String, WireError> {
    at_most(field, text.chars().count(), Limits::TEXT_CHARS)?;
    if text.chars().any(char::is_control) {
        return Err(WireError::new(field, "it has control characters"));
    }
    Ok(text)
}

/// A text for people that may be absent, carried as an empty one.
pub(super) fn optional_text(
    field: &'static str,
    value: String,
) -> Result<Option<String>, WireError> {
    if value.is_empty() {
        Ok(None)
    } else {
        text(field, value).map(Some)
    }
}

/// Makes a text such that `text` accepts it: cut at the bound, control characters made spaces.
pub(super) fn clipped(text: &str) -> String {
    text.chars()
        .take(Limits::TEXT_CHARS)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Makes a text that says why something failed; an empty one would mean that it did not.
pub(super) fn reason(text: &str) -> String {
    if text.is_empty() {
        "no reason given".to_owned()
    } else {
        clipped(text)
    }
}
