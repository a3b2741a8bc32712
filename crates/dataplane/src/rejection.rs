//! What one mesh daemon tells another, inside their tunnel, of a packet that its rules deny, so that
//! the caller's application fails at once and its operator reads why.
//!
//! ```text
//! offset size
//!  0     1    0xf1: no IP version; the rest is control, in its first version
//!  1     1    1: a rejection
//!  2     1    4 or 6: the family of the denied packet
//!  3     1    its IP protocol, IANA number
//!  4     8    version of the policy that the rule stands in, big endian; 0 without a rule
//! 12     1    bytes of the rule's id; 0: no rule allows the packet
//! 13     1    bytes of the quote
//! 14          the rule's id, then the quote: the start of the packet behind its IP headers
//! ```
//!
//! What lies behind is the tunnel's padding. Only a deny is named: denies are known to every host.
//! Without one, the answer says that the packet is not allowed and nothing else of this host.

use std::net::IpAddr;

use model::address::HostAddresses;
use model::ids::PolicyVersion;
use model::name::RuleId;
use model::rule::ip_protocol::UDP;

use crate::checksum::Sum;
use crate::packet::Headers;

pub(crate) const CONTROL: u8 = 0xf1;
const REJECTION: u8 = 1;
const HEADER_LEN: usize = 14;
const TTL: u8 = 64; // IANA's recommendation
/// Enough for every TCP header (RFC 9293 3.1), and for what ICMP has to quote (RFC 792).
const QUOTE_LEN_MAX: usize = 64;

/// Returns whether an opened packet is no IP packet but what the peer's daemon says.
#[inline]
pub(crate) fn is_control(plaintext: &[u8]) -> bool {
    plaintext.first() == Some(&CONTROL)
}

/// A packet that was denied, and by which rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection<'a> {
    pub(crate) is_ipv6: bool,
    pub(crate) ip_protocol: u8,
    /// The deny that matched, and the version of the policy that it stands in.
    pub(crate) rule: Option<(RuleId, PolicyVersion)>,
    /// The start of the packet behind its IP headers.
    pub(crate) quote: &'a [u8],
}

impl<'a> Rejection<'a> {
    pub(crate) fn new(
        headers: &Headers,
        packet: &'a [u8],
        rule: Option<(RuleId, PolicyVersion)>,
    ) -> Self {
        let upper = &packet[headers.upper_start..headers.length];
        Self {
            is_ipv6: headers.source.is_ipv6(),
            ip_protocol: headers.ip_protocol,
            rule,
            quote: &upper[..upper.len().min(QUOTE_LEN_MAX)],
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let (id, version) = match &self.rule {
            Some((id, version)) => (id.as_str(), version.0),
            None => ("", 0),
        };
        let family = if self.is_ipv6 { 6 } else { 4 };
        let mut bytes = vec![CONTROL, REJECTION, family, self.ip_protocol];
        bytes.extend(version.to_be_bytes());
        for part in [id.len(), self.quote.len()] {
            bytes.push(u8::try_from(part).expect("ids and quotes have at most 64 bytes"));
        }
        bytes.extend_from_slice(id.as_bytes());
        bytes.extend_from_slice(self.quote);
        bytes
    }

    /// Reads what a peer sent; `None` when this version does not understand it.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>()?;
        let is_ipv6 = match header[..3] {
            [CONTROL, REJECTION, 4] => false,
            [CONTROL, REJECTION, 6] => true,
            _ => return None,
        };
        let version = header[4..12].try_into().expect("eight bytes of a header");
        let version = PolicyVersion(u64::from_be_bytes(version));
        let (id, rest) = rest.split_at_checked(usize::from(header[12]))?;
        let quote = rest.get(..usize::from(header[13]))?;
        let rule = match id {
            [] => None,
            id => Some((std::str::from_utf8(id).ok()?.parse().ok()?, version)),
        };
        (quote.len() <= QUOTE_LEN_MAX).then_some(Self {
            is_ipv6,
            ip_protocol: header[3],
            rule,
            quote,
        })
    }

