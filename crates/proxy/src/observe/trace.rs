//! W3C trace context: which trace a call belongs to, so that its parts on all hosts, and the spans of
//! the programs at both ends, are found together.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::marks::CallId;
use crate::report::Side;

/// `version-trace-parent-flags` (W3C Trace Context, 3.2).
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The flag that says that the trace is recorded.
const SAMPLED: u8 = 1;

/// A call's place in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Of the whole trace, not 0.
    pub trace_id: u128,
    /// Of this part of the call, not 0.
    pub span_id: u64,
    /// Of who called; `None`: the trace begins here.
    pub parent_id: Option<u64>,
    /// Whether it is recorded.
    pub sampled: bool,
}

impl Trace {
    /// Goes on with the trace that a request belongs to, or begins one. Ids follow from the call's:
    /// nobody has to keep them.
    pub(crate) fn of(headers: &HeaderMap, call: CallId, side: Side) -> Self {
        let span_id = match side {
            Side::Source => call.number(),
            Side::Destination => mix(call.number() ^ 0xd6e8_feb8_6659_fd93),
        };
        let span_id = span_id.max(1);
        match headers.get(TRACEPARENT).and_then(|it| parse(it.as_bytes())) {
            Some((trace_id, parent_id, flags)) => Self {
                trace_id,
                span_id,
                parent_id: Some(parent_id),
                sampled: flags & SAMPLED != 0,
            },
            None => Self {
                trace_id: (u128::from(mix(call.number())) << 64 | u128::from(span_id)).max(1),
                span_id,
                parent_id: None,
                sampled: true,
            },
        }
    }

    /// Tells the next of it.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        let mut text = String::with_capacity(55);
        let flags = u8::from(self.sampled);
        write!(
            text,
            "00-{:032x}-{:016x}-{flags:02x}",
            self.trace_id, self.span_id
        )
        .expect("a String takes everything");
        let value = HeaderValue::from_str(&text).expect("digits may stand in a header");
        headers.insert(TRACEPARENT, value);
    }
}

/// Reads trace, parent and flags. Versions to come begin like this one.
fn parse(value: &[u8]) -> Option<(u128, u64, u8)> {
    let text = std::str::from_utf8(value).ok()?;
    let mut parts = text.split('-');
    let (version, trace) = (parts.next()?, parts.next()?);
    let (parent, flags) = (parts.next()?, parts.next()?);
    let is_hex = |text: &str, digits: usize| {
        text.len() == digits
            && text
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let is_whole =
        is_hex(version, 2) && is_hex(trace, 32) && is_hex(parent, 16) && is_hex(flags, 2);
    let has_more = parts.next().is_some();
    if !is_whole || version == "ff" || (version == "00" && has_more) {
        return None;
    }
    let trace = u128::from_str_radix(trace, 16).ok()?;
    let parent = u64::from_str_radix(parent, 16).ok()?;
    let flags = u8::from_str_radix(flags, 16).ok()?;
    (trace != 0 && parent != 0).then_some((trace, parent, flags))
}

/// The finaliser of SplitMix64.
const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn with(traceparent: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_str(traceparent).unwrap());
        headers
    }

    #[test]
    fn a_trace_goes_on_from_program_to_source_to_destination() {
        let call = CallId::from_number(7);
        let mut headers = with(GIVEN);
        let source = Trace::of(&headers, call, Side::Source);
        assert_eq!(source.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(source.parent_id, Some(0x00f0_67aa_0ba9_02b7));
        source.write(&mut headers);
        let destination = Trace::of(&headers, call, Side::Destination);
        assert_eq!(destination.trace_id, source.trace_id);
        assert_eq!(destination.parent_id, Some(source.span_id));
        assert_ne!(destination.span_id, source.span_id);
        assert!(destination.sampled);
    }

    #[test]
    fn what_is_not_recorded_stays_so_and_what_belongs_to_no_trace_begins_one() {
        let call = CallId::from_number(7);
        let unsampled = with(&GIVEN.replace("-01", "-00"));
        assert!(!Trace::of(&unsampled, call, Side::Source).sampled);
        let begun = Trace::of(&HeaderMap::new(), call, Side::Source);
        assert!(begun.sampled && begun.parent_id.is_none() && begun.trace_id != 0);
    }

    #[test]
    fn what_cannot_be_read_begins_a_trace() {
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
        let later = GIVEN.replacen("00", "01", 1) + "-more";
        assert!(parse(later.as_bytes()).is_some(), "a version to come");
    }
}
