//! Applications at work: flows opened by name, packets answered, and every delivered packet held
//! against what its receiver has in force.

use std::net::IpAddr;
use std::time::Duration;

use agent::NameKind;
use dataplane::packet::{Headers, Upper};
use model::address::HostAddresses;
use model::record::HostRecord;
use model::rule::Protocol;

use super::World;
use crate::dice::Dice;
use crate::event::{Event, HostIndex, Note};
use crate::packet::{self, Reading, Side, Tag};
use crate::reference::KnownMap;
use crate::trace::digest;
use crate::traffic::{FlowId, Progress, Reason, Speech, Wish};

/// Opening flows.
impl World {
    /// Somebody somewhere opens a flow, and somebody will again.
    pub(crate) fn flow_opens(&mut self) {
        let next = self
            .traffic
            .dice
            .between(Duration::ZERO, 2 * self.scenario.flow_every);
        self.push_in(next, Event::FlowOpens);
        let count = self.hosts.len();
        let opener = HostIndex(u32::try_from(self.traffic.dice.below(count)).expect("few hosts"));
        if let Some(wish) = self.wish(opener) {
            self.open_flow(wish);
        }
    }

    /// Looks up a name on the host, as an application would, and decides what to want from it.
    fn wish(&mut self, opener: HostIndex) -> Option<Wish> {
        let host = &self.hosts[opener.position()];
        let (running, map) = (host.running.as_ref()?, host.in_force.as_ref()?);
        let (names, own) = (running.names.clone(), running.interface?.addresses);
        let dice = &mut self.traffic.dice;
        if names.is_empty() {
            return None;
        }
        let entries: Vec<_> = names.iter().map(|(_, entry)| entry).collect();
        let entry = *dice.pick(&entries);
        let target = dice
            .pick_any(&entry.addresses)
            .filter(|target| *target != own)?;
        let speech = match entry.kind {
            NameKind::Service {
                port,
                protocol: Protocol::Tcp,
                ..
            } if dice.chance(800) => Speech::Tcp { port },
            NameKind::Service {
                port,
                protocol: Protocol::Udp,
                ..
            } if dice.chance(800) => Speech::Udp { port },
            _ => {
                let peer = map.peers.values().find(|peer| peer.addresses == target)?;
                some_speech(dice, map, peer, 700)
            }
        };
        let (source, destination) = one_family(own, target, dice.chance(500));
        Some(Wish {
            opener,
            source,
            destination,
            speech,
            reason: Reason::Work,
        })
    }

    pub(crate) fn open_flow(&mut self, wish: Wish) {
        let identity = self.host(wish.opener).identity();
        let id = self.traffic.open(wish, identity);
        self.flow_continues(id);
    }

    pub(crate) fn flow_continues(&mut self, id: FlowId) {
        self.note(Note::Flow(id));
        let Some(step) = self.traffic.go_on(id, self.now) else {
            return;
        };
        if step.has_ended {
            self.flow_ended(id);
        }
        self.push_in(step.pause, Event::FlowContinues(id));
        if let (Some(packet), Some(running)) = (step.packet, &self.host(step.opener).running) {
            let run = running.run;
            self.application_sends(step.opener, run, packet);
        }
    }

    fn flow_ended(&mut self, id: FlowId) {
        let Some(flow) = self.traffic.get(id) else {
            return;
        };
        if let Reason::Probe { is_allowed } = flow.reason {
            let is_right = match is_allowed {
                true => flow.answered > 0,
                false => flow.is_refused,
            };
            if !is_right {
                let what = self.describe_probe(id);
                self.violate("allowed pairs can talk, denied ones are refused", what);
            }
        }
    }

