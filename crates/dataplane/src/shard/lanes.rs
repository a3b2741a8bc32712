//! Lanes at a peer's home shard, which decides about them: greeting the peer, beginning them when
//! the main session has much to carry, opening them for flows, and taking the flows back.

use model::map::PeerIndex;
use model::time::Now;
use rand_chacha::rand_core::Rng;
use wireguard::ConsumedInitiation;

use super::inbound::Fate;
use super::misdirected::Introduction;
use super::{Shard, tunnel_time};
use crate::command::PeerKind;
use crate::drops::DropReason;
use crate::event::Event;
use crate::flows::{Flow, FlowKey, SWEEP_INTERVAL};
use crate::greeting::Greeting;
use crate::lanes::{
    Begin, GREETED_WITHIN, GivenFlows, Lane, LaneMessage, Lanes, Mark, SAID_AGAIN_AFTER, Stage,
    View, Word, lane_of_date,
};
use crate::outbox::{Misdirected, Outbox, Path};
use crate::spread::{hash_of, lane_of};

/// Greetings.
impl Shard {
    /// Tells a mesh daemon how many shards there are, now that there is a session with it. Whoever
    /// has one says nothing.
    pub(super) fn greet(&mut self, index: PeerIndex, now: Now, out: &mut impl Outbox) {
        if self.config.place.is_alone() {
            return;
        }
        if let Some(lanes) = self.lanes_made(index) {
            lanes.greetings = 0;
            // The handshake may have found the peer elsewhere.
            self.tell_path(index, None, now, out);
            self.ask_greeting(index, now, out);
        }
    }

    fn ask_greeting(&mut self, index: PeerIndex, now: Now, out: &mut impl Outbox) {
        let Some(lanes) = self
            .lanes_of(index)
            .filter(|it| it.greetings < Lanes::GREETINGS_MAX)
        else {
            return;
        };
        lanes.greetings += 1;
        lanes.asked_at = Some(tunnel_time(now));
        self.send_greeting(index, true, now, out);
        self.wake_at(index, tunnel_time(now) + GREETED_WITHIN);
    }

    fn send_greeting(&mut self, index: PeerIndex, asks: bool, now: Now, out: &mut impl Outbox) {
        let plaintext_max = usize::from(self.config.mtu);
        let shards = self.config.place.count();
        let Some(peer) = self.peers.get_mut(index) else {
            return;
        };
        let mark = peer
            .lanes
            .as_ref()
            .map_or(Mark::default(), |it| it.own_mark);
        let message = Greeting { asks, shards, mark }.encode();
        self.send_message(index, &message, plaintext_max, now, out);
    }

    /// Takes what a peer says of its shards.
    pub(super) fn handle_greeting(
        &mut self,
        index: PeerIndex,
        greeting: Greeting,
        now: Now,
        out: &mut impl Outbox,
    ) -> Fate {
        let peer = self
            .peers
            .get_mut(index)
            .expect("the caller found the peer");
        // In a lane it means nothing, and more of them than a peer has reason for mean no good.
        if peer.lane.is_some() || !peer.greetings.take(now.monotonic) {
            return Fate::Consumed;
        }
        let shards = greeting.shards.min(self.config.place.count());
        if let Some(lanes) = self.lanes_made(index) {
            lanes.asked_at = None;
            let is_news = lanes.peer_mark != Some(greeting.mark) || lanes.view.count != shards;
            if is_news {
                // Another run of the peer's daemon has none of the sessions of before.
                lanes.end_all();
                lanes.peer_mark = Some(greeting.mark);
                lanes.view.count = shards;
                self.say_what_waits(index, now, out);
            }
        }
        if greeting.asks {
            self.send_greeting(index, false, now, out);
        }
        Fate::Consumed
    }
}

/// Beginning and opening.
impl Shard {
    /// A packet would go by a lane that is not open: begins it, if there is traffic that is worth it.
    pub(super) fn want_lane(
        &mut self,
        index: PeerIndex,
        lane: u16,
        now: Now,
        out: &mut impl Outbox,
    ) {
        let bytes_per_sec = self.config.limits.lane_bytes_per_sec;
        let Some(peer) = self.peers.get_mut(index) else {
            return;
        };
        let bytes = peer.received_bytes + peer.sent_bytes;
        let Some(lanes) = &mut peer.lanes else { return };
        if lanes.is_wanted(bytes, bytes_per_sec, now.monotonic)
            && lanes.stage(lane) == Stage::Ended
            && peer.tunnel.has_session(tunnel_time(now))
        {
            // Without room there, the next packet wants it too.
            let _ = self.begin_lane(index, lane, None, out);
        }
    }

