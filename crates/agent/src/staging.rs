//! A map on its way from verified to in force: first the map is durable, then the marks that never
//! go back, then it may be enforced. While one is under way, only the newest behind it is kept.

use std::time::Duration;

use model::key::SecretBytes;
use model::time::Instant;
use model::wire::stored::{StoredHighWater, encode_high_water, encode_map};

use crate::map::Map;
use crate::output::{Outputs, StateFile};
use crate::persistence::{Disk, Version};
use crate::timer::{Timeout, is_due};

/// How long hints may wait for the disk: what waits goes together, and those that move all the time do
/// not wear it out. A host that restarts without a coordinator does not find a peer that moved since
/// the last write.
const HINTS: Patience = Patience {
    at_least: Duration::from_secs(10),
    for_each_peer: Duration::from_millis(60),
    at_most: Duration::from_secs(600),
};
/// The same for the first hint about a peer: without it nothing is known of where that peer is. When a
/// whole fleet begins, all of them are strangers.
const FIRST_HINTS: Patience = Patience {
    at_least: Duration::ZERO,
    for_each_peer: Duration::from_micros(500),
    at_most: Duration::from_secs(1),
};

/// How long a write may wait that is as long as there are peers.
struct Patience {
    at_least: Duration,
    for_each_peer: Duration,
    at_most: Duration,
}

/// The map in force, the one on its way to the disk, and the newest behind it.
#[derive(Debug, Default)]
pub(crate) struct Staging {
    in_force: Option<Map>,
    under_way: Option<Staged>,
    next: Option<Map>,
    /// When hints that the disk does not have yet are written.
    write_hints_at: Option<Instant>,
}

#[derive(Debug)]
struct Staged {
    map: Map,
    stage: Stage,
}

/// What has to be durable next.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Map(Version),
    HighWater(Version),
}

impl Staging {
    /// Returns what is enforced.
    pub(crate) fn in_force(&self) -> Option<&Map> {
        self.in_force.as_ref()
    }

    /// Returns the newest map that was verified: the one that the next delta builds on.
    pub(crate) fn newest(&self) -> Option<&Map> {
        let under_way = self.under_way.as_ref().map(|staged| &staged.map);
        self.next.as_ref().or(under_way).or(self.in_force.as_ref())
    }

    /// Takes the newest map with other hints where peers may be. Returns what may be enforced at
    /// once, and that `set_in_force` expects back: nothing that must not go back depends on hints.
    pub(crate) fn take_hints(&mut self, map: Map, now: Instant) -> Option<Map> {
        if self.next.is_some() {
            self.next = Some(map);
            return None;
        }
        let wait = match self.tells_where_a_stranger_is(&map) {
            true => FIRST_HINTS.with(map.peers.len()),
            false => HINTS.with(map.peers.len()),
        };
        let write_at = self.write_hints_at.unwrap_or(now + wait);
        self.write_hints_at = Some(write_at.min(now + wait));
        match &mut self.under_way {
            Some(staged) => {
                staged.map = map;
                None
            }
            None => Some(map),
        }
    }

    /// Returns whether a peer may be reached according to this map of which that was not known.
    fn tells_where_a_stranger_is(&self, map: &Map) -> bool {
        let before = self.newest().map(|map| &map.peers);
        let was_known = |id| {
            let peer = before.and_then(|peers| peers.get(id));
            peer.is_some_and(|peer| !peer.endpoints.is_empty())
        };
        let mut peers = map.peers.iter();
        peers.any(|(id, peer)| !peer.endpoints.is_empty() && !was_known(id))
    }

    /// Writes the hints that waited long enough.
    pub(crate) fn handle_timeout(&mut self, now: Instant, disk: &mut Disk, out: &mut Outputs) {
        if self.write_hints_at.is_some_and(|at| is_due(at, now)) {
            self.write_hints(disk, out);
        }
    }

