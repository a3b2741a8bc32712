//! Every host tries every other, by name where it knows one: what is allowed must be answered, what
//! is denied must be refused at once.

use std::time::Duration;

use super::World;
use super::flows::{one_family, some_speech};
use super::phases::PROBES_WITHIN;
use crate::event::{Event, HostIndex};
use crate::reference::KnownMap;
use crate::traffic::{Reason, Speech, Wish};
use crate::truth::Truth;

impl World {
    pub(super) fn probe_everybody(&mut self, truth: &Truth) {
        let members: Vec<HostIndex> = self
            .hosts
            .iter()
            .filter(|host| host.is_wanted)
            .map(|host| host.index)
            .collect();
        for opener in &members {
            let mut targets: Vec<HostIndex> = members.clone();
            targets.retain(|target| target != opener);
            // Each host tries every other, or as many as there is time for.
            if targets.len() > self.scenario.probes_per_host {
                self.traffic.dice.shuffle(&mut targets);
                targets.truncate(self.scenario.probes_per_host);
            }
            for target in targets {
                self.probe(*opener, target, truth);
            }
        }
    }

    fn probe(&mut self, opener: HostIndex, target: HostIndex, truth: &Truth) {
        let (Some(here), Some(there)) = (
            self.host(opener).in_force.clone(),
            self.host(target).in_force.clone(),
        ) else {
            return self.violate("members enforce something", format!("{opener} or {target}"));
        };
        let speech = some_speech(&mut self.traffic.dice, &here, &there.me, 500);
        let Some(is_allowed) = truth.allows(here.me.host, there.me.host, speech) else {
            return self.violate("members are listed", format!("{opener} or {target}"));
        };
        let objection = disagreement(&here, &there, speech, is_allowed);
        self.object("both ends decide as the whole policy does", objection);
        self.check_name(opener, &here, &there);
        if is_allowed && !self.network.can_open(opener, target) {
            return; // behind a NAT box, and nobody helps to get through it yet
        }
        let is_v4 = self.traffic.dice.chance(500);
        let (source, destination) = one_family(here.me.addresses, there.me.addresses, is_v4);
        let wish = Wish {
            opener,
            source,
            destination,
            speech,
            reason: Reason::Probe { is_allowed },
        };
        let id = self.traffic.open(wish, Some(here.me.host));
        let starts = self.traffic.dice.between(Duration::ZERO, PROBES_WITHIN);
        self.push_in(starts, Event::FlowContinues(id));
    }

    /// Whom a host knows, it finds by name.
    fn check_name(&mut self, opener: HostIndex, here: &KnownMap, there: &KnownMap) {
        if !here.peers.contains_key(&there.me.host) {
            return;
        }
        let running = self.host(opener).running.as_ref();
        let entry = running.and_then(|it| it.names.lookup(there.me.name.as_str()).cloned());
        if entry.as_ref().map(|it| it.addresses.as_slice()) != Some(&[there.me.addresses][..]) {
            let what = format!("{} on {opener}: {entry:?}", there.me.name);
            self.violate("names resolve", what);
        }
    }
}

/// Says which end decides otherwise than the whole policy. An end that does not know the other
/// denies it.
fn disagreement(
    here: &KnownMap,
    there: &KnownMap,
    speech: Speech,
    is_allowed: bool,
) -> Option<String> {
    let (ip_protocol, port) = (speech.ip_protocol(), speech.port());
    let decides = |at: &KnownMap, other: &KnownMap| {
        at.peers.contains_key(&other.me.host) && at.allows(&here.me, &there.me, ip_protocol, port)
    };
    let (out, into) = (decides(here, there), decides(there, here));
    (out != is_allowed || into != is_allowed).then(|| {
        format!(
            "{} -> {} {speech:?}: {is_allowed} by the whole policy, {out} and {into} by its ends",
            here.me.name, there.me.name
        )
    })
}
