//! Whether a packet may pass: as part of a flow that was let through, or because the rules say so.
//!
//! **Connections in the middle.** A restart of the daemon must not cut connections, but it forgets
//! the flows. A TCP segment without a flow that is not a SYN is therefore decided as if either
//! side had opened the connection, the likelier (the one with the higher port) first: in the
//! segment's own direction always; in the reverse, as a reply, when this host sends it, or, for
//! segments of a peer, within [`ADOPTION_TIME`] of the start, after which no connection of before
//! can be alive in silence. A SYN is always decided in its own direction, also on an existing
//! flow, so that no server can use an allowed connection to open one back. UDP and ping need no
//! such rule: the next datagram of who asks opens the flow again.

use std::net::SocketAddr;

use model::map::PeerIndex;
use model::rule::{Direction, ip_protocol};
use model::time::Instant;
use policy::Verdict;

use super::Shard;
use super::claims::{Claimed, Unclaimed};
use crate::drops::DropReason;
use crate::event::{Denial, Event};
use crate::flows::{ADOPTION_TIME, Flow, FlowKey, NO_TABLE, SWEEP_INTERVAL, reverse};
use crate::fragments::FragmentKey;
use crate::packet::{Fragment, Headers, Quoted, TcpFlags, Upper};

/// What the rules say of a flow that was let through before.
enum Standing {
    /// There is no such flow.
    Unknown,
    /// It may go on.
    Allowed,
    /// It may go on, as its sender claims.
    Claimed(Direction),
    /// It may go on when it is told who sends it.
    Unclaimed(Direction, Verdict),
    /// It was allowed, and is not any more.
    Revoked(Direction, Verdict),
}

/// Why a packet may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    /// The rules allow it.
    ByRules,
    /// They do since it is known who of this host sends its flow; the peer is to be told.
    BySender(FlowKey),
}

/// Why a packet may not pass.
#[derive(Clone, Copy, Debug)]
pub(super) enum Barred {
    /// It is dropped, whatever the rules say.
    Dropped(DropReason),
    /// The rules deny it.
    Denied(Denied),
    /// A rule asks who sends its flow.
    Unclaimed(Unclaimed),
}

/// What the rules said of a packet that they deny.
#[derive(Clone, Copy, Debug)]
pub(super) struct Denied {
    /// Where the packet went.
    direction: Direction,
    /// Which way the flow would have been opened.
    pub(super) opened: Direction,
    pub(super) verdict: Verdict,
}

impl Barred {
    pub(super) const fn reason(self) -> DropReason {
        match self {
            Self::Dropped(reason) => reason,
            Self::Unclaimed(_) => DropReason::UnknownWorkload,
            Self::Denied(denied) => match denied.direction {
                Direction::Outbound => DropReason::DeniedOutbound,
                Direction::Inbound => DropReason::DeniedInbound,
            },
        }
    }
}

impl From<DropReason> for Barred {
    fn from(reason: DropReason) -> Self {
        Self::Dropped(reason)
    }
}

impl Shard {
    /// Decides whether a packet may pass, and remembers its flow.
    pub(super) fn admit(
        &mut self,
        headers: &Headers,
        packet: &[u8],
        direction: Direction,
        peer: PeerIndex,
        now: Instant,
    ) -> Result<Admitted, Barred> {
        let generation = self
            .table
            .as_ref()
            .ok_or(DropReason::NoPolicy)?
            .generation();
        if let Fragment::Later { id, .. } = headers.fragment {
            let key = FragmentKey::new(headers, id, direction, peer);
            let may_follow = self.fragments.may_follow(&key, generation, now);
            return may_follow
                .then_some(Admitted::ByRules)
                .ok_or(DropReason::UnknownFragment.into());
        }
        let admitted = match headers.upper {
            Upper::IcmpError => {
                self.admit_error(headers, packet, direction, peer, now)?;
                return Ok(Admitted::ByRules);
            }
            Upper::IcmpForbidden => return Err(DropReason::ForbiddenIcmp.into()),
            _ => self.admit_flow(headers, direction, peer, now)?,
        };
        if let Fragment::First { id } = headers.fragment {
            let key = FragmentKey::new(headers, id, direction, peer);
            self.fragments.remember(key, generation, now);
        }
        Ok(admitted)
    }