    /// Answers an initiation of a peer of this shard, when it is new: the main session's here, a
    /// lane's in its shard.
    pub(super) fn answer_by_lane(
        &mut self,
        index: PeerIndex,
        from: Option<Path>,
        consumed: ConsumedInitiation,
        now: Now,
        out: &mut impl Outbox,
    ) -> Result<(), DropReason> {
        let peer = self.peers.get(index).expect("keys lead to peers");
        let (lane, mark) = match peer.kind {
            PeerKind::Mesh => lane_of_date(&consumed.timestamp()),
            PeerKind::Standard => (0, Mark::default()),
        };
        if lane == 0 {
            return self.answer(index, from, consumed, now, out);
        }
        let lanes = peer.lanes.as_ref();
        lanes
            .filter(|it| it.peer_mark.is_some() && it.own_mark == mark && lane < it.view.count)
            .ok_or(DropReason::HandshakeUnexpected)?;
        let introduction = Introduction::new(index, from, consumed);
        self.begin_lane(index, lane, Some(introduction), out)
    }

    fn begin_lane(
        &mut self,
        index: PeerIndex,
        lane: u16,
        introduction: Option<Introduction>,
        out: &mut impl Outbox,
    ) -> Result<(), DropReason> {
        let peer = self
            .peers
            .get_mut(index)
            .expect("the caller found the peer");
        let lanes = peer.lanes.as_mut().ok_or(DropReason::HandshakeUnexpected)?;
        let begin = Begin {
            preshared: peer.preshared.clone(),
            cipher: peer.cipher,
            path: peer.path,
            path_mtu: peer.path_mtu.clone(),
            mark: lanes.peer_mark.ok_or(DropReason::HandshakeUnexpected)?,
            introduction,
        };
        if !self.say_to_lane(index, lane, Word::Begin(Box::new(begin)), out) {
            return Err(DropReason::HandOverFull);
        }
        if let Some(lanes) = self.lanes_of(index)
            && lanes.stage(lane) != Stage::Ready
        {
            lanes.lane_mut(lane).stage = Stage::Begun;
        }
        Ok(())
    }

    /// The lane has a session: opens it, now or as soon as there is room to say so.
    fn lane_ready(
        &mut self,
        index: PeerIndex,
        lane: u16,
        mark: Mark,
        now: Now,
        out: &mut impl Outbox,
    ) {
        let Some(lanes) = self.lanes_of(index) else {
            return;
        };
        if lanes.peer_mark == Some(mark) && lane < lanes.view.count {
            lanes.lane_mut(lane).stage = Stage::Ready;
            self.say_what_waits(index, now, out);
        }
    }

    /// Gives a lane its flows; every shard is to hear of it.
    fn open_lane(&mut self, index: PeerIndex, lane: u16, out: &mut impl Outbox) {
        if self.holds_lanes {
            return;
        }
        let lanes = self.lanes_of(index).expect("the caller found them");
        let count = lanes.view.count;
        let epoch = lanes.lane_mut(lane).epoch.wrapping_add(1);
        let is_its = |key: &FlowKey| key.peer() == index && lane_of(hash_of(key), count) == lane;
        let its_flows = self.flows.iter().filter(|flow| is_its(&flow.key));
        let flows: Vec<Flow> = its_flows.copied().collect();
        let keys: Vec<FlowKey> = flows.iter().map(|flow| flow.key).collect();
        let claims = self.claims.of_flows(is_its);
        let flows = GivenFlows { flows, claims };
        let word = Word::Open {
            epoch,
            count,
            flows,
        };
        if !self.say_to_lane(index, lane, word, out) {
            return;
        }
        for key in keys {
            self.flows.remove(&key);
        }
        self.claims.give(is_its);
        self.counters.set_flows(&self.flows);
        let lanes = self.lanes_of(index).expect("they were there above");
        let stage = Stage::Begun;
        *lanes.lane_mut(lane) = Lane { stage, epoch };
        lanes.set_open(lane, true);
    }
}

