//! Flows of UDP of which a rule asks who sends them. At who opens one, packets wait until the kernel
//! was asked, and a claim goes ahead of them; at the other end the claim is believed as far as the
//! policy lets that host run the workload. Neither end trusts the other's decision.

use std::net::{IpAddr, SocketAddr};

use model::address::HostAddresses;
use model::map::PeerIndex;
use model::name::Name;
use model::rule::{Direction, ip_protocol};
use model::time::{Instant, Now};
use policy::{Table, Verdict};

use super::Shard;
use super::inbound::Fate;
use super::spreading::hand_opened_over;
use crate::claim::{ClaimMessage, ClaimedFlow};
use crate::command::PeerKind;
use crate::drops::DropReason;
use crate::event::{Event, Sending};
use crate::flows::{FlowKey, SWEEP_INTERVAL};
use crate::outbox::{Misdirected, Outbox};
use crate::pending::Pending;

/// What is made of a flow whose sender a rule asks for.
pub(super) enum Claimed {
    Allowed,
    Denied(Verdict),
    /// Nobody has told who sends it.
    Unknown,
}

/// A packet of a flow of which nobody has told who sends it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unclaimed {
    pub(super) key: FlowKey,
    pub(super) opened: Direction,
}

impl Shard {
    /// Decides a packet of a flow that packets alone do not open.
    pub(super) fn decide_claimed(
        &mut self,
        key: &FlowKey,
        opened: Direction,
        direction: Direction,
        now: Instant,
    ) -> Claimed {
        let Self { table, claims, .. } = self;
        let Some(table) = table else {
            return Claimed::Unknown;
        };
        let generation = table.generation();
        let known = match opened {
            Direction::Outbound => claims
                .own_mut(key, direction, now)
                .map(|it| (it.value.workload.as_ref(), &mut it.standing)),
            Direction::Inbound => claims
                .heard_mut(key, now)
                .map(|it| (Some(&it.value.workload), &mut it.standing)),
        };
        let Some((workload, standing)) = known else {
            return Claimed::Unknown;
        };
        if standing.allowed_under != Some(generation) {
            let verdict = judge(table, key, opened, workload);
            standing.allowed_under = verdict.is_allowed().then_some(generation);
            if !verdict.is_allowed() {
                return Claimed::Denied(verdict);
            }
        }
        standing.note(direction != opened, now);
        Claimed::Allowed
    }

    /// Returns the table that lets a workload send a flow; `None`: this host's does not.
    fn allows(&self, key: &FlowKey, opened: Direction, workload: Option<&Name>) -> Option<u64> {
        let table = self.table.as_ref()?;
        let verdict = judge(table, key, opened, workload);
        verdict.is_allowed().then(|| table.generation())
    }

    /// Returns the workload that sends a flow, as far as it is known.
    pub(super) fn sender_of(
        &mut self,
        key: &FlowKey,
        opened: Direction,
        now: Instant,
    ) -> Option<Name> {
        match opened {
            Direction::Outbound => self
                .claims
                .own_mut(key, Direction::Inbound, now)?
                .value
                .workload
                .clone(),
            Direction::Inbound => Some(self.claims.heard_mut(key, now)?.value.workload.clone()),
        }
    }
}

fn judge(table: &Table, key: &FlowKey, opened: Direction, workload: Option<&Name>) -> Verdict {
    let (peer, port) = (key.peer(), key.service_port(opened));
    match workload {
        Some(name) => table.decide_claimed(opened, peer, key.ip_protocol, port, name),
        None => table.decide(opened, peer, key.ip_protocol, port),
    }
}

/// At who opens the flow.
impl Shard {
    /// Keeps a packet of this host until it is known who sends it.
    pub(super) fn hold(
        &mut self,
        key: FlowKey,
        packet: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        if !self.ask_who_sends(key, now) {
            return Err(DropReason::UnknownWorkload);
        }
        let gone = self.claims.hold(&key, packet);
        let gone = gone.ok_or(DropReason::UnknownWorkload)?;
        for _ in 0..gone {
            self.counters.remove_queued();
            self.counters.add_drop(DropReason::UnknownWorkload);
        }
        self.counters.add_queued();
        Ok(())
    }

    /// Asks who sends a flow of this host, unless that is asked already. False when it cannot be.
    pub(super) fn ask_who_sends(&mut self, key: FlowKey, now: Instant) -> bool {
        let Some(sending) = self.sending(&key) else {
            return false;
        };
        match self.claims.ask(key, now) {
            None => return false,
            Some(false) => {}
            Some(true) => self.emit(Event::WhoSends(sending)),
        }
        true
    }

