//! Rejections: telling a peer that its packet was denied here, and hearing it from a peer.
//!
//! A peer's word is taken only about a flow that this host opened with that very peer, and ends it:
//! it can be said once for each, and no more than the peer could do by a reset of its own.

use std::net::SocketAddr;

use model::ids::PolicyVersion;
use model::map::PeerIndex;
use model::name::RuleId;
use model::rule::Direction;
use model::time::{Instant, Now};
use policy::Verdict;

use super::Shard;
use super::inbound::Fate;
use super::spreading::hand_opened_over;
use super::verdicts::Denied;
use crate::claim::ClaimMessage;
use crate::command::PeerKind;
use crate::drops::DropReason;
use crate::event::{Denial, Event};
use crate::flows::FlowKey;
use crate::greeting::Greeting;
use crate::outbox::{Misdirected, Outbox};
use crate::packet::{Fragment, Headers};
use crate::probe::ProbeMessage;
use crate::refusal::Refusal;
use crate::rejection::Rejection;

/// A packet of this host that a peer denies, as far as it is quoted.
struct Rejected {
    packet: Vec<u8>,
    headers: Headers,
    key: FlowKey,
    rule: Option<(RuleId, PolicyVersion)>,
}

impl Shard {
    /// Tells a peer that its packet was denied, when it is one to be told and asked for the flow.
    pub(super) fn reject(
        &mut self,
        index: PeerIndex,
        headers: &Headers,
        packet: &[u8],
        denied: Denied,
        now: Now,
        out: &mut impl Outbox,
    ) {
        let Some(peer) = self.peers.get_mut(index) else {
            return;
        };
        let is_askers = denied.opened == Direction::Inbound;
        if peer.kind != PeerKind::Mesh || !is_askers || !Refusal::Prohibited.may_answer(headers) {
            return;
        }
        if !peer.rejections.take(now.monotonic) || !self.rejections.take(now.monotonic) {
            return;
        }
        let Some(table) = &self.table else {
            return;
        };
        let rule = match denied.verdict {
            Verdict::DenyByRule(rule) => Some(rule),
            _ => None,
        };
        let rule = rule.map(|rule| (table.rule(rule).id.clone(), table.version()));
        let message = Rejection::new(headers, packet, rule).encode();
        let plaintext_max = peer.path_mtu.limit(false);
        if self.send_message(index, &message, plaintext_max, now, out) {
            self.counters.add_rejection();
        }
    }

    /// Takes what a peer's daemon says inside the tunnel.
    pub(super) fn handle_control(
        &mut self,
        index: PeerIndex,
        datagram_bytes: usize,
        message: &[u8],
        now: Now,
        out: &mut impl Outbox,
    ) -> Result<Fate, DropReason> {
        match ProbeMessage::decode(message) {
            Some(ProbeMessage::Probe { id, size }) => {
                return self.handle_probe(index, id, size, now, out);
            }
            Some(ProbeMessage::Answer { id, size }) => {
                return self.handle_probe_answer(index, id, size, now, out);
            }
            None => {}
        }
        if let Some(claim) = ClaimMessage::decode(message) {
            return self.handle_claim(index, datagram_bytes, (claim, message), now, out);
        }
        if let Some(greeting) = Greeting::decode(message) {
            return Ok(self.handle_greeting(index, greeting, now, out));
        }
        let rejected = self.read_rejection(index, message)?;
        let is_here = self.flows.find_mut(&rejected.key, now.monotonic).is_some();
        let owner = match is_here {
            true => None,
            // The peer has no lane for it, or has one where there is none here.
            false => self.owner_of_rejected(index, &rejected.packet, now, out),
        };
        let Some(owner) = owner else {
            return self.end_rejected(rejected, now, out);
        };
        let opened = Misdirected::Opened {
            peer: index,
            ecn: 0,
            datagram_bytes,
            bytes: message,
        };
        hand_opened_over(owner, opened, out)
    }

    /// Takes a rejection, or what is said of a claim, that came by another session of the peer than its
    /// flow's.
    pub(super) fn handle_handed_control(
        &mut self,
        index: PeerIndex,
        message: &[u8],
        now: Now,
        out: &mut impl Outbox,
    ) -> Result<Fate, DropReason> {
        if self.identity.is_none() {
            return Err(DropReason::NoIdentity);
        }
        if self.peers.get(index).is_none() {
            return Err(DropReason::PeerRemoved);
        }
        if let Some(claim) = ClaimMessage::decode(message) {
            return self.take_claim(index, claim, now, out);
        }
        let rejected = self.read_rejection(index, message)?;
        self.end_rejected(rejected, now, out)
    }

    fn read_rejection(&self, index: PeerIndex, message: &[u8]) -> Result<Rejected, DropReason> {
        let rejection = Rejection::decode(message).ok_or(DropReason::BadControl)?;
        let peer = self.peers.get(index).expect("the caller found the peer");
        let identity = self.identity.as_ref().expect("datagrams need an identity");
        let packet = rejection.packet(identity.addresses, peer.addresses);
        let headers = Headers::parse(&packet).map_err(|_| DropReason::BadControl)?;
        let is_made_up = headers.ip_protocol != rejection.ip_protocol;
        if is_made_up || headers.fragment != Fragment::Whole {
            return Err(DropReason::BadControl);
        }
        Ok(Rejected {
            key: FlowKey::of(&headers, Direction::Outbound, index),
            rule: rejection.rule,
            headers,
            packet,
        })
    }

    /// Ends the flow that a peer denies, when this host opened it, and tells its application.
    fn end_rejected(
        &mut self,
        rejected: Rejected,
        now: Now,
        out: &mut impl Outbox,
    ) -> Result<Fate, DropReason> {
        let Rejected {
            packet,
            headers,
            key,
            rule,
        } = rejected;
        self.flows
            .find_mut(&key, now.monotonic)
            .filter(|flow| flow.opened == Direction::Outbound)
            .ok_or(DropReason::UnrelatedRejection)?;
        self.flows.remove(&key);
        self.counters.set_flows(&self.flows);
        self.counters.add_denied_by_peer();
        self.tell_rejection(&headers, key, rule, now.monotonic);
        self.refuse(Refusal::Prohibited, &headers, &packet, now, out);
        Ok(Fate::Consumed)
    }

    fn tell_rejection(
        &mut self,
        headers: &Headers,
        key: FlowKey,
        rule: Option<(RuleId, PolicyVersion)>,
        now: Instant,
    ) {
        if !self.denials.may_tell(key, Direction::Outbound, now) {
            return;
        }
        let workload = self.sender_of(&key, Direction::Outbound, now);
        let (source_port, destination_port) = headers.ports();
        let (rule, version) = match rule {
            Some((rule, version)) => (Some(rule), version),
            None => (None, PolicyVersion::default()),
        };
        self.emit(Event::Rejected(Denial {
            direction: Direction::Outbound,
            peer: key.peer(),
            ip_protocol: key.ip_protocol,
            source: SocketAddr::new(headers.source, source_port),
            destination: SocketAddr::new(headers.destination, destination_port),
            rule,
            needs_workload: false,
            workload,
            version,
        }));
    }
}