/// What lanes say.
impl Shard {
    /// Takes what this host's shard of a lane says of it.
    pub(super) fn hear_lane(&mut self, message: LaneMessage, now: Now, out: &mut impl Outbox) {
        let LaneMessage {
            peer: index,
            addresses,
            lane,
            word,
        } = message;
        let peer = self.peers.get_mut(index);
        let Some(peer) = peer.filter(|it| it.addresses == addresses) else {
            return;
        };
        match word {
            Word::Ready { mark } => self.lane_ready(index, lane, mark, now, out),
            Word::Closed { epoch, flows } => {
                self.take_flows(flows, now);
                if let Some(lanes) = self.lanes_of(index)
                    && lanes.view.is_open(lane)
                    && lanes.lane_mut(lane).epoch == epoch
                {
                    lanes.set_open(lane, false);
                    lanes.lane_mut(lane).stage = Stage::Ended;
                    self.say_what_waits(index, now, out);
                }
            }
            Word::Gone => {
                if let Some(lanes) = self.lanes_of(index)
                    && !lanes.view.is_open(lane)
                {
                    lanes.lane_mut(lane).stage = Stage::Ended;
                }
            }
            Word::Moved(path) if peer.path.map(|it| it.remote) != Some(path.remote) => {
                peer.set_path(path);
                peer.is_path_proven = true;
                self.emit(Event::PeerMoved { peer: index, path });
                self.tell_path(index, Some(lane), now, out);
            }
            Word::Moved(_) => {}
            Word::Begin(_) | Word::Open { .. } | Word::End | Word::Path(_) => {}
            Word::Standing { .. } => {}
        }
    }

    /// Remembers flows that another shard gives.
    pub(super) fn take_flows(&mut self, given: GivenFlows, now: Now) {
        if given.is_empty() {
            return;
        }
        self.claims.take(given.claims, now.monotonic);
        for flow in given.flows {
            self.flows.insert(flow, now.monotonic);
        }
        self.counters.set_flows(&self.flows);
        self.next_sweep
            .get_or_insert(now.monotonic + SWEEP_INTERVAL);
    }
}

/// What lanes, and other shards, are told.
impl Shard {
    /// Does what is due for the lanes to a peer.
    pub(super) fn tend_lanes(&mut self, index: PeerIndex, now: Now, out: &mut impl Outbox) {
        let time = tunnel_time(now);
        let Some(lanes) = self.lanes_of(index) else {
            return;
        };
        if std::mem::take(&mut lanes.has_moved) {
            self.tell_path(index, None, now, out);
        }
        let Some(lanes) = self.lanes_of(index) else {
            return;
        };
        if lanes.asked_at.is_some_and(|at| at + GREETED_WITHIN <= time) {
            lanes.asked_at = None;
            if lanes.peer_mark.take().is_some() {
                lanes.end_all();
                lanes.view.count = 1;
            }
            self.ask_greeting(index, now, out);
        }
        self.say_what_waits(index, now, out);
        if let Some(at) = self.lanes_of(index).and_then(|lanes| lanes.deadline()) {
            self.wake_at(index, at);
        }
    }

    /// Ends every lane to a peer, which is gone or has become another.
    pub(super) fn end_lanes(&mut self, index: PeerIndex, now: Now, out: &mut impl Outbox) {
        if let Some(lanes) = self.lanes_of(index) {
            lanes.end_all();
            self.say_what_waits(index, now, out);
        }
    }

    /// None of this host's sessions is left: the peer is to hear of another mark.
    pub(super) fn forget_lanes(&mut self, index: PeerIndex, now: Now) {
        let mark = Mark::of_random(self.dice.next_u32());
        if let Some(lanes) = self.lanes_of(index) {
            lanes.end_all();
            lanes.own_mark = mark;
            lanes.peer_mark = None;
            lanes.view.count = 1;
            lanes.say_again_at = Some(tunnel_time(now));
            self.wake_at(index, tunnel_time(now));
        }
    }

