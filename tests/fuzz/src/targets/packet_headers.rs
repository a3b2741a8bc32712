//! The headers of an overlay packet: read without looking outside of it, the same again without
//! what lies behind its end.

use dataplane::packet::{Fragment, Headers, Upper};

use crate::{Seed, packets};

/// Reads bytes as a packet.
pub fn target(bytes: &[u8]) {
    let Ok(headers) = Headers::parse(bytes) else {
        return;
    };
    assert!(headers.length <= bytes.len(), "{headers:?}");
    assert!(headers.upper_start <= headers.length, "{headers:?}");
    assert!(headers.ecn <= 0b11, "{headers:?}");
    assert_eq!(headers.source.is_ipv4(), headers.destination.is_ipv4());
    let without_padding = Headers::parse(&bytes[..headers.length]);
    assert_eq!(without_padding, Ok(headers), "padding changes nothing");
    if let Fragment::Later { .. } = headers.fragment {
        assert_eq!(headers.upper, Upper::Opaque, "a later piece has no ports");
    }
}

/// Packets of every kind.
pub(crate) fn seeds() -> Vec<Seed> {
    packets::seeds()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_seeds_are_good_packets() {
        let bad: Vec<_> = seeds()
            .into_iter()
            .filter(|seed| Headers::parse(&seed.bytes).is_err())
            .map(|seed| seed.name)
            .collect();
        assert_eq!(
            bad,
            ["out-fragment-tiny", "in-fragment-tiny"],
            "attacks that a parser has to refuse"
        );
    }
}
