//! Shards at work: datagrams and packets in, and what they send, deliver and tell.

use std::net::SocketAddr;
use std::time::Duration;

use dataplane::{Balance, HandshakeJob, Path, Shard, VirtioHeader};
use model::time::Now;

use super::World;
use crate::event::{Datagram, Event, HostIndex, Note, Run};
use crate::host::Courier;
use crate::network::{Leg, Place, Realm, STRANGER};
use crate::trace::digest;

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
        self.with_shard(index, |shard, now, out| {
            shard.handle_datagram(path, ecn, &mut bytes, now, out);
        });
        self.drive_host(index);
    }

    pub(crate) fn handshake_ends(&mut self, index: HostIndex, run: Run, job: HandshakeJob) {
        if !self.is_running(index, run) {
            return;
        }
        self.note(Note::Handshake(index));
        let done = job.run();
        self.with_shard(index, |shard, now, out| {
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
        self.with_shard(index, |shard, now, out| {
            shard.handle_overlay_packet(VirtioHeader::default(), &mut packet, now, out);
        });
        self.drive_host(index);
    }
}

/// Outputs.
impl World {
    /// Does something to a host's shard and carries out what follows.
    pub(crate) fn with_shard(
        &mut self,
        index: HostIndex,
        act: impl FnOnce(&mut Shard, Now, &mut Courier),
    ) {
        let now = self.host(index).now(self.now);
        let Some(running) = &mut self.hosts[index.position()].running else {
            return;
        };
        let mut courier = Courier::default();
        act(&mut running.shard, now, &mut courier);
        let run = running.run;
        let mut jobs = Vec::new();
        while let Some(event) = running.shard.poll_event() {
            match event {
                dataplane::Event::Handshake(job) => jobs.push(job),
                event => running.agent.handle_shard(event, now),
            }
        }
        let balance = running.counters.balance();
        self.check_balance(index, balance);
        for job in jobs {
            let (low, high) = (Duration::from_micros(100), Duration::from_millis(2));
            let after = self.dice.between(low, high);
            self.push_in(
                after,
                Event::Handshake {
                    host: index,
                    run,
                    job,
                },
            );
        }
        for (via, ecn, bytes) in courier.datagrams {
            self.send_datagram(index, via, ecn, &bytes);
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
    pub(crate) fn send_datagram(&mut self, index: HostIndex, via: Path, ecn: u8, bytes: &[u8]) {
        let home = self.host(index).home;
        let Some(leg) = self.network.send(index, home, via.remote, self.now) else {
            return;
        };
        let (from, to) = (Place::Host(index), Place::Host(leg.there));
        if !self.network.is_open(from, to) {
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
                ecn,
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