    /// Says what was not said yet to the shards of lanes, and which are open to all.
    fn say_what_waits(&mut self, index: PeerIndex, now: Now, out: &mut impl Outbox) {
        let place = self.config.place;
        let Some(lanes) = self.lanes_of(index) else {
            return;
        };
        lanes.say_again_at = None;
        if lanes.untold == 0 && !lanes.has_unsaid() {
            return;
        }
        let ending: Vec<u16> = lanes.in_stage(Stage::Ending).collect();
        let ready: Vec<u16> = lanes.in_stage(Stage::Ready).collect();
        for lane in ending {
            if self.say_to_lane(index, lane, Word::End, out)
                && let Some(lanes) = self.lanes_of(index)
            {
                lanes.lane_mut(lane).stage = Stage::Ended;
            }
        }
        for lane in ready {
            self.open_lane(index, lane, out);
        }
        let lanes = self.lanes_of(index).expect("they were there above");
        lanes.untold &= u64::MAX >> (64 - place.count()) & !(1 << place.number());
        let (view, untold) = (lanes.view, lanes.untold);
        for lane in 1..place.count() {
            let shard = place.of_lane(index, lane);
            if untold & 1 << shard != 0 && self.tell_standing(index, lane, view, out) {
                let lanes = self.lanes_of(index).expect("they were there above");
                lanes.untold &= !(1 << shard);
            }
        }
        let lanes = self.lanes_of(index).expect("they were there above");
        if lanes.untold != 0 || lanes.has_unsaid() {
            let at = tunnel_time(now) + SAID_AGAIN_AFTER;
            lanes.say_again_at = Some(at);
            self.wake_at(index, at);
        }
    }

    fn tell_standing(
        &mut self,
        index: PeerIndex,
        lane: u16,
        view: View,
        out: &mut impl Outbox,
    ) -> bool {
        let lanes = self.lanes_of(index).expect("the caller found them");
        let epoch = lanes.all.get(usize::from(lane)).map_or(0, |it| it.epoch);
        self.say_to_lane(index, lane, Word::Standing { view, epoch }, out)
    }

    /// Tells the lanes, but for the one that said so, where the peer is now.
    fn tell_path(
        &mut self,
        index: PeerIndex,
        except: Option<u16>,
        now: Now,
        out: &mut impl Outbox,
    ) {
        let peer = self.peers.get(index).expect("the caller found the peer");
        let (Some(lanes), Some(path)) = (&peer.lanes, peer.path) else {
            return;
        };
        let begun = [Stage::Begun, Stage::Ready].map(|stage| lanes.in_stage(stage));
        let begun: Vec<u16> = begun.into_iter().flatten().collect();
        let mut is_told = true;
        for lane in begun.into_iter().filter(|lane| Some(*lane) != except) {
            is_told &= self.say_to_lane(index, lane, Word::Path(path), out);
        }
        if !is_told && let Some(lanes) = self.lanes_of(index) {
            let at = tunnel_time(now) + SAID_AGAIN_AFTER;
            lanes.has_moved = true;
            lanes.say_again_at = Some(at);
            self.wake_at(index, at);
        }
    }

    /// Says something to the shard of a lane. Returns whether there was room.
    fn say_to_lane(&self, index: PeerIndex, lane: u16, word: Word, out: &mut impl Outbox) -> bool {
        let peer = self.peers.get(index).expect("the caller found the peer");
        let message = LaneMessage {
            peer: index,
            addresses: peer.addresses,
            lane,
            word,
        };
        let to = self.config.place.of_lane(index, lane);
        out.hand_over(to, Misdirected::Lane(message))
    }

    /// Returns what is known of the lanes to a peer of this shard.
    pub(super) fn lanes_of(&mut self, index: PeerIndex) -> Option<&mut Lanes> {
        self.peers.get_mut(index)?.lanes.as_deref_mut()
    }

    /// The same, made when there is none; `None`: there can be no lanes to this peer.
    fn lanes_made(&mut self, index: PeerIndex) -> Option<&mut Lanes> {
        let mark = Mark::of_random(self.dice.next_u32());
        let is_alone = self.config.place.is_alone();
        let peer = self.peers.get_mut(index)?;
        if is_alone || peer.kind != PeerKind::Mesh || peer.lane.is_some() {
            return None;
        }
        let lanes = &mut peer.lanes;
        Some(lanes.get_or_insert_with(|| Box::new(Lanes::new(mark))))
    }

    /// Sees that a peer's timers are looked at then.
    pub(super) fn wake_at(&mut self, index: PeerIndex, at: std::time::Duration) {
        if let Some(peer) = self.peers.get_mut(index) {
            self.timers.schedule(index, at, &mut peer.scheduled);
        }
    }
}
