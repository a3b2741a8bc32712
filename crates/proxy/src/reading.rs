//! What the proxy makes of bytes from elsewhere, for those who feed it with damaged ones
//! (`tests/fuzz`). Nothing else is to use it.

use http::HeaderMap;
use http::request::Parts;

use crate::detection;
use crate::framing::{Framing, Suspect};
use crate::head;
use crate::marks::{CallId, Marks};
use crate::observe::Trace;
use crate::path;
use crate::report::Side;

/// Returns the path as policy reads it; `None`: it could mean more than one thing.
pub fn path(raw: &str) -> Option<String> {
    path::normalise(raw).ok().map(|path| path.into_owned())
}

/// Brings a request into the form in which a program gets it; `None`: it is refused.
pub fn admitted(mut parts: Parts) -> Option<Parts> {
    head::admit(&mut parts).ok()?;
    head::strip_mesh(&mut parts.headers);
    head::strip_connection(&mut parts.headers);
    Some(parts)
}

/// Returns what a connection speaks that begins so; `None`: more of it is needed.
pub fn spoken(first: &[u8]) -> Option<String> {
    detection::spoken(first).map(|spoken| format!("{spoken:?}"))
}

/// Returns the number of the first request that says its length in two ways, as it is noticed in
/// bytes that come in these pieces.
pub fn suspected<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Option<u32> {
    let suspect = Suspect::default();
    let mut framing = Framing::new(suspect.clone());
    for piece in pieces {
        framing.read(piece);
    }
    suspect.number()
}

/// Reads what a host says of a call, and writes it anew; `None`: it is not whole.
pub fn marks(headers: &HeaderMap, is_connect: bool) -> Option<HeaderMap> {
    let marks = Marks::read(headers, is_connect)?;
    let mut written = HeaderMap::new();
    marks.write(&mut written);
    Some(written)
}

/// Goes on with the trace that a request belongs to, or begins one.
pub fn traced(mut headers: HeaderMap) -> HeaderMap {
    let trace = Trace::of(&headers, CallId::from_number(7), Side::Source);
    trace.write(&mut headers);
    headers
}
