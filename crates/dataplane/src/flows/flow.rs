//! One flow: how packets of both sides move it along, and when it has idled out.

use std::time::Duration;

use model::rule::{Direction, ip_protocol};
use model::time::Instant;

use super::FlowKey;
use crate::bequest::FlowBequest;
use crate::packet::Upper;

/// A flow that was let through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) key: FlowKey,
    /// Which way it was opened; the rules are asked about this way.
    pub(crate) opened: Direction,
    /// Which way its first packet that we saw went; otherwise than `opened` only for a connection
    /// that was taken over in the middle.
    first_seen: Direction,
    pub(crate) phase: Phase,
    /// The table that allowed it.
    pub(crate) generation: u64,
    pub(crate) last_seen: Seen,
}

/// When a flow's last packet passed. It may be before this process, and its clock, began: as long
/// before as any flow is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seen(Duration);

impl Seen {
    #[inline]
    fn at(now: Instant) -> Self {
        Self(now.since_start().saturating_add(TCP_ESTABLISHED))
    }

    fn before(now: Instant, idle: Duration) -> Self {
        Self(Self::at(now).0.saturating_sub(idle))
    }

    #[inline]
    fn until(self, now: Instant) -> Duration {
        Self::at(now).0.saturating_sub(self.0)
    }
}

/// A generation that no table has: theirs count from 1.
pub(crate) const NO_TABLE: u64 = 0;

/// How a flow stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Only one side was heard.
    Opening,
    /// TCP: the other side agreed, the opener has yet to confirm.
    Answered,
    /// Both sides were heard.
    Established,
    /// TCP: a side has said its last.
    Closing,
}

// RFC 5382 REQ-5: at least 2 hours 4 minutes for established connections, 4 minutes for others.
const TCP_ESTABLISHED: Duration = Duration::from_secs(2 * 3600 + 4 * 60);
const TCP_TRANSITORY: Duration = Duration::from_secs(4 * 60);
// RFC 4787 REQ-5: at least 2 minutes once a mapping is in use. An unanswered datagram is kept
// shorter: its sender's next one opens the flow again, only a reply that late is lost.
const UDP_REPLIED: Duration = Duration::from_secs(180);
const UDP_UNREPLIED: Duration = Duration::from_secs(30);
// RFC 5508 REQ-2: at least 60 seconds.
const ICMP_QUERY: Duration = Duration::from_secs(60);

/// How long a connection that lived before a restart may have been silent: for this time after the
/// start, connections are taken over in the middle at a packet of the side that did not open them.
pub(crate) const ADOPTION_TIME: Duration = TCP_ESTABLISHED;

impl Flow {
    pub(crate) fn new(
        key: FlowKey,
        opened: Direction,
        first_seen: Direction,
        generation: u64,
        now: Instant,
    ) -> Self {
        Self {
            key,
            opened,
            first_seen,
            phase: Phase::Opening,
            generation,
            last_seen: Seen::at(now),
        }
    }

    /// Takes over a flow of the daemon before. Its generation is that of no table, so that the
    /// rules are asked about it at its next packet.
    pub(crate) fn inherited(key: FlowKey, left: &FlowBequest, now: Instant) -> Self {
        Self {
            key,
            opened: left.opened,
            first_seen: left.first_seen,
            phase: left.phase,
            generation: NO_TABLE,
            last_seen: Seen::before(now, left.idle),
        }
    }

    /// Returns what a successor should know of this flow.
    pub(crate) fn bequeath(&self, now: Instant) -> FlowBequest {
        FlowBequest {
            local_port: self.key.local_port,
            remote_port: self.key.remote_port,
            ip_protocol: self.key.ip_protocol,
            is_ipv6: self.key.is_ipv6,
            opened: self.opened,
            first_seen: self.first_seen,
            phase: self.phase,
            idle: Duration::from_millis(self.last_seen.until(now).as_millis() as u64),
        }
    }

    #[inline]
    pub(crate) fn is_idle(&self, now: Instant) -> bool {
        self.last_seen.until(now) >= self.idle_max()
    }

    /// Returns whether the packet asks for a new connection where this flow is an old one, so
    /// that the rules must be asked in the packet's own direction.
    #[inline]
    pub(crate) fn is_opened_anew_by(&self, upper: Upper, direction: Direction) -> bool {
        match upper {
            Upper::Tcp { flags, .. } if flags.opens() => {
                direction != self.opened || self.phase == Phase::Closing
            }
            _ => false,
        }
    }

