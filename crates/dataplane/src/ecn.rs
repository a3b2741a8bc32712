//! Explicit congestion notification through the tunnel (RFC 6040, normal mode): the inner mark is
//! copied out when sealing, and a mark made on the way is copied in when opening.

use crate::checksum::updated;
use crate::drops::DropReason;

const ECT_1: u8 = 0b01; // RFC 3168 5
const ECT_0: u8 = 0b10;
const CONGESTION: u8 = 0b11;
const NOT_ECN_CAPABLE: u8 = 0b00;

/// Returns the mark of the opened packet (RFC 6040 4.2, figure 4).
///
/// # Errors
/// A packet that cannot carry the mark is dropped, which tells its sender the same.
pub(crate) fn combine(inner: u8, outer: u8) -> Result<u8, DropReason> {
    match (inner, outer) {
        (NOT_ECN_CAPABLE, CONGESTION) => Err(DropReason::CongestionUnmarkable),
        (ECT_0 | ECT_1, CONGESTION) => Ok(CONGESTION),
        (ECT_0, ECT_1) => Ok(ECT_1),
        (inner, _) => Ok(inner),
    }
}

/// Writes the mark into a packet whose headers were read before.
pub(crate) fn set(packet: &mut [u8], ecn: u8) {
    if packet[0] >> 4 == 6 {
        packet[1] = packet[1] & !0x30 | ecn << 4;
        return;
    }
    let before = [packet[0], packet[1]];
    packet[1] = packet[1] & !0b11 | ecn;
    let checksum = updated([packet[10], packet[11]], before, [packet[0], packet[1]]);
    packet[10..12].copy_from_slice(&checksum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::Sum;

    #[test]
    fn marks_combine_as_rfc_6040_figure_4() {
        let (not, ect1, ect0, ce) = (NOT_ECN_CAPABLE, ECT_1, ECT_0, CONGESTION);
        let rows = [
            (not, [Some(not), Some(not), Some(not), None]),
            (ect0, [Some(ect0), Some(ect0), Some(ect1), Some(ce)]),
            (ect1, [Some(ect1), Some(ect1), Some(ect1), Some(ce)]),
            (ce, [Some(ce); 4]),
        ];
        for (inner, expected) in rows {
            for (outer, expected) in [not, ect0, ect1, ce].into_iter().zip(expected) {
                assert_eq!(
                    combine(inner, outer).ok(),
                    expected,
                    "inner {inner} outer {outer}"
                );
            }
        }
    }

    #[test]
    fn a_mark_keeps_the_ipv4_checksum_right() {
        let mut packet = [0u8; 20];
        packet[0] = 0x45;
        packet[1] = 0b1010_0010;
        packet[8] = 64;
        let checksum = Sum::default().add(&packet).finish();
        packet[10..12].copy_from_slice(&checksum);
        set(&mut packet, CONGESTION);
        assert_eq!(packet[1], 0b1010_0011);
        assert_eq!(Sum::default().add(&packet).finish(), [0, 0]);
    }

    #[test]
    fn a_mark_leaves_the_rest_of_an_ipv6_traffic_class() {
        let mut packet = [0u8; 40];
        (packet[0], packet[1]) = (0x6a, 0xbc);
        set(&mut packet, ECT_0);
        assert_eq!((packet[0], packet[1]), (0x6a, 0xac));
    }
}