    /// Writes the hints that wait, if there are any.
    pub(crate) fn write_hints(&mut self, disk: &mut Disk, out: &mut Outputs) {
        if self.write_hints_at.take().is_none() {
            return;
        }
        let under_way = self.under_way.as_ref().map(|staged| &staged.map);
        if let Some(map) = under_way.or(self.in_force.as_ref()) {
            put_map(map, disk, out);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Timeout {
        let at = self.write_hints_at?;
        Some((at, "write where peers may be"))
    }

    pub(crate) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Takes a map that is already durable.
    pub(crate) fn set_in_force(&mut self, map: Map) {
        self.in_force = Some(map);
    }

    /// Returns the map that was in force, and has none from now on.
    pub(crate) fn take(&mut self) -> Option<Map> {
        std::mem::take(self).in_force
    }

    /// Takes a verified map in.
    pub(crate) fn offer(&mut self, map: Map, disk: &mut Disk, out: &mut Outputs) {
        if self.under_way.is_some() {
            self.next = Some(map);
        } else {
            self.start(map, disk, out);
        }
    }

    /// Goes on after something became durable. Returns a map that may be enforced now, and that
    /// `set_in_force` expects back.
    pub(crate) fn handle_durable(
        &mut self,
        high_water: &mut StoredHighWater,
        disk: &mut Disk,
        out: &mut Outputs,
    ) -> Option<Map> {
        let staged = self.under_way.as_mut()?;
        match staged.stage {
            Stage::Map(version) if disk.is_durable(StateFile::Map, version) => {
                raise(high_water, &staged.map);
                staged.stage = Stage::HighWater(put_high_water(high_water, disk, out));
                None
            }
            Stage::HighWater(version) if disk.is_durable(StateFile::HighWater, version) => {
                let map = self.under_way.take()?.map;
                if let Some(next) = self.next.take() {
                    self.start(next, disk, out);
                }
                Some(map)
            }
            Stage::Map(_) | Stage::HighWater(_) => None,
        }
    }

    fn start(&mut self, map: Map, disk: &mut Disk, out: &mut Outputs) {
        self.write_hints_at = None;
        let stage = Stage::Map(put_map(&map, disk, out));
        self.under_way = Some(Staged { map, stage });
    }
}

impl Patience {
    fn with(&self, peers: usize) -> Duration {
        let peers = u32::try_from(peers).unwrap_or(u32::MAX);
        let for_all = self.for_each_peer.saturating_mul(peers);
        self.at_least.saturating_add(for_all).min(self.at_most)
    }
}

/// Raises the marks to what a map has; none ever goes down.
pub(crate) fn raise(high_water: &mut StoredHighWater, map: &Map) {
    high_water.revision = high_water.revision.max(map.revision);
    let policy = (map.policy.head.epoch, map.policy.head.version);
    if policy >= (high_water.policy_epoch, high_water.policy) {
        (high_water.policy_epoch, high_water.policy) = policy;
        high_water.policy_digest = Some(map.policy.digest);
    }
    let trust = (map.statement().epoch, map.statement().serial);
    (high_water.trust_epoch, high_water.trust_serial) =
        trust.max((high_water.trust_epoch, high_water.trust_serial));
}

fn put_map(map: &Map, disk: &mut Disk, out: &mut Outputs) -> Version {
    let bytes = SecretBytes::new(encode_map(&map.to_stored()));
    disk.put(StateFile::Map, bytes, out)
}

pub(crate) fn put_high_water(
    high_water: &StoredHighWater,
    disk: &mut Disk,
    out: &mut Outputs,
) -> Version {
    disk.put(
        StateFile::HighWater,
        SecretBytes::new(encode_high_water(high_water)),
        out,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_wait_longer_the_more_there_is_to_write_but_not_for_ever() {
        let seconds = |peers| HINTS.with(peers).as_secs();
        assert_eq!([0, 300, 10_000].map(seconds), [10, 28, 600]);
        assert_eq!(HINTS.with(usize::MAX), HINTS.at_most);
    }
}
