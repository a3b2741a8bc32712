//! Shards at work: datagrams and packets in, and what they send, deliver and tell.

use std::net::SocketAddr;
use std::time::Duration;

use dataplane::{Balance, HandshakeJob, Path, Shard, VirtioHeader};
use model::time::Now;

use super::World;
use crate::courier::{Courier, Sent};
use crate::event::{Datagram, Event, HostIndex, Note, Run};
use crate::network::{Leg, Place, Realm, STRANGER};
use crate::trace::digest;

/// What shards of one host may give to each other after one input.
const HAND_OVERS_MAX: usize = 10_000;

/// Inputs.
impl World {
    pub(crate) fn datagram_arrives(&mut self, datagram: Datagram) {
        let Datagram {
            realm,
            from,
            to,
            ecn,
            mut bytes,
        } = datagram;
        let note = Note::Datagram {
            from,
            to,
            length: bytes.len(),
            digest: digest(&bytes),
        };
        self.note(note);
        let Some(index) = self.network.arrive(realm, from, to, self.now) else {
            return;
        };
        if self.host(index).running.is_none() {
            return;
        }
        let path = Path {
            remote: from,
            source: Some(self.host(index).home),
        };
        let number = self.steered(index, &bytes);
        self.with_shard(index, number, |shard, now, out| {
            shard.handle_datagram(path, ecn, &mut bytes, now, out);
        });
        self.drive_host(index);
    }

    /// Which socket the kernel gives a datagram to: the program in `meshd/src/linux/steering.rs` reads
    /// the receiver's index.
    fn steered(&self, index: HostIndex, datagram: &[u8]) -> usize {
        let byte = match datagram.first() {
            Some(3 | 4) => datagram.get(4),
            Some(2) => datagram.get(8),
            _ => None,
        };
        let count = usize::from(self.scenario.shards_of(index));
        byte.map_or(0, |byte| usize::from(*byte) % count)
    }

    pub(crate) fn handshake_ends(
        &mut self,
        index: HostIndex,
        run: Run,
        number: usize,
        job: HandshakeJob,
    ) {
        if !self.is_running(index, run) {
            return;
        }
        self.note(Note::Handshake(index));
        let done = job.run();
        self.with_shard(index, number, |shard, now, out| {
            shard.handle_handshake(done, now, out)
        });
        self.drive_host(index);
    }

    /// An application of the host, or the host itself, sends a packet into the overlay.
    pub(crate) fn application_sends(&mut self, index: HostIndex, run: Run, mut packet: Vec<u8>) {
        if !self.is_running(index, run) {
            return;
        }
        self.note(Note::Packet(index, digest(&packet)));
        // Any of the device's queues.
        let count = u64::from(self.scenario.shards_of(index));
        let number = usize::try_from(digest(&packet) % count).expect("few shards");
        self.with_shard(index, number, |shard, now, out| {
            shard.handle_overlay_packet(VirtioHeader::default(), &mut packet, now, out);
        });
        self.drive_host(index);
    }
}

/// Outputs.
impl World {
    /// Does something to one of a host's shards and carries out what follows, in all of them.
    pub(crate) fn with_shard(
        &mut self,
        index: HostIndex,
        number: usize,
        act: impl FnOnce(&mut Shard, Now, &mut Courier),
    ) {
        let now = self.host(index).now(self.now);
        let Some(running) = &mut self.hosts[index.position()].running else {
            return;
        };
        let mut courier = Courier::default();
        act(&mut running.shards[number].0, now, &mut courier);
        let mut changed = vec![number];
        for _ in 0..HAND_OVERS_MAX {
            let Some((to, handed)) = courier.handed.pop_front() else {
                break;
            };
            let to = usize::from(to);
            handed.give(&mut running.shards[to].0, now, &mut courier);
            changed.push(to);
        }
        let is_endless = !courier.handed.is_empty();
        let (run, mut jobs, mut balances) = (running.run, Vec::new(), Vec::new());
        changed.sort_unstable();
        changed.dedup();
        for number in changed {
            let (shard, counters) = &mut running.shards[number];
            while let Some(event) = shard.poll_event() {
                match event {
                    dataplane::Event::Handshake(job) => jobs.push((number, job)),
                    event => running.agent.handle_shard(event, now),
                }
            }
            balances.push(counters.balance());
        }
        for balance in balances {
            self.check_balance(index, balance);
        }
        self.object(
            "shards give nothing to each other for ever",
            is_endless.then(|| index.to_string()),
        );
        for (shard, job) in jobs {
            let (low, high) = (Duration::from_micros(100), Duration::from_millis(2));
            let after = self.dice.between(low, high);
            self.push_in(
                after,
                Event::Handshake {
                    host: index,
                    run,
                    shard,
                    job,
                },
            );
        }
        for sent in courier.datagrams {
            self.send_datagram(index, &sent);
        }
        for packet in courier.packets {
            self.packet_delivered(index, &packet);
        }
    }

    pub(super) fn check_balance(&mut self, index: HostIndex, balance: Balance) {
        let objection = (!balance.holds()).then(|| format!("{index}: {balance:?}"));
        self.object("every packet is delivered or counted", objection);
    }

    /// Sends from the machine's address, also when the shard remembers an older one: so does
    /// `meshd` when the kernel refuses that.
    pub(crate) fn send_datagram(&mut self, index: HostIndex, sent: &Sent) {
        let Sent {
            via,
            ecn,
            bytes,
            is_whole,
        } = sent;
        let home = self.host(index).home;
        let Some(leg) = self.network.send(index, home, via.remote, self.now) else {
            return;
        };
        let (from, to) = (Place::Host(index), Place::Host(leg.there));
        let passes = !is_whole || self.network.takes(index, leg.there, bytes.len());
        if !passes || !self.network.is_open(from, to) {
            return;
        }
        if leg.realm == Realm::Internet {
            self.be_overheard(via.remote, bytes);
        }
        for arrival in self.network.arrivals(from, to, bytes.len(), &mut self.dice) {
            let mut bytes = bytes.to_vec();
            if let Some(bit) = arrival.damaged_bit {
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            let Leg { realm, source, .. } = leg;
            let datagram = Datagram {
                realm,
                from: source,
                to: via.remote,
                ecn: *ecn,
                bytes,
            };
            self.push_in(arrival.after, Event::Datagram(datagram));
        }
    }

    fn be_overheard(&mut self, to: SocketAddr, bytes: &[u8]) {
        let Some((to, bytes)) = self.network.overhear(to, bytes, &mut self.dice) else {
            return;
        };
        let datagram = Datagram {
            realm: Realm::Internet,
            from: STRANGER,
            to,
            ecn: 0,
            bytes,
        };
        let after = self
            .dice
            .between(Duration::from_millis(1), Duration::from_secs(5));
        self.push_in(after, Event::Datagram(datagram));
    }
}
