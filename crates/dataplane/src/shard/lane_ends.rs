//! Lanes in their own shards: a peer of another shard that has a session, timers and flows here too,
//! as long as its home shard wants it.

use model::map::PeerIndex;
use model::time::Now;
use rand_chacha::rand_core::Rng;
use wireguard::Initiation;

use super::misdirected::Introduction;
use super::{Shard, tunnel_time};
use crate::command::PeerKind;
use crate::drops::DropReason;
use crate::flows::FlowKey;
use crate::lanes::{
    Begin, GivenFlows, LaneEnd, LaneMessage, Past, Renewal, SAID_AGAIN_AFTER, Word,
};
use crate::outbox::{Misdirected, Outbox};
use crate::peers::{Peer, PeerParts, preshared_key};

/// What the home shard says.
impl Shard {
    /// Takes what one of this host's shards says of a lane to another.
    pub fn handle_lane(&mut self, message: LaneMessage, now: Now, out: &mut impl Outbox) {
        match self.config.place.has(message.peer) {
            true => self.hear_lane(message, now, out),
            false => self.hear_home(message, now, out),
        }
    }

    fn hear_home(&mut self, message: LaneMessage, now: Now, out: &mut impl Outbox) {
        let LaneMessage {
            peer: index,
            addresses,
            lane,
            word,
        } = message;
        let known = self.elsewhere_mut(index);
        let Some(known) = known.filter(|it| it.addresses == addresses) else {
            if let Word::Begin(begin) = word {
                self.refuse_introduction(begin.introduction, DropReason::HandshakeUnexpected);
            }
            return;
        };
        match word {
            Word::Begin(begin) => self.begin_lane_end(index, lane, *begin, now, out),
            Word::Open {
                epoch,
                count,
                flows,
            } => {
                known.epoch = epoch;
                known.view.count = count;
                self.open_lane_end(index, lane, epoch, flows, now, out);
            }
            Word::Standing { view, epoch } => (known.view, known.epoch) = (view, epoch),
            Word::End => {
                if let Some(end) = self.lane_end(index) {
                    (end.is_ended, end.is_wanted) = (true, false);
                    self.tend_lane_end(index, now, out);
                }
            }
            Word::Path(path) => {
                if let Some(peer) = self.peers.get_mut(index) {
                    peer.set_path(path);
                }
            }
            Word::Ready { .. } | Word::Closed { .. } | Word::Gone | Word::Moved(_) => {}
        }
    }

    fn begin_lane_end(
        &mut self,
        index: PeerIndex,
        lane: u16,
        begin: Begin,
        now: Now,
        out: &mut impl Outbox,
    ) {
        if self.identity.is_none() {
            return self.refuse_introduction(begin.introduction, DropReason::NoIdentity);
        }
        match self.peers.get(index) {
            Some(_) => self.renew_lane_end(index, &begin),
            None => self.make_lane_end(index, lane, &begin, now),
        }
        let peer = self.peers.get_mut(index).expect("it was made above");
        match begin.introduction {
            None => peer.tunnel.request_handshake(tunnel_time(now)),
            Some(Introduction { from, consumed, .. }) => {
                if let Err(reason) = self.answer(index, from, *consumed, now, out) {
                    self.count_refused_introduction(reason);
                }
            }
        }
        self.settle(index, now, out);
    }

    fn renew_lane_end(&mut self, index: PeerIndex, begin: &Begin) {
        let peer = self
            .peers
            .get_mut(index)
            .expect("the caller found the peer");
        peer.tunnel.set_cipher(begin.cipher);
        peer.tunnel
            .set_preshared_key(preshared_key(begin.preshared.as_ref()));
        if let Some(path) = begin.path {
            peer.set_path(path);
        }
        if let Some(end) = &mut peer.lane {
            end.mark = begin.mark;
            end.is_closing = end.is_open && (end.is_ended || end.is_closing);
            end.is_ended = false;
            end.is_wanted = true;
        }
    }

