//! What the coordinator must not say: nothing that is durable to hosts for which nothing changed, no
//! byte to hosts that a change does not concern, and no storm of hints.

use std::collections::{BTreeMap, BTreeSet};

use model::control::ToHost;
use model::ids::HostId;
use model::map::MapDelta;
use model::time::Instant;

use super::World;
use super::phases::Phase;
use crate::control::ConnectionId;
use crate::event::HostIndex;
use crate::truth::Truth;

/// What was said since it was last looked at, apart from what keeps channels and certificates
/// alive.
#[derive(Default)]
pub(crate) struct Loudness {
    since: Instant,
    pub(super) to: BTreeMap<HostIndex, Said>,
    from: BTreeMap<HostIndex, Said>,
}

/// Said to or by one host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    /// Messages that change what the host knows, rather than where peers may be.
    pub(crate) durable: usize,
}

impl Said {
    fn add(&mut self, bytes: usize, is_durable: bool) {
        self.messages += 1;
        self.bytes += bytes;
        self.durable += usize::from(is_durable);
    }
}

impl World {
    /// Begins to listen anew.
    pub(super) fn listen(&mut self) {
        self.loudness = Loudness {
            since: self.now,
            ..Loudness::default()
        };
    }

    /// Notes what the coordinator says to a host.
    pub(super) fn note_told(&mut self, connection: ConnectionId, message: &ToHost, bytes: usize) {
        let ToHost::Map(delta) = message else {
            return;
        };
        let Some(connection) = self.control.get(connection) else {
            return;
        };
        // Who comes anew is told what it missed, whatever happens to others.
        if connection.opened < self.loudness.since {
            let said = self.loudness.to.entry(connection.host).or_default();
            said.add(bytes, is_durable(delta));
        }
    }

    /// Notes what a host tells the coordinator.
    pub(super) fn note_reported(&mut self, index: HostIndex, bytes: usize) {
        self.loudness
            .from
            .entry(index)
            .or_default()
            .add(bytes, false);
    }

    /// While pairs are tried nothing changes: nobody is told anything durable, and hints where
    /// hosts may be are few.
    pub(super) fn check_quiet(&mut self) {
        debug_assert!(matches!(self.phase, Phase::Probing { .. }));
        let loud = |said: &BTreeMap<HostIndex, Said>, most: usize| {
            let is_loud =
                |(_, said): &(&HostIndex, &Said)| said.durable > 0 || said.messages > most;
            said.iter().find(is_loud).map(|(host, said)| (*host, *said))
        };
        // Each host may be seen somewhere new, once, by each other, and before and after a
        // mapping of its NAT box is forgotten.
        let most = 2 * self.hosts.len() + 10;
        let loud = loud(&self.loudness.to, most).or(loud(&self.loudness.from, most));
        self.object(
            "where nothing changes nothing is told",
            loud.map(|(host, said)| format!("{host}: {said:?}")),
        );
    }

    /// One host got other labels: who is no peer of it, before or after, hears nothing of it.
    pub(super) fn check_unconcerned(&mut self, changed: HostId, after: &Truth) {
        let before = self.truth.clone();
        let is_concerned =
            |id: &HostId| *id == changed || before.links(changed, *id) || after.links(changed, *id);
        let concerned: BTreeSet<HostIndex> = self
            .hosts
            .iter()
            .filter(|host| host.identity().is_some_and(|id| is_concerned(&id)))
            .map(|host| host.index)
            .collect();
        let mut told = self.loudness.to.iter();
        let other = told.find(|(host, said)| said.durable > 0 && !concerned.contains(host));
        let other = other.map(|(host, said)| format!("{host}: {said:?}"));
        self.object("who is not concerned hears nothing", other);
    }
}

/// Returns whether a message changes more than where peers may be.
fn is_durable(delta: &MapDelta) -> bool {
    delta.base != Some(delta.revision)
}
