//! A bequest as bytes. All numbers are big endian; a reader refuses what it does not know, and what
//! is left over.
//!
//! ```text
//! offset  size  header
//!      0     8  "meshleft"
//!      8     2  format, BEQUEST_FORMAT
//!     10    20  own overlay addresses, IPv4 then IPv6; all zero: none
//!     30    12  date of the last handshake: seconds (8), nanoseconds (4) since 1970
//!     42    12  dates are reserved until
//!     54     4  peers; then each of them, and behind it its flows
//!
//! offset  size  peer
//!      0    32  X25519 public key
//!     32    20  overlay addresses
//!     52    19  path: family (0 none, 4, 6), address (16, IPv4 in the first 4), port (2)
//!     71    17  path: our own address: family, address
//!     88    12  TAI64N of its last initiation; all zero: none
//!    100     8  bytes received
//!    108     8  bytes sent
//!    116     1  1: packets could be sealed for it, or wait for that
//!    117     4  flows
//!
//! offset  size  flow
//!      0     2  local port
//!      2     2  remote port
//!      4     1  IP protocol
//!      5     1  bit 0 IPv6, bit 1 opened inbound, bit 2 first seen inbound, bits 4 and 5 the phase
//!      6     4  milliseconds since its last packet
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use model::address::HostAddresses;
use model::key::WireguardKey;
use model::limits::Limits;
use model::rule::Direction;
use model::time::UnixTime;

use super::{Bequest, FlowBequest, FlowPhase, PeerBequest};
use crate::outbox::Path;

/// The layout that this version reads and writes.
pub const BEQUEST_FORMAT: u16 = 1;

const MAGIC: &[u8; 8] = b"meshleft";
const HEADER_LEN: usize = 58;
const PEER_LEN: usize = 121;
const FLOW_LEN: usize = 10;

const IPV6: u8 = 1;
const OPENED_INBOUND: u8 = 1 << 1;
const FIRST_SEEN_INBOUND: u8 = 1 << 2;
const PHASE_SHIFT: u8 = 4;
const KNOWN_FLAGS: u8 = IPV6 | OPENED_INBOUND | FIRST_SEEN_INBOUND | 0b11 << PHASE_SHIFT;

/// Bytes that are no bequest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BequestError {
    /// They begin otherwise.
    #[error("it is no list of flows")]
    Foreign,
    /// Another version wrote them.
    #[error("its format is {0}, this version reads {BEQUEST_FORMAT}")]
    Format(u16),
    /// There are fewer than they say.
    #[error("it ends too early")]
    Short,
    /// There are more than they say.
    #[error("it has bytes behind its end")]
    Long,
    /// There are more peers than a fleet may have.
    #[error("it has {0} peers, more than a fleet may have")]
    Peers(u32),
    /// A field has a value that means nothing.
    #[error("its {0} means nothing")]
    Value(&'static str),
}

impl Bequest {
    /// Returns the bytes.
    pub fn encode(&self) -> Vec<u8> {
        let size = HEADER_LEN + self.peers.len() * PEER_LEN + self.flow_count() * FLOW_LEN;
        let mut out = Vec::with_capacity(size);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&BEQUEST_FORMAT.to_be_bytes());
        put_addresses(&mut out, self.own);
        put_time(&mut out, self.last_date);
        put_time(&mut out, self.reserved_until);
        put_count(&mut out, self.peers.len());
        for peer in &self.peers {
            put_peer(&mut out, peer);
        }
        debug_assert_eq!(out.len(), size);
        out
    }

    /// Reads bytes that [`Bequest::encode`] made.
    ///
    /// # Errors
    /// They are something else; nothing of them is used.
    pub fn decode(bytes: &[u8]) -> Result<Self, BequestError> {
        let mut reader = Reader(bytes);
        if reader.array::<8>().ok().as_ref() != Some(MAGIC) {
            return Err(BequestError::Foreign);
        }
        match reader.u16()? {
            BEQUEST_FORMAT => {}
            other => return Err(BequestError::Format(other)),
        }
        let mut bequest = Self {
            own: reader.addresses()?,
            last_date: reader.time()?,
            reserved_until: reader.time()?,
            peers: Vec::new(),
        };
        let count = reader.u32()?;
        if count as usize > Limits::HOSTS {
            return Err(BequestError::Peers(count));
        }
        bequest.peers = reader.many(count, PEER_LEN, Reader::peer)?;
        match reader.0 {
            [] => Ok(bequest),
            _ => Err(BequestError::Long),
        }
    }
}