    fn describe_probe(&self, id: FlowId) -> String {
        let Some(flow) = self.traffic.get(id) else {
            return String::new();
        };
        let drops = |index: HostIndex| {
            let Some(running) = &self.host(index).running else {
                return "down".to_owned();
            };
            let reasons = dataplane::DropReason::ALL.iter().filter_map(|reason| {
                let shards = running.shards.iter();
                let count: u64 = shards.map(|(_, counters)| counters.dropped(*reason)).sum();
                (count > 0).then(|| format!("{}={count}", reason.name()))
            });
            reasons.collect::<Vec<_>>().join(" ")
        };
        let target = self.owner_of(flow.destination);
        let at_target = target.map_or_else(String::new, |it| format!("{it} drops: {}", drops(it)));
        let peer = target.and_then(|it| self.peer_view(flow.opener, it));
        let back = target.and_then(|it| self.peer_view(it, flow.opener));
        format!(
            "{} -> {} ({}) {:?} {:?}: answered {}, refused {}; homes {} and {:?}; {} drops: {}; {at_target}; \
             peer seen there as {peer:?}; seen back as {back:?}",
            flow.opener,
            target.map_or_else(|| "nobody".to_owned(), |it| it.to_string()),
            flow.destination,
            flow.speech,
            flow.reason,
            flow.answered,
            flow.is_refused,
            self.host(flow.opener).home,
            target.map(|it| self.host(it).home),
            flow.opener,
            drops(flow.opener),
        )
    }

    fn peer_view(&self, at: HostIndex, of: HostIndex) -> Option<model::local::PeerView> {
        let running = self.host(at).running.as_ref()?;
        let name = &self.host(of).name;
        running
            .agent
            .peers(self.host(at).now(self.now))
            .into_iter()
            .find(|it| it.name == *name)
    }

    pub(super) fn owner_of(&self, address: IpAddr) -> Option<HostIndex> {
        let has = |host: &&crate::host::Host| {
            let interface = host.running.as_ref().and_then(|running| running.interface);
            interface.is_some_and(|it| it.addresses.contains(address))
        };
        self.hosts.iter().find(has).map(|host| host.index)
    }
}

/// What is delivered.
impl World {
    pub(crate) fn packet_delivered(&mut self, index: HostIndex, packet: &[u8]) {
        self.note(Note::Delivered(index, digest(packet)));
        if self.host(index).is_rogue {
            return; // whatever it lets itself hear
        }
        let (headers, reading) = packet::read(packet);
        let Some(headers) = headers else {
            return self.violate("packets arrive whole", format!("{index}: {packet:?}"));
        };
        match reading {
            Reading::Flow(tag) => self.flow_packet_delivered(index, &headers, tag, packet),
            Reading::Error { about, is_port } => {
                self.error_delivered(index, &headers, about, is_port, packet);
            }
            Reading::Reset { local_port } => {
                if let Some(id) = self.traffic.opened_from(index, local_port) {
                    self.flow_refused(id);
                }
            }
            Reading::Foreign => {
                self.violate(
                    "packets arrive as they were sent",
                    format!("{index}: {headers:?}"),
                );
            }
        }
    }

    fn flow_packet_delivered(
        &mut self,
        index: HostIndex,
        headers: &Headers,
        tag: Tag,
        packet: &[u8],
    ) {
        self.traffic.counts.delivered += 1;
        let objection = match &self.host(index).in_force {
            Some(map) => map.objection(headers, tag.side),
            None => Some("nothing is in force here".to_owned()),
        };
        self.object(
            "no denied packet is delivered",
            objection.map(|why| format!("{index}: {why}; {tag:?}")),
        );
        let identity = self.host(index).identity();
        let Some(flow) = self.traffic.get_mut(tag.flow) else {
            return;
        };
        let is_first = flow.note_arrival(tag);
        let (is_closed, opener) = (flow.is_port_closed, flow.opener);
        if flow.reason == Reason::Forgery {
            let what = format!("{index} believed {opener} that it is {}", flow.source);
            return self.violate("nobody speaks as another", what);
        }
        let asker = flow.identity;
        if !is_first {
            return self.violate("no packet is delivered twice", format!("{index}: {tag:?}"));
        }
        match tag.side {
            Side::Answerer if index == opener => self.flow_answered(tag.flow, headers),
            // A clone of who asked, or who it is a clone of.
            Side::Answerer if asker.is_some() && identity == asker => {}
            Side::Answerer => self.violate("answers reach who asked", format!("{index}: {tag:?}")),
            Side::Opener if is_closed => {
                let refused = &packet[..headers.length];
                let error =
                    packet::write_port_unreachable(refused, headers.destination, headers.source);
                self.answer_later(index, error);
            }
            Side::Opener => {
                let flags = matches!(headers.upper, Upper::Tcp { .. })
                    .then(|| packet[headers.upper_start + 13]);
                let answer = flow.answer(tag, flags);
                self.answer_later(index, answer);
            }
        }
    }