    fn admit_flow(
        &mut self,
        headers: &Headers,
        direction: Direction,
        peer: PeerIndex,
        now: Instant,
    ) -> Result<Admitted, Barred> {
        let key = FlowKey::of(headers, direction, peer);
        let upper = headers.upper;
        let generation = self.table.as_ref().map(|table| table.generation());
        let mut is_opened_anew = false;
        if let Some(flow) = self.flows.find_mut(&key, now) {
            is_opened_anew = flow.is_opened_anew_by(upper, direction);
            if !is_opened_anew && Some(flow.generation) == generation {
                flow.note(upper, direction, now);
                return Ok(Admitted::ByRules);
            }
        }
        if is_opened_anew {
            return self.open_flow(headers, key, direction, now);
        }
        let admitted = match self.standing(&key, direction, now) {
            Standing::Unknown => return self.open_flow(headers, key, direction, now),
            Standing::Revoked(opened, verdict) => {
                return Err(self.deny(headers, key, direction, opened, verdict, now));
            }
            Standing::Unclaimed(opened, verdict) => {
                return Err(self.bar_unclaimed(headers, key, direction, opened, verdict, now));
            }
            Standing::Allowed => Admitted::ByRules,
            Standing::Claimed(opened) => by_sender(key, opened),
        };
        if let Some(flow) = self.flows.find_mut(&key, now) {
            flow.note(upper, direction, now);
        }
        Ok(admitted)
    }

    /// Looks a flow up, and asks the rules again when they have changed since.
    fn standing(&mut self, key: &FlowKey, direction: Direction, now: Instant) -> Standing {
        let Some(table) = &self.table else {
            return Standing::Unknown;
        };
        let Some(flow) = self.flows.find_mut(key, now) else {
            return Standing::Unknown;
        };
        if flow.generation == table.generation() {
            return Standing::Allowed;
        }
        let opened = flow.opened;
        let port = key.service_port(opened);
        let verdict = table.decide(opened, key.peer(), key.ip_protocol, port);
        if verdict.is_allowed() {
            flow.generation = table.generation();
            return Standing::Allowed;
        }
        let verdict = match self.ask_claim(key, (opened, direction), verdict, now) {
            None => verdict,
            Some(Claimed::Allowed) => return Standing::Claimed(opened),
            Some(Claimed::Unknown) => return Standing::Unclaimed(opened, verdict),
            Some(Claimed::Denied(verdict)) => verdict,
        };
        self.flows.remove(key);
        self.counters.set_flows(&self.flows);
        Standing::Revoked(opened, verdict)
    }

    fn open_flow(
        &mut self,
        headers: &Headers,
        key: FlowKey,
        direction: Direction,
        now: Instant,
    ) -> Result<Admitted, Barred> {
        if matches!(headers.upper, Upper::EchoReply { .. }) {
            return Err(DropReason::UnrelatedReply.into());
        }
        let table = self.table.as_ref().ok_or(DropReason::NoPolicy)?;
        let decide = |opened| {
            let port = key.service_port(opened);
            (
                opened,
                table.decide(opened, key.peer(), key.ip_protocol, port),
            )
        };
        let (first, second) = self.openings(headers.upper, &key, direction, now);
        let (mut opened, mut verdict) = decide(first);
        if !verdict.is_allowed()
            && let Some((other, other_verdict)) = second.map(decide)
            && other_verdict.is_allowed()
        {
            (opened, verdict) = (other, other_verdict);
        }
        let mut generation = table.generation();
        let mut admitted = Admitted::ByRules;
        match self.ask_claim(&key, (opened, direction), verdict, now) {
            None if verdict.is_allowed() => {}
            None => return Err(self.deny(headers, key, direction, opened, verdict, now)),
            Some(Claimed::Denied(verdict)) => {
                return Err(self.deny(headers, key, direction, opened, verdict, now));
            }
            Some(Claimed::Unknown) => {
                return Err(self.bar_unclaimed(headers, key, direction, opened, verdict, now));
            }
            // Each of its packets is asked about: its sender may become another.
            Some(Claimed::Allowed) => {
                (generation, admitted) = (NO_TABLE, by_sender(key, opened));
            }
        }
        let mut flow = Flow::new(key, opened, direction, generation, now);
        flow.note(headers.upper, direction, now);
        if !self.flows.insert(flow, now) {
            return Err(DropReason::FlowTableFull.into());
        }
        self.counters.set_flows(&self.flows);
        self.next_sweep.get_or_insert(now + SWEEP_INTERVAL);
        Ok(admitted)
    }