    /// Returns the packet that was denied as far as it is quoted, as if `from` had sent it to `to`
    /// in one short piece. The headers of what a peer made up may contradict each other.
    pub(crate) fn packet(&self, from: HostAddresses, to: HostAddresses) -> Vec<u8> {
        let mut packet = match self.is_ipv6 {
            true => self.ip_header(from.v6.into(), to.v6.into()),
            false => self.ip_header(from.v4.into(), to.v4.into()),
        };
        let upper_start = packet.len();
        packet.extend_from_slice(self.quote);
        let length = u16::try_from(self.quote.len()).expect("quotes are short");
        if let (UDP, Some(field)) = (
            self.ip_protocol,
            packet.get_mut(upper_start + 4..upper_start + 6),
        ) {
            field.copy_from_slice(&length.to_be_bytes());
        }
        packet
    }

    fn ip_header(&self, from: IpAddr, to: IpAddr) -> Vec<u8> {
        let quote_len = u16::try_from(self.quote.len()).expect("quotes are short");
        match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut header = vec![0; 20];
                header[0] = 0x45;
                header[2..4].copy_from_slice(&(20 + quote_len).to_be_bytes());
                (header[8], header[9]) = (TTL, self.ip_protocol);
                header[12..16].copy_from_slice(&from.octets());
                header[16..20].copy_from_slice(&to.octets());
                let checksum = Sum::default().add(&header).finish();
                header[10..12].copy_from_slice(&checksum);
                header
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut header = vec![0; 40];
                header[0] = 0x60;
                header[4..6].copy_from_slice(&quote_len.to_be_bytes());
                (header[6], header[7]) = (self.ip_protocol, TTL);
                header[8..24].copy_from_slice(&from.octets());
                header[24..40].copy_from_slice(&to.octets());
                header
            }
            _ => unreachable!("both addresses are of one family"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Fragment, Upper};

    const FROM: HostAddresses = HostAddresses {
        v4: std::net::Ipv4Addr::new(10, 0, 0, 1),
        v6: std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1),
    };
    const TO: HostAddresses = HostAddresses {
        v4: std::net::Ipv4Addr::new(10, 0, 0, 2),
        v6: std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2),
    };

    fn rejection(quote: &[u8]) -> Rejection<'_> {
        Rejection {
            is_ipv6: false,
            ip_protocol: UDP,
            rule: Some(("no-syslog".parse().unwrap(), PolicyVersion(7))),
            quote,
        }
    }

    #[test]
    fn what_was_written_is_read_back_whatever_pads_it() {
        let quote = [0, 5, 2, 2, 0, 8, 0, 0];
        for rule in [rejection(&quote).rule, None] {
            let written = Rejection {
                rule,
                ..rejection(&quote)
            };
            let mut bytes = written.encode();
            bytes.resize(160, 0);
            assert!(is_control(&bytes));
            assert_eq!(Rejection::decode(&bytes), Some(written));
        }
    }

    #[test]
    fn a_denial_by_default_has_no_word_of_the_host() {
        let unnamed = Rejection {
            rule: None,
            ..rejection(b"12345678")
        };
        assert_eq!(unnamed.encode()[4..13], [0; 9]);
        assert_eq!(unnamed.encode()[14..], *b"12345678");
    }

    #[test]
    fn what_is_cut_short_or_unknown_or_too_long_is_not_read() {
        let bytes = rejection(b"12345678").encode();
        for length in 0..bytes.len() {
            assert_eq!(Rejection::decode(&bytes[..length]), None, "{length}");
        }
        for (at, value) in [(0, 0xf2), (1, 2), (2, 5), (14, b'`'), (14, 0xff)] {
            let mut other = bytes.clone();
            other[at] = value;
            assert_eq!(Rejection::decode(&other), None, "byte {at}");
        }
        assert_eq!(Rejection::decode(&rejection(&[0; 65]).encode()), None);
    }

    #[test]
    fn the_quoted_packet_reads_as_a_packet_of_its_own() {
        let quote = [0, 5, 2, 2, 0xff, 0xff, 0, 0, 1, 2, 3];
        for is_ipv6 in [false, true] {
            let rejection = Rejection {
                is_ipv6,
                ..rejection(&quote)
            };
            let packet = rejection.packet(FROM, TO);
            let headers = Headers::parse(&packet).unwrap();
            assert!(FROM.contains(headers.source) && TO.contains(headers.destination));
            assert_eq!(headers.fragment, Fragment::Whole);
            let upper = Upper::Udp {
                source_port: 5,
                destination_port: 0x202,
            };
            assert_eq!((headers.upper, headers.length), (upper, packet.len()));
        }
    }
}
