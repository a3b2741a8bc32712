//! What tunnels ask for: sending what waited, keepalives, initiations, being woken.

use model::map::PeerIndex;
use model::time::Now;
use wireguard::Action;

use super::Shard;
use crate::drops::DropReason;
use crate::event::Event;
use crate::outbox::Outbox;
use crate::packet::Headers;
use crate::peers::Peer;
use crate::pending::Pending;
use crate::refusal::Refusal;

impl Shard {
    /// As [`Shard::settle`], after a packet: nearly always there is nothing to do.
    #[inline]
    pub(super) fn settle_after_packet(
        &mut self,
        index: PeerIndex,
        now: Now,
        out: &mut impl Outbox,
    ) {
        let is_settled = |peer: &Peer| {
            let is_known = |at| peer.scheduled.is_some_and(|earlier| earlier <= at);
            peer.tunnel.is_settled() && peer.path_mtu.poll_timeout().is_none_or(is_known)
        };
        if !self.peers.get(index).is_none_or(is_settled) {
            self.settle(index, now, out);
        }
    }

    /// Does what a peer's tunnel asks for and sees that it is woken in time.
    pub(super) fn settle(&mut self, index: PeerIndex, now: Now, out: &mut impl Outbox) {
        loop {
            let Some(peer) = self.peers.get_mut(index) else {
                return;
            };
            let Some(action) = peer.tunnel.poll_action() else {
                break;
            };
            self.act(index, action, now, out);
        }
        let Some(peer) = self.peers.get_mut(index) else {
            return;
        };
        peer.tunnel.mark_settled();
        if let Some((at, _)) = peer.tunnel.poll_timeout() {
            self.timers.schedule(index, at, &mut peer.scheduled);
        }
        if let Some(at) = peer.path_mtu.poll_timeout() {
            self.timers.schedule(index, at, &mut peer.scheduled);
        }
    }

    fn act(&mut self, index: PeerIndex, action: Action, now: Now, out: &mut impl Outbox) {
        match action {
            Action::IndexRemoved(receiver) => self.indices.release(receiver),
            Action::SessionReady => self.begin_session(index, now, out),
            Action::SendInitiation => {
                if self.may_begin_in_lane(index, now, out) {
                    self.begin_initiation(index, now);
                }
            }
            Action::SendKeepalive => self.send_keepalive(index, now, out),
            Action::Expired => self.give_up(index, now, out),
        }
    }

    fn begin_session(&mut self, index: PeerIndex, now: Now, out: &mut impl Outbox) {
        let peer = self
            .peers
            .get_mut(index)
            .expect("the caller found the peer");
        peer.initiation = None;
        peer.path_mtu.handle_session();
        let path = peer.path.expect("the session's handshake came over a path");
        self.counters.add_handshake_completed();
        if peer.lane.is_some() {
            self.lane_agreed(index, now, out);
        } else {
            self.emit(Event::SessionEstablished { peer: index, path });
            self.greet(index, now, out);
        }
        // The rules may have changed while they waited: decided anew, as if they came now.
        for packet in self.take_pending(index) {
            match self.forward(&packet, now, out) {
                Ok(other) if other != index => self.settle(other, now, out),
                Ok(_) => {}
                Err(reason) => self.counters.add_drop(reason),
            }
        }
    }

    fn send_keepalive(&mut self, index: PeerIndex, now: Now, out: &mut impl Outbox) {
        self.send_message(index, &[], 0, now, out);
    }

    /// The peer did not answer for a minute and a half.
    fn give_up(&mut self, index: PeerIndex, now: Now, out: &mut impl Outbox) {
        let peer = self
            .peers
            .get_mut(index)
            .expect("the caller found the peer");
        peer.initiation = None;
        peer.is_path_proven = false;
        self.end_lanes(index, now, out);
        for packet in self.take_pending(index) {
            self.counters.add_drop(DropReason::PeerUnreachable);
            if let Ok(headers) = Headers::parse(&packet) {
                self.refuse(Refusal::Unreachable, &headers, &packet, now, out);
            }
        }
    }

    /// Drops the packets that wait for a peer.
    pub(super) fn drop_pending(&mut self, index: PeerIndex, reason: DropReason) {
        for _ in self.take_pending(index) {
            self.counters.add_drop(reason);
        }
    }

    /// Takes the packets that wait for a peer; they are not counted as waiting any more.
    fn take_pending(&mut self, index: PeerIndex) -> impl Iterator<Item = Vec<u8>> + use<> {
        let mut pending = match self.peers.get_mut(index) {
            Some(peer) => std::mem::take(&mut peer.pending),
            None => Pending::default(),
        };
        self.pending_bytes -= pending.bytes();
        for _ in 0..pending.len() {
            self.counters.remove_queued();
        }
        std::iter::from_fn(move || pending.pop())
    }
}
