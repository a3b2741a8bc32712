//! What mesh daemons ask each other, inside their tunnel, to find how large a datagram may be: a
//! probe of just that size, which no router may cut, and its answer, which is small.
//!
//! ```text
//! offset size
//!  0     1    0xf1: control, see `rejection`
//!  1     1    2: a probe; 3: its answer
//!  2     2    zero
//!  4     4    the asker's number of it, big endian
//!  8     2    bytes of the probe as it lies in the tunnel, big endian
//! 10          zeros up to that size; nothing in an answer
//! ```

use crate::rejection::CONTROL;

const PROBE: u8 = 2;
const ANSWER: u8 = 3;

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeMessage {
    Probe { id: u32, size: u16 },
    Answer { id: u32, size: u16 },
}

impl ProbeMessage {
    /// Bytes of an answer, and of the smallest probe.
    pub(crate) const LEN: usize = 10;

    /// Returns its bytes; those of a larger probe go on with zeros.
    pub(crate) const fn encode(self) -> [u8; Self::LEN] {
        let (kind, id, size) = match self {
            Self::Probe { id, size } => (PROBE, id, size),
            Self::Answer { id, size } => (ANSWER, id, size),
        };
        let ([a, b, c, d], [e, f]) = (id.to_be_bytes(), size.to_be_bytes());
        [CONTROL, kind, 0, 0, a, b, c, d, e, f]
    }

    /// Reads what a peer sent; `None` when it is neither, or a probe of which a part is missing.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let [CONTROL, kind, _, _, a, b, c, d, e, f] = *bytes.first_chunk::<{ Self::LEN }>()? else {
            return None;
        };
        let (id, size) = (u32::from_be_bytes([a, b, c, d]), u16::from_be_bytes([e, f]));
        match kind {
            PROBE if bytes.len() >= usize::from(size) => Some(Self::Probe { id, size }),
            ANSWER => Some(Self::Answer { id, size }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_counts_only_when_all_of_it_came() {
        let probe = ProbeMessage::Probe { id: 7, size: 1340 };
        let mut bytes = probe.encode().to_vec();
        assert_eq!(ProbeMessage::decode(&bytes), None);
        bytes.resize(1340, 0);
        assert_eq!(ProbeMessage::decode(&bytes), Some(probe));
        assert_eq!(ProbeMessage::decode(&bytes[..1339]), None);
    }

    #[test]
    fn an_answer_is_read_whatever_pads_it_and_a_later_kind_is_not() {
        let answer = ProbeMessage::Answer { id: 7, size: 8920 };
        let mut bytes = answer.encode().to_vec();
        bytes.resize(16, 0);
        assert_eq!(ProbeMessage::decode(&bytes), Some(answer));
        bytes[1] = 4;
        assert_eq!(ProbeMessage::decode(&bytes), None);
        assert_eq!(ProbeMessage::decode(&bytes[..9]), None);
    }
}