    /// Asks again who sends a flow when the last answer has become old.
    pub(super) fn ask_again(&mut self, key: &FlowKey, now: Instant) {
        let generation = self.table.as_ref().map_or(0, |table| table.generation());
        if self.claims.asks_again(key, generation, now)
            && let Some(sending) = self.sending(key)
        {
            self.emit(Event::WhoSends(sending));
        }
    }

    /// Takes the answer: what waited goes on, or is refused.
    pub(super) fn handle_sender(
        &mut self,
        of: Sending,
        workload: Option<Name>,
        now: Now,
        out: &mut impl Outbox,
    ) {
        let key = FlowKey {
            peer: of.peer.0,
            local_port: of.source.port(),
            remote_port: of.destination.port(),
            ip_protocol: ip_protocol::UDP,
            is_ipv6: of.source.is_ipv6(),
        };
        // Asked with other addresses than these ends have now, it says nothing of them.
        let under = of.under;
        if self.sending(&key).map(|it| Sending { under, ..it }) != Some(of) {
            return;
        }
        let allowed_under = self.allows(&key, Direction::Outbound, workload.as_ref());
        let held = self
            .claims
            .learn(key, workload, under, allowed_under, now.monotonic);
        let Some(mut held) = held else {
            return;
        };
        self.next_sweep
            .get_or_insert(now.monotonic + SWEEP_INTERVAL);
        if !self.claims.is_known(&key) {
            return self.drop_held(held, DropReason::UnknownWorkload);
        }
        while let Some(packet) = held.pop() {
            self.counters.remove_queued();
            if let Err(reason) = self.forward(&packet, now, out) {
                self.counters.add_drop(reason);
            }
        }
        self.settle(of.peer, now, out);
    }

    /// Sends the claim of a flow ahead of its next packet, when it is due.
    pub(super) fn tell_claim(&mut self, key: &FlowKey, now: Now, out: &mut impl Outbox) {
        self.ask_again(key, now.monotonic);
        let Some(workload) = self.claims.due(key, now.monotonic) else {
            return;
        };
        let flow = ClaimedFlow::of(key, Direction::Outbound);
        let message = ClaimMessage::Claim(flow, workload.clone());
        if self.say(key.peer(), &message, now, out) {
            self.claims.note_told(key, now.monotonic);
        }
    }

    /// Sends a claim that a peer misses at once: who only listens has no next packet.
    fn tell_missed(&mut self, key: &FlowKey, now: Now, out: &mut impl Outbox) {
        let Some(generation) = self.table.as_ref().map(|table| table.generation()) else {
            return;
        };
        let own = self.claims.own_mut(key, Direction::Inbound, now.monotonic);
        let is_allowed = own.is_some_and(|it| it.standing.allowed_under == Some(generation));
        let peer = self.peers.get_mut(key.peer()).filter(|_| is_allowed);
        if peer.is_some_and(|peer| peer.misses.take(now.monotonic)) {
            self.tell_claim(key, now, out);
        }
    }

    /// Drops what has waited for too long.
    pub(super) fn drop_overdue(&mut self, now: Instant) {
        while let Some(held) = self.claims.take_overdue(now) {
            self.drop_held(held, DropReason::UnknownWorkload);
        }
    }

    /// Forgets what a peer claims, and what is claimed to it.
    pub(super) fn forget_claims(&mut self, peer: PeerIndex) {
        for held in self.claims.forget_peer(peer) {
            self.drop_held(held, DropReason::PeerRemoved);
        }
    }

    /// Drops the packets that wait to be told whose they are.
    pub(super) fn drop_all_held(&mut self, reason: DropReason) {
        for held in self.claims.forget_all_questions() {
            self.drop_held(held, reason);
        }
    }

    fn drop_held(&mut self, mut held: Pending, reason: DropReason) {
        while held.pop().is_some() {
            self.counters.remove_queued();
            self.counters.add_drop(reason);
        }
    }

    fn sending(&self, key: &FlowKey) -> Option<Sending> {
        let own = self.identity.as_ref()?.addresses;
        let peer = self.peers.get(key.peer())?.addresses;
        let address = |of: HostAddresses| -> IpAddr {
            match key.is_ipv6 {
                true => of.v6.into(),
                false => of.v4.into(),
            }
        };
        Some(Sending {
            peer: key.peer(),
            source: SocketAddr::new(address(own), key.local_port),
            destination: SocketAddr::new(address(peer), key.remote_port),
            under: self.table.as_ref().map_or(0, |table| table.generation()),
        })
    }
}