    /// Decides by who sends, where that can be known and matters; `None`: the verdict holds.
    fn ask_claim(
        &mut self,
        key: &FlowKey,
        (opened, direction): (Direction, Direction),
        verdict: Verdict,
        now: Instant,
    ) -> Option<Claimed> {
        let asks = matches!(verdict, Verdict::DenyUnknownWorkload(_));
        let is_told = key.ip_protocol == ip_protocol::UDP;
        (asks && is_told).then(|| self.decide_claimed(key, opened, direction, now))
    }

    /// A packet of a flow whose sender nobody has told: of this host it waits, of a peer it is dropped,
    /// and said to be, sparsely. Answers in one that was let through are dropped in silence, since its
    /// sender is asked to tell again.
    fn bar_unclaimed(
        &mut self,
        headers: &Headers,
        key: FlowKey,
        direction: Direction,
        opened: Direction,
        verdict: Verdict,
        now: Instant,
    ) -> Barred {
        if opened == Direction::Inbound && direction == opened {
            self.deny(headers, key, direction, opened, verdict, now);
        } else if opened == Direction::Outbound && direction == Direction::Inbound {
            self.ask_who_sends(key, now);
        }
        Barred::Unclaimed(Unclaimed { key, opened })
    }

    /// Returns the ways in which the flow of a packet without one may have been opened.
    fn openings(
        &self,
        upper: Upper,
        key: &FlowKey,
        direction: Direction,
        now: Instant,
    ) -> (Direction, Option<Direction>) {
        match upper {
            Upper::Tcp { flags, .. } if self.may_adopt(flags, direction, now) => {
                let likely = key.likely_opened();
                (likely, Some(reverse(likely)))
            }
            _ => (direction, None),
        }
    }

    fn may_adopt(&self, flags: TcpFlags, direction: Direction, now: Instant) -> bool {
        let is_recent = now.saturating_since(self.started_at) < ADOPTION_TIME;
        !flags.syn() && (direction == Direction::Outbound || is_recent)
    }

    /// An ICMP error passes when it is about a flow between the two that may go on.
    fn admit_error(
        &mut self,
        headers: &Headers,
        packet: &[u8],
        direction: Direction,
        peer: PeerIndex,
        now: Instant,
    ) -> Result<(), DropReason> {
        let quoted = Quoted::parse(headers, packet).ok_or(DropReason::UnrelatedIcmp)?;
        if quoted.source != headers.destination || quoted.destination != headers.source {
            return Err(DropReason::UnrelatedIcmp);
        }
        let is_ipv6 = quoted.source.is_ipv6();
        let key = FlowKey::new(
            quoted.upper,
            quoted.ip_protocol,
            is_ipv6,
            reverse(direction),
            peer,
        );
        match self.standing(&key, direction, now) {
            Standing::Allowed | Standing::Claimed(_) => Ok(()),
            Standing::Unknown | Standing::Unclaimed(..) | Standing::Revoked(..) => {
                Err(DropReason::UnrelatedIcmp)
            }
        }
    }

    /// Tells of a denial, sparsely.
    fn deny(
        &mut self,
        headers: &Headers,
        key: FlowKey,
        direction: Direction,
        opened: Direction,
        verdict: Verdict,
        now: Instant,
    ) -> Barred {
        if opened == Direction::Outbound {
            self.ask_again(&key, now);
        }
        let is_told = self.denials.may_tell(key, opened, now);
        let workload = is_told.then(|| self.sender_of(&key, opened, now)).flatten();
        if is_told && let Some(table) = &self.table {
            let (source_port, destination_port) = headers.ports();
            let source = SocketAddr::new(headers.source, source_port);
            let destination = SocketAddr::new(headers.destination, destination_port);
            let (source, destination) = match direction == opened {
                true => (source, destination),
                false => (destination, source),
            };
            let denial = Denial {
                direction: opened,
                peer: key.peer(),
                ip_protocol: key.ip_protocol,
                source,
                destination,
                rule: verdict.rule().map(|rule| table.rule(rule).id.clone()),
                needs_workload: matches!(verdict, Verdict::DenyUnknownWorkload(_)),
                workload,
                version: table.version(),
            };
            self.emit(Event::Denied(denial));
        }
        Barred::Denied(Denied {
            direction,
            opened,
            verdict,
        })
    }
}

/// The peer is told of flows that this host opened.
fn by_sender(key: FlowKey, opened: Direction) -> Admitted {
    match opened {
        Direction::Outbound => Admitted::BySender(key),
        Direction::Inbound => Admitted::ByRules,
    }
}