    /// A packet of the flow passes.
    #[inline]
    pub(crate) fn note(&mut self, upper: Upper, direction: Direction, now: Instant) {
        self.last_seen = Seen::at(now);
        let is_reply = direction != self.first_seen;
        self.phase = match (upper, self.phase) {
            (Upper::Tcp { flags, .. }, _) if flags.fin() || flags.rst() => Phase::Closing,
            (Upper::Tcp { flags, .. }, Phase::Opening) if is_reply && flags.syn() => {
                Phase::Answered
            }
            (Upper::Tcp { flags, .. }, Phase::Answered) if !is_reply && !flags.syn() => {
                Phase::Established
            }
            (Upper::Tcp { .. }, Phase::Answered) => Phase::Answered,
            (_, Phase::Opening) if is_reply => Phase::Established,
            (_, phase) => phase,
        };
    }

    fn idle_max(&self) -> Duration {
        match (self.key.ip_protocol, self.phase) {
            (ip_protocol::TCP, Phase::Established) => TCP_ESTABLISHED,
            (ip_protocol::TCP, _) => TCP_TRANSITORY,
            (ip_protocol::ICMP | ip_protocol::ICMPV6, _) => ICMP_QUERY,
            (_, Phase::Opening) => UDP_UNREPLIED,
            _ => UDP_REPLIED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::TcpFlags;
    use model::map::PeerIndex;

    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    const FIN: u8 = 0x01;

    fn tcp(flags: u8) -> Upper {
        Upper::Tcp {
            source_port: 1,
            destination_port: 2,
            flags: TcpFlags::from_byte(flags),
        }
    }

    fn flow(upper: Upper, ip_protocol: u8) -> Flow {
        let key = FlowKey::new(upper, ip_protocol, false, Direction::Outbound, PeerIndex(0));
        Flow::new(
            key,
            Direction::Outbound,
            Direction::Outbound,
            1,
            Instant::START,
        )
    }

    #[test]
    fn a_flow_of_before_this_process_is_as_old_as_it_was() {
        let now = Instant::from_start(Duration::from_millis(200));
        let idle = Duration::from_secs(100);
        let mut left = flow(tcp(SYN), ip_protocol::TCP).bequeath(Instant::from_start(idle));
        assert_eq!(left.idle, idle);
        for phase in [Phase::Opening, Phase::Established] {
            left.phase = phase;
            let key = flow(tcp(SYN), ip_protocol::TCP).key;
            let inherited = Flow::inherited(key, &left, now);
            assert_eq!(inherited.bequeath(now).idle, idle);
            let end = now + (inherited.idle_max() - idle);
            assert!(inherited.is_idle(end));
            let just_before = Instant::from_start(end.since_start() - Duration::from_millis(1));
            assert!(!inherited.is_idle(just_before));
        }
    }

    fn phases(steps: &[(u8, Direction)]) -> Vec<Phase> {
        let mut flow = flow(tcp(SYN), ip_protocol::TCP);
        let step = |(flags, direction): &(u8, Direction)| {
            flow.note(tcp(*flags), *direction, Instant::START);
            flow.phase
        };
        steps.iter().map(step).collect()
    }

    #[test]
    fn a_connection_is_established_by_its_third_segment_and_closes_at_a_fin() {
        use Direction::{Inbound, Outbound};
        let steps = [
            (SYN, Outbound),
            (SYN | ACK, Inbound),
            (ACK, Outbound),
            (FIN | ACK, Inbound),
        ];
        let expected = [
            Phase::Opening,
            Phase::Answered,
            Phase::Established,
            Phase::Closing,
        ];
        assert_eq!(phases(&steps), expected);
    }

    #[test]
    fn a_server_alone_does_not_establish_a_connection() {
        use Direction::{Inbound, Outbound};
        let steps = [
            (SYN, Outbound),
            (SYN | ACK, Inbound),
            (SYN, Outbound),
            (ACK, Inbound),
        ];
        assert!(!phases(&steps).contains(&Phase::Established));
    }

    #[test]
    fn flows_idle_out_by_protocol_and_phase() {
        let after = |seconds| Instant::START + Duration::from_secs(seconds);
        let upper = Upper::Udp {
            source_port: 1,
            destination_port: 2,
        };
        let mut udp = flow(upper, ip_protocol::UDP);
        assert!(!udp.is_idle(after(29)) && udp.is_idle(after(30)));
        udp.note(upper, Direction::Inbound, Instant::START);
        assert!(!udp.is_idle(after(179)) && udp.is_idle(after(180)));
        let mut connection = flow(tcp(SYN), ip_protocol::TCP);
        assert!(connection.is_idle(after(240)));
        connection.note(tcp(ACK), Direction::Inbound, Instant::START);
        assert!(!connection.is_idle(after(7439)) && connection.is_idle(after(7440)));
    }

    #[test]
    fn a_syn_of_the_other_side_opens_anew() {
        let flow = flow(tcp(SYN), ip_protocol::TCP);
        assert!(flow.is_opened_anew_by(tcp(SYN), Direction::Inbound));
        assert!(!flow.is_opened_anew_by(tcp(SYN), Direction::Outbound));
        assert!(!flow.is_opened_anew_by(tcp(SYN | ACK), Direction::Inbound));
    }
}