    fn make_lane_end(&mut self, index: PeerIndex, lane: u16, begin: &Begin, now: Now) {
        let incarnation = self.next_incarnation();
        let jitter_seed = self.dice.next_u64();
        let limits = self.config.limits;
        let known = self.elsewhere_mut(index).expect("the caller found it");
        let parts = PeerParts {
            incarnation,
            kind: PeerKind::Mesh,
            key: known.key,
            addresses: known.addresses,
            preshared: begin.preshared.clone(),
            // The main session keeps the path open: it is the same one.
            keepalive: None,
            cipher: begin.cipher,
            path_mtu: begin.path_mtu.clone(),
            rejections_per_sec: limits.rejections_per_peer_per_sec,
            misses_per_sec: limits.misses_per_peer_per_sec,
            greetings_per_sec: limits.greetings_per_peer_per_sec,
            jitter_seed,
        };
        let past = known.past.take();
        let mut peer = Peer::new(parts, tunnel_time(now));
        peer.path = begin.path;
        if let Some(past) = past {
            peer.received_bytes = past.received_bytes;
            peer.sent_bytes = past.sent_bytes;
            if let Some(date) = past.last_initiation {
                peer.tunnel.refuse_initiations_until(date);
            }
        }
        peer.lane = Some(Box::new(LaneEnd::new(lane, begin.mark)));
        self.peers.insert(index, peer);
    }

    /// Takes a lane's flows. Without a session they go back at once, or as soon as there is room.
    fn open_lane_end(
        &mut self,
        index: PeerIndex,
        lane: u16,
        epoch: u32,
        flows: GivenFlows,
        now: Now,
        out: &mut impl Outbox,
    ) {
        self.take_flows(flows, now);
        let Some(end) = self.lane_end(index) else {
            return self.repeat_closed(index, lane, out);
        };
        end.epoch = epoch;
        end.is_open = true;
        end.is_closing = false;
        end.is_ready = false;
        self.tend_lane_end(index, now, out);
    }
}

/// A lane's session.
impl Shard {
    /// A lane has a new session: the home shard is to open it.
    pub(super) fn lane_agreed(&mut self, index: PeerIndex, now: Now, out: &mut impl Outbox) {
        let peer = self
            .peers
            .get_mut(index)
            .expect("the caller found the peer");
        let bytes = peer.received_bytes + peer.sent_bytes;
        if let Some(end) = &mut peer.lane {
            end.bytes_before = bytes;
            end.is_wanted = false;
            end.is_ready = !end.is_open || end.is_closing;
            self.tend_lane_end(index, now, out);
        }
    }

    /// A lane's session asks to be renewed, or for the first. Returns whether it is begun.
    pub(super) fn may_begin_in_lane(
        &mut self,
        index: PeerIndex,
        now: Now,
        out: &mut impl Outbox,
    ) -> bool {
        let time = tunnel_time(now);
        let worth = self.config.limits.lane_bytes_kept;
        let peer = self
            .peers
            .get_mut(index)
            .expect("the caller found the peer");
        let bytes = peer.received_bytes + peer.sent_bytes;
        let age = peer
            .tunnel
            .last_handshake_at()
            .map(|at| time.saturating_sub(at));
        let Some(end) = &mut peer.lane else {
            return true;
        };
        if end.is_ended || end.is_wanted {
            return end.is_wanted;
        }
        let Some(age) = age else {
            return true;
        };
        let is_worth_it = bytes - end.bytes_before >= worth;
        let renewal = Renewal::of(age, peer.tunnel.is_worn(), is_worth_it);
        end.is_ended = renewal == Renewal::NotWorth;
        if renewal != Renewal::Due {
            self.close_lane_end(index, now, out);
        }
        renewal != Renewal::NotWorth
    }

    /// Gives the flows of a lane back. Returns whether it is closed now: there may be no room for them,
    /// or a successor is told of them here.
    pub(super) fn close_lane_end(
        &mut self,
        index: PeerIndex,
        now: Now,
        out: &mut impl Outbox,
    ) -> bool {
        let Some(end) = self.lane_end(index) else {
            return true;
        };
        if !end.is_open {
            return true;
        }
        let (lane, epoch) = (end.number, end.epoch);
        if self.holds_lanes || !self.say_closed(index, lane, epoch, out) {
            self.say_again(index, now);
            return false;
        }
        let end = self.lane_end(index).expect("it was there above");
        (end.is_open, end.is_closing) = (false, false);
        true
    }

    /// Tells the home shard that a lane is closed, and gives it the flows that are here. Returns whether
    /// there was room.
    fn say_closed(
        &mut self,
        index: PeerIndex,
        lane: u16,
        epoch: u32,
        out: &mut impl Outbox,
    ) -> bool {
        let is_its = |key: &FlowKey| key.peer() == index;
        let flows = match self.holds_lanes {
            true => GivenFlows::default(),
            false => GivenFlows {
                flows: self.flows.of_peer(index.0),
                claims: self.claims.of_flows(is_its),
            },
        };
        let gives = !flows.is_empty();
        let is_said = self.say_home(index, lane, Word::Closed { epoch, flows }, out);
        if is_said && gives {
            self.flows.remove_peer(index.0);
            self.claims.give(is_its);
            self.counters.set_flows(&self.flows);
        }
        is_said
    }