fn put_peer(out: &mut Vec<u8>, peer: &PeerBequest) {
    out.extend_from_slice(peer.key.as_bytes());
    put_addresses(out, Some(peer.addresses));
    put_ip(out, peer.path.map(|path| path.remote.ip()));
    let port = peer.path.map_or(0, |path| path.remote.port());
    out.extend_from_slice(&port.to_be_bytes());
    put_ip(out, peer.path.and_then(|path| path.source));
    out.extend_from_slice(&peer.last_initiation.unwrap_or_default());
    out.extend_from_slice(&peer.received_bytes.to_be_bytes());
    out.extend_from_slice(&peer.sent_bytes.to_be_bytes());
    out.push(u8::from(peer.wants_session));
    put_count(out, peer.flows.len());
    for flow in &peer.flows {
        put_flow(out, flow);
    }
}

fn put_flow(out: &mut Vec<u8>, flow: &FlowBequest) {
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    let phase = match flow.phase {
        FlowPhase::Opening => 0,
        FlowPhase::Answered => 1,
        FlowPhase::Established => 2,
        FlowPhase::Closing => 3,
    };
    let flags = flag(flow.is_ipv6, IPV6)
        | flag(flow.opened == Direction::Inbound, OPENED_INBOUND)
        | flag(flow.first_seen == Direction::Inbound, FIRST_SEEN_INBOUND)
        | phase << PHASE_SHIFT;
    let idle_millis = u32::try_from(flow.idle.as_millis()).unwrap_or(u32::MAX);
    out.extend_from_slice(&flow.local_port.to_be_bytes());
    out.extend_from_slice(&flow.remote_port.to_be_bytes());
    out.extend_from_slice(&[flow.ip_protocol, flags]);
    out.extend_from_slice(&idle_millis.to_be_bytes());
}

fn put_addresses(out: &mut Vec<u8>, addresses: Option<HostAddresses>) {
    let (v4, v6) = addresses.map_or(([0; 4], [0; 16]), |it| (it.v4.octets(), it.v6.octets()));
    out.extend_from_slice(&v4);
    out.extend_from_slice(&v6);
}

fn put_ip(out: &mut Vec<u8>, ip: Option<IpAddr>) {
    let mut octets = [0; 16];
    let family = match ip {
        None => 0,
        Some(IpAddr::V4(v4)) => {
            octets[..4].copy_from_slice(&v4.octets());
            4
        }
        Some(IpAddr::V6(v6)) => {
            octets = v6.octets();
            6
        }
    };
    out.push(family);
    out.extend_from_slice(&octets);
}

fn put_time(out: &mut Vec<u8>, time: UnixTime) {
    let since_epoch = time.since_epoch();
    out.extend_from_slice(&since_epoch.as_secs().to_be_bytes());
    out.extend_from_slice(&since_epoch.subsec_nanos().to_be_bytes());
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("limits bound peers and flows");
    out.extend_from_slice(&count.to_be_bytes());
}