/// At the other end.
impl Shard {
    /// Tells a peer that a packet of a flow that it opened was dropped for want of a claim.
    pub(super) fn miss(&mut self, unclaimed: Unclaimed, now: Now, out: &mut impl Outbox) {
        let index = unclaimed.key.peer();
        let Some(peer) = self.peers.get_mut(index) else {
            return;
        };
        if peer.misses.take(now.monotonic) {
            let flow = ClaimedFlow::of(&unclaimed.key, Direction::Inbound);
            self.say(index, &ClaimMessage::Missed(flow), now, out);
        }
    }

    /// Takes what a peer's daemon says of who sends a flow.
    pub(super) fn handle_claim(
        &mut self,
        index: PeerIndex,
        datagram_bytes: usize,
        (claim, bytes): (ClaimMessage, &[u8]),
        now: Now,
        out: &mut impl Outbox,
    ) -> Result<Fate, DropReason> {
        if let Some(owner) = self.owner_of_claim(index, &claim, now, out) {
            let opened = Misdirected::Opened {
                peer: index,
                ecn: 0,
                datagram_bytes,
                bytes,
            };
            return hand_opened_over(owner, opened, out);
        }
        self.take_claim(index, claim, now, out)
    }

    /// Takes one that is of a flow of this shard.
    pub(super) fn take_claim(
        &mut self,
        index: PeerIndex,
        claim: ClaimMessage,
        now: Now,
        out: &mut impl Outbox,
    ) -> Result<Fate, DropReason> {
        let unrelated = DropReason::UnrelatedClaim;
        let answered = |shard: &mut Self, flow: ClaimedFlow, is_heard| {
            let key = flow.key(index, Direction::Outbound);
            shard.claims.note_answer(&key, is_heard).then_some(())
        };
        match claim {
            ClaimMessage::Heard(flow) => answered(self, flow, true).ok_or(unrelated)?,
            ClaimMessage::Missed(flow) => {
                answered(self, flow, false).ok_or(unrelated)?;
                self.tell_missed(&flow.key(index, Direction::Outbound), now, out);
            }
            ClaimMessage::Claim(flow, workload) => {
                let key = flow.key(index, Direction::Inbound);
                // Where no rule asks for it, it is not kept: the table is for those that count.
                let allowed_under = self.allows(&key, Direction::Inbound, Some(&workload));
                let is_kept = !self.asks_who_sends(&key)
                    || self
                        .claims
                        .hear(key, workload, allowed_under, now.monotonic);
                if !is_kept {
                    return Err(DropReason::ClaimTableFull);
                }
                self.next_sweep
                    .get_or_insert(now.monotonic + SWEEP_INTERVAL);
                self.say(index, &ClaimMessage::Heard(flow), now, out);
            }
        }
        Ok(Fate::Consumed)
    }

    fn asks_who_sends(&self, key: &FlowKey) -> bool {
        let port = key.service_port(Direction::Inbound);
        let verdict = self
            .table
            .as_ref()
            .map(|table| table.decide(Direction::Inbound, key.peer(), key.ip_protocol, port));
        matches!(verdict, Some(Verdict::DenyUnknownWorkload(_)))
    }

    fn owner_of_claim(
        &mut self,
        index: PeerIndex,
        claim: &ClaimMessage,
        now: Now,
        out: &mut impl Outbox,
    ) -> Option<u16> {
        if self.config.place.is_alone() {
            return None;
        }
        let own = self.identity.as_ref()?.addresses;
        let peers = self.peers.get(index)?.addresses;
        match claim {
            ClaimMessage::Claim(flow, _) => {
                self.owner_of_opened(index, &flow.packet(peers, own), now, out)
            }
            ClaimMessage::Heard(flow) | ClaimMessage::Missed(flow) => {
                self.owner_of_rejected(index, &flow.packet(own, peers), now, out)
            }
        }
    }

    /// Says something to a peer's daemon. False when it is none, or cannot be reached now.
    fn say(
        &mut self,
        index: PeerIndex,
        message: &ClaimMessage,
        now: Now,
        out: &mut impl Outbox,
    ) -> bool {
        let peer = self.peers.get(index);
        let Some(peer) = peer.filter(|peer| peer.kind == PeerKind::Mesh) else {
            return false;
        };
        let plaintext_max = peer.path_mtu.limit(false);
        self.send_message(index, &message.encode(), plaintext_max, now, out)
    }
}