    fn answer_later(&mut self, index: HostIndex, packet: Vec<u8>) {
        let Some(running) = &self.host(index).running else {
            return;
        };
        let run = running.run;
        let after = self
            .traffic
            .dice
            .between(Duration::from_micros(50), Duration::from_millis(5));
        self.push_in(
            after,
            Event::Packet {
                host: index,
                run,
                packet,
            },
        );
    }

    fn flow_answered(&mut self, id: FlowId, headers: &Headers) {
        let Some(flow) = self.traffic.get_mut(id) else {
            return;
        };
        flow.answered += 1;
        let is_first = flow.answered == 1;
        let opens = match headers.upper {
            Upper::Tcp { flags, .. } => flags.syn(),
            _ => true,
        };
        let was_opening = flow.progress == Progress::Opening;
        if was_opening && opens {
            flow.progress = Progress::Open;
        }
        if is_first {
            self.traffic.counts.answered += 1;
        }
    }

    fn error_delivered(
        &mut self,
        index: HostIndex,
        headers: &Headers,
        about: Tag,
        is_port: bool,
        packet: &[u8],
    ) {
        if !is_port {
            // The host's own shard said so.
            if about.side == Side::Opener {
                self.flow_refused(about.flow);
            }
            return;
        }
        let quoted = Headers::parse(&packet[headers.upper_start + 8..headers.length]);
        let objection = match (&self.host(index).in_force, quoted) {
            (Some(map), Ok(quoted)) => map.objection_to_error(&quoted),
            _ => Some("nothing is in force here".to_owned()),
        };
        self.object(
            "no denied packet is delivered",
            objection.map(|why| format!("{index}: {why}; {about:?}")),
        );
        if let Some(flow) = self.traffic.get_mut(about.flow) {
            flow.progress = Progress::Over { since: self.now };
        }
    }

    fn flow_refused(&mut self, id: FlowId) {
        let now = self.now;
        let Some(flow) = self.traffic.get_mut(id) else {
            return;
        };
        let is_first = !std::mem::replace(&mut flow.is_refused, true);
        let was_over = matches!(flow.progress, Progress::Over { .. });
        if !was_over {
            flow.progress = Progress::Over { since: now };
        }
        if is_first {
            self.traffic.counts.refused += 1;
        }
        if !was_over {
            self.flow_ended(id);
        }
    }
}

/// Picks something to ask a peer for, `per_mille` times of a thousand something that is allowed.
pub(crate) fn some_speech(
    dice: &mut Dice,
    map: &KnownMap,
    peer: &HostRecord,
    per_mille: u32,
) -> Speech {
    let every = Speech::every();
    let is_allowed =
        |speech: &Speech| map.allows(&map.me, peer, speech.ip_protocol(), speech.port());
    let allowed: Vec<Speech> = every.iter().copied().filter(is_allowed).collect();
    match dice.pick_any(&allowed) {
        Some(speech) if dice.chance(per_mille) => speech,
        _ => *dice.pick(&every),
    }
}

/// Returns the two addresses of one family.
pub(crate) fn one_family(
    own: HostAddresses,
    target: HostAddresses,
    is_v4: bool,
) -> (IpAddr, IpAddr) {
    match is_v4 {
        true => (own.v4.into(), target.v4.into()),
        false => (own.v6.into(), target.v6.into()),
    }
}