/// What is yet to be read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], BequestError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(BequestError::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, BequestError> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, BequestError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, BequestError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, BequestError> {
        self.array().map(u64::from_be_bytes)
    }

    /// Reads `count` things of at least `len` bytes each: nothing is reserved for more than there
    /// can be.
    fn many<T>(
        &mut self,
        count: u32,
        len: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, BequestError>,
    ) -> Result<Vec<T>, BequestError> {
        let count = count as usize;
        if count.saturating_mul(len) > self.0.len() {
            return Err(BequestError::Short);
        }
        (0..count).map(|_| read(self)).collect()
    }

    fn peer(&mut self) -> Result<PeerBequest, BequestError> {
        let key = WireguardKey::from_bytes(self.array()?);
        let addresses = self
            .addresses()?
            .ok_or(BequestError::Value("peer's address"))?;
        let (ip, port, source) = (self.ip()?, self.u16()?, self.ip()?);
        let path = ip.map(|ip| Path {
            remote: SocketAddr::new(ip, port),
            source,
        });
        if path.is_none() && (port != 0 || source.is_some()) {
            return Err(BequestError::Value("path"));
        }
        let last_initiation = Some(self.array()?).filter(|date| *date != [0; 12]);
        let (received_bytes, sent_bytes) = (self.u64()?, self.u64()?);
        let wants_session = match self.u8()? {
            0 => false,
            1 => true,
            _ => return Err(BequestError::Value("session")),
        };
        let count = self.u32()?;
        let flows = self.many(count, FLOW_LEN, Self::flow)?;
        Ok(PeerBequest {
            key,
            addresses,
            path,
            wants_session,
            last_initiation,
            received_bytes,
            sent_bytes,
            flows,
        })
    }

    fn flow(&mut self) -> Result<FlowBequest, BequestError> {
        let (local_port, remote_port) = (self.u16()?, self.u16()?);
        let (ip_protocol, flags) = (self.u8()?, self.u8()?);
        if flags & !KNOWN_FLAGS != 0 {
            return Err(BequestError::Value("flow"));
        }
        let direction = |flag: u8| match flags & flag {
            0 => Direction::Outbound,
            _ => Direction::Inbound,
        };
        Ok(FlowBequest {
            local_port,
            remote_port,
            ip_protocol,
            is_ipv6: flags & IPV6 != 0,
            opened: direction(OPENED_INBOUND),
            first_seen: direction(FIRST_SEEN_INBOUND),
            phase: match flags >> PHASE_SHIFT {
                0 => FlowPhase::Opening,
                1 => FlowPhase::Answered,
                2 => FlowPhase::Established,
                _ => FlowPhase::Closing,
            },
            idle: Duration::from_millis(self.u32()?.into()),
        })
    }

    fn addresses(&mut self) -> Result<Option<HostAddresses>, BequestError> {
        let v4 = Ipv4Addr::from(self.array::<4>()?);
        let v6 = Ipv6Addr::from(self.array::<16>()?);
        let is_none = v4.is_unspecified() && v6.is_unspecified();
        Ok((!is_none).then_some(HostAddresses { v4, v6 }))
    }

    fn ip(&mut self) -> Result<Option<IpAddr>, BequestError> {
        let (family, octets) = (self.u8()?, self.array::<16>()?);
        match family {
            0 if octets == [0; 16] => Ok(None),
            4 if octets[4..] == [0; 12] => {
                let v4 = octets.first_chunk::<4>().expect("16 is more than 4");
                Ok(Some(Ipv4Addr::from(*v4).into()))
            }
            6 => Ok(Some(Ipv6Addr::from(octets).into())),
            _ => Err(BequestError::Value("address")),
        }
    }

    fn time(&mut self) -> Result<UnixTime, BequestError> {
        let (seconds, nanos) = (self.u64()?, self.u32()?);
        if nanos >= 1_000_000_000 {
            return Err(BequestError::Value("date"));
        }
        Ok(UnixTime::from_duration(Duration::new(seconds, nanos)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn addresses() -> impl Strategy<Value = HostAddresses> {
        (1..u32::MAX, any::<u128>()).prop_map(|(v4, v6)| HostAddresses {
            v4: v4.into(),
            v6: v6.into(),
        })
    }

    fn path() -> impl Strategy<Value = Path> {
        (any::<SocketAddr>(), any::<Option<IpAddr>>()).prop_map(|(remote, source)| Path {
            // The rest of an IPv6 socket address means nothing for a path.
            remote: SocketAddr::new(remote.ip(), remote.port()),
            source,
        })
    }

    fn flow() -> impl Strategy<Value = FlowBequest> {
        let direction = prop_oneof![Just(Direction::Inbound), Just(Direction::Outbound)];
        let phase = prop_oneof![
            Just(FlowPhase::Opening),
            Just(FlowPhase::Answered),
            Just(FlowPhase::Established),
            Just(FlowPhase::Closing),
        ];
        let ports = any::<(u16, u16, u8, bool, u32)>();
        (ports, direction.clone(), direction, phase).prop_map(
            |((local_port, remote_port, ip_protocol, is_ipv6, millis), opened, seen, phase)| {
                FlowBequest {
                    local_port,
                    remote_port,
                    ip_protocol,
                    is_ipv6,
                    opened,
                    first_seen: seen,
                    phase,
                    idle: Duration::from_millis(millis.into()),
                }
            },
        )
    }

    fn peer() -> impl Strategy<Value = PeerBequest> {
        (
            any::<[u8; 32]>(),
            addresses(),
            proptest::option::of(path()),
            any::<(bool, [u8; 12], u64, u64)>(),
            proptest::collection::vec(flow(), 0..5),
        )
            .prop_map(
                |(key, addresses, path, (wants_session, date, received, sent), flows)| {
                    PeerBequest {
                        key: WireguardKey::from_bytes(key),
                        addresses,
                        path,
                        wants_session,
                        last_initiation: Some(date).filter(|date| *date != [0; 12]),
                        received_bytes: received,
                        sent_bytes: sent,
                        flows,
                    }
                },
            )
    }

    fn bequest() -> impl Strategy<Value = Bequest> {
        let time = || {
            (0..1u64 << 40, 0..1_000_000_000u32)
                .prop_map(|(s, n)| UnixTime::from_duration(Duration::new(s, n)))
        };
        let peers = proptest::collection::vec(peer(), 0..5);
        (proptest::option::of(addresses()), time(), time(), peers).prop_map(
            |(own, last_date, reserved_until, peers)| Bequest {
                own,
                last_date,
                reserved_until,
                peers,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(bequest in bequest()) {
            prop_assert_eq!(Bequest::decode(&bequest.encode()), Ok(bequest));
        }

        #[test]
        fn no_part_of_it_is_taken_for_the_whole(bequest in bequest(), cut in any::<prop::sample::Index>()) {
            let bytes = bequest.encode();
            let cut = cut.index(bytes.len());
            prop_assert!(Bequest::decode(&bytes[..cut]).is_err());
            let longer = [&bytes[..], &[0]].concat();
            prop_assert_eq!(Bequest::decode(&longer), Err(BequestError::Long));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let header = [&MAGIC[..], &BEQUEST_FORMAT.to_be_bytes()].concat();
            for bytes in [bytes.clone(), [header, bytes].concat()] {
                if let Ok(bequest) = Bequest::decode(&bytes) {
                    prop_assert_eq!(bequest.encode(), bytes);
                }
            }
        }
    }

    #[test]
    fn another_format_and_impossible_counts_are_refused() {
        let mut bytes = Bequest::default().encode();
        assert_eq!(bytes.len(), HEADER_LEN);
        bytes[57] = 1;
        assert_eq!(Bequest::decode(&bytes), Err(BequestError::Short));
        bytes[54] = 1;
        assert_eq!(
            Bequest::decode(&bytes),
            Err(BequestError::Peers(0x0100_0001))
        );
        bytes[9] = 2;
        assert_eq!(Bequest::decode(&bytes), Err(BequestError::Format(2)));
        bytes[0] = b'M';
        assert_eq!(Bequest::decode(&bytes), Err(BequestError::Foreign));
    }
}