    /// Other shards think that a lane is open that is not: says so again, before the packet that shows
    /// it goes home.
    pub(super) fn repeat_closed(&mut self, index: PeerIndex, lane: u16, out: &mut impl Outbox) {
        let Some(known) = self.elsewhere_mut(index) else {
            return;
        };
        let epoch = known.epoch;
        self.say_closed(index, lane, epoch, out);
    }

    /// Does what is due for a lane.
    pub(super) fn tend_lane_end(&mut self, index: PeerIndex, now: Now, out: &mut impl Outbox) {
        let time = tunnel_time(now);
        let Some(peer) = self.peers.get(index) else {
            return;
        };
        let Some(end) = &peer.lane else { return };
        let (lane, has_moved, path) = (end.number, end.has_moved, peer.path);
        let is_over = end.is_ended || end.is_closing || !peer.tunnel.has_session(time);
        if end.is_open && is_over {
            self.close_lane_end(index, now, out);
        }
        self.say_ready(index, lane, now, out);
        if let Some(path) = path.filter(|_| has_moved) {
            let is_said = self.say_home(index, lane, Word::Moved(path), out);
            let end = self.lane_end(index).expect("it was there above");
            end.has_moved = !is_said;
            if !is_said {
                self.say_again(index, now);
            }
        }
        self.leave_lane(index, lane, now, out);
    }

    /// Tells the home shard of a new session, once it has the flows of the one before.
    fn say_ready(&mut self, index: PeerIndex, lane: u16, now: Now, out: &mut impl Outbox) {
        let Some(end) = self.lane_end(index) else {
            return;
        };
        if end.is_ready && end.is_closing {
            return;
        }
        let is_news = std::mem::take(&mut end.is_ready) && !end.is_open && !end.is_ended;
        let mark = end.mark;
        if is_news && !self.say_home(index, lane, Word::Ready { mark }, out) {
            let end = self.lane_end(index).expect("it was there above");
            end.is_ready = true;
            self.say_again(index, now);
        }
    }

    /// Forgets a lane of which nothing is left.
    fn leave_lane(&mut self, index: PeerIndex, lane: u16, now: Now, out: &mut impl Outbox) {
        let peer = self.peers.get(index).expect("the caller found the peer");
        let is_open = peer.lane.as_ref().is_some_and(|end| end.is_open);
        // An index is also taken for a handshake whose job is under way.
        if is_open || peer.tunnel.is_trying() || self.indices.has_any(index) {
            return;
        }
        let past = Past {
            number: lane,
            path_mtu: peer.path_mtu.report(),
            last_initiation: peer.tunnel.last_initiation(),
            received_bytes: peer.received_bytes,
            sent_bytes: peer.sent_bytes,
        };
        if !self.say_home(index, lane, Word::Gone, out) {
            return self.say_again(index, now);
        }
        self.drop_pending(index, DropReason::PeerUnreachable);
        self.indices.release_peer(index);
        self.peers.remove(index);
        if let Some(known) = self.elsewhere_mut(index) {
            known.past = Some(Box::new(past));
        }
    }

    fn say_again(&mut self, index: PeerIndex, now: Now) {
        self.wake_at(index, tunnel_time(now) + SAID_AGAIN_AFTER);
    }

    /// Says something to the peer's home shard. Returns whether there was room.
    fn say_home(&mut self, index: PeerIndex, lane: u16, word: Word, out: &mut impl Outbox) -> bool {
        let Some(known) = self.elsewhere_mut(index) else {
            return true;
        };
        let message = LaneMessage {
            peer: index,
            addresses: known.addresses,
            lane,
            word,
        };
        out.hand_over(self.config.place.of_peer(index), Misdirected::Lane(message))
    }

    pub(super) fn lane_end(&mut self, index: PeerIndex) -> Option<&mut LaneEnd> {
        self.peers.get_mut(index)?.lane.as_deref_mut()
    }

    fn refuse_introduction(&mut self, introduction: Option<Introduction>, reason: DropReason) {
        if introduction.is_some() {
            self.count_refused_introduction(reason);
        }
    }

    /// Whoever found out who it was counted the message, and that it did its work there.
    pub(super) fn count_refused_introduction(&mut self, reason: DropReason) {
        self.counters.add_datagram_received(Initiation::LEN);
        self.counters.add_drop(reason);
    }
}
