//! One machine that runs, or could run, a `meshd`: the real agent and the real shard, a disk, a
//! clock that may be wrong, and what is known from outside about what it enforces.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use agent::{Agent, InterfaceConfig, Names, RequestId};
use dataplane::{Counters, Shard};
use model::address::HostAddresses;
use model::catalogue::{Catalogue, StreamIdentity};
use model::ids::{HostId, PolicyVersion, Revision};
use model::local::HostState;
use model::map::PeerIndex;
use model::name::Name;
use model::time::{Instant, Now, UnixTime};

use crate::control::ConnectionId;
use crate::disk::HostDisk;
use crate::event::{HostIndex, Run};
use crate::reference::KnownMap;

/// WireGuard's port, on every host.
pub(crate) const LISTEN_PORT: u16 = 51820;

/// The wall clock when a simulation begins: 2026-11-22.
pub(crate) const EPOCH_SECS: u64 = 1_795_305_600;

/// Maps that are remembered of each host: the one in force, and those on their way.
const MAPS_KEPT: usize = 12;

/// One machine.
pub(crate) struct Host {
    pub(crate) index: HostIndex,
    pub(crate) name: Name,
    pub(crate) disk: HostDisk,
    pub(crate) home: IpAddr,
    /// Seconds that its wall clock is ahead.
    pub(crate) clock_error: i64,
    pub(crate) running: Option<Running>,
    pub(crate) last_run: Run,
    /// The machine has no power, rather than just no daemon.
    pub(crate) is_dark: bool,
    /// How often it was refused its name.
    pub(crate) clashes: u32,
    names_given: u32,
    /// The operator wants it to be a member.
    pub(crate) is_wanted: bool,
    /// Somebody took it over: it keeps to no rule.
    pub(crate) is_rogue: bool,
    /// It runs from a copy of another machine's disk.
    pub(crate) is_clone: bool,
    /// Who it was in the fleet when its disk was copied: a clone may since have changed its key.
    pub(crate) copied: Option<HostId>,
    /// Which machine it says that it is: as a rule itself.
    pub(crate) machine: HostIndex,
    /// What it put on its disk, by revision.
    maps: BTreeMap<Revision, Rc<KnownMap>>,
    /// What its shard enforces; `None`: nothing passes.
    pub(crate) in_force: Option<Rc<KnownMap>>,
    pub(crate) highest: Option<(HostId, Revision, PolicyVersion)>,
}

/// A daemon that runs.
pub(crate) struct Running {
    pub(crate) run: Run,
    pub(crate) booted_at: Instant,
    pub(crate) agent: Agent,
    /// By number, each with what it counts.
    pub(crate) shards: Vec<(Shard, Arc<Counters>)>,
    pub(crate) names: Arc<Names>,
    /// What its proxy would know.
    pub(crate) catalogue: Option<Arc<Catalogue>>,
    pub(crate) stream_identity: Option<Arc<StreamIdentity>>,
    pub(crate) interface: Option<InterfaceConfig>,
    /// The addresses of the peers that the shard was told of.
    pub(crate) peers: BTreeMap<PeerIndex, HostAddresses>,
    /// The addresses that it pretends to have.
    pub(crate) forged: Option<HostAddresses>,
    /// Only the latest is listened to.
    pub(crate) channel: Option<ConnectionId>,
    pub(crate) wake: Option<Instant>,
    pub(crate) requests: BTreeMap<RequestId, LocalRequest>,
    pub(crate) next_request: u64,
    /// How often it was woken in vain at one moment.
    pub(crate) spins: u32,
}

/// What somebody at the machine asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LocalRequest {
    Join,
    Leave,
}

impl Host {
    pub(crate) fn new(index: HostIndex, home: IpAddr) -> Self {
        Self {
            index,
            name: index.to_string().parse().expect("a valid name"),
            disk: HostDisk::default(),
            home,
            clock_error: 0,
            running: None,
            last_run: Run::default(),
            is_dark: false,
            clashes: 0,
            names_given: 0,
            is_wanted: false,
            is_rogue: false,
            is_clone: false,
            copied: None,
            machine: index,
            maps: BTreeMap::new(),
            in_force: None,
            highest: None,
        }
    }

    /// Gets a name that no machine had before.
    pub(crate) fn take_another_name(&mut self) {
        self.clashes = 0;
        self.names_given += 1;
        let name = format!("{}-{}", self.index, self.names_given);
        self.name = name.parse().expect("a valid name");
    }

    /// Returns what its daemon's clocks show.
    pub(crate) fn now(&self, world: Instant) -> Now {
        let booted_at = self
            .running
            .as_ref()
            .map_or(world, |running| running.booted_at);
        self.clocks(booted_at, world)
    }

    /// Returns what the clocks of a daemon that started then show.
    pub(crate) fn clocks(&self, booted_at: Instant, world: Instant) -> Now {
        Now {
            monotonic: Instant::from_start(world - booted_at),
            unix: wrong_time(world, self.clock_error),
        }
    }

    /// Returns how it stands towards the fleet, when its daemon runs.
    pub(crate) fn state(&self, world: Instant) -> Option<HostState> {
        let running = self.running.as_ref()?;
        Some(running.agent.status(self.now(world)).state)
    }

    pub(crate) fn is_member(&self, world: Instant) -> bool {
        matches!(
            self.state(world),
            Some(HostState::Online | HostState::Autonomous)
        )
    }

    /// Remembers a map that it writes, or found on its disk.
    pub(crate) fn remember(&mut self, map: KnownMap) {
        self.maps.insert(map.revision, Rc::new(map));
        while self.maps.len() > MAPS_KEPT {
            let in_force = self.in_force.as_ref().map(|map| map.revision);
            let Some(oldest) = self.maps.keys().find(|it| Some(**it) != in_force).copied() else {
                return;
            };
            self.maps.remove(&oldest);
        }
    }

    /// Notes which of its maps is in force now.
    ///
    /// # Errors
    /// It never stored that map, or went back to one older than what was in force before.
    pub(crate) fn note_in_force(&mut self, world: Instant) -> Result<(), String> {
        let Some(running) = &self.running else {
            return Ok(());
        };
        let detail = running.agent.status(self.now(world)).detail;
        let revision = detail.as_ref().and_then(|detail| detail.revision);
        let (Some(detail), Some(revision)) = (detail, revision) else {
            self.in_force = None;
            return Ok(());
        };
        let map = self
            .maps
            .get(&revision)
            .ok_or("a map is in force that was never stored")?;
        let version = map.version;
        if detail.policy != Some(version) {
            return Err(format!(
                "policy {:?} is said to be in force, not {version}",
                detail.policy
            ));
        }
        self.in_force = Some(map.clone());
        if let Some((host, highest, policy)) = self.highest
            && host == detail.id
            && (revision < highest || revision.epoch == highest.epoch && version < policy)
        {
            return Err(format!(
                "revision {revision} with policy {version} after {highest} with {policy}"
            ));
        }
        self.highest = Some((detail.id, revision, version));
        Ok(())
    }

    /// Returns whether another machine has, or had, its keys.
    pub(crate) fn has_twin(&self) -> bool {
        self.is_clone || self.copied.is_some() && self.copied == self.identity()
    }

    /// Gets an empty disk: whatever it was, it is that no more.
    pub(crate) fn wipe(&mut self) {
        self.disk = HostDisk::default();
        self.highest = None;
        self.is_clone = false;
        self.machine = self.index;
    }

    /// Returns what its operating system calls the machine.
    pub(crate) fn machine_id(&self) -> String {
        format!("machine-{}", self.machine)
    }

    /// Returns who it is in the fleet, by what it enforces.
    pub(crate) fn identity(&self) -> Option<HostId> {
        Some(self.in_force.as_ref()?.me.host)
    }

    /// Notes that nothing is in force.
    pub(crate) fn note_nothing_in_force(&mut self) {
        self.in_force = None;
    }
}

/// Returns the true wall-clock time.
pub(crate) fn unix_time(world: Instant) -> UnixTime {
    UnixTime::from_secs(EPOCH_SECS) + world.since_start()
}

/// Returns what a wall clock shows that is so many seconds ahead.
pub(crate) fn wrong_time(world: Instant, ahead_secs: i64) -> UnixTime {
    let truth = unix_time(world).since_epoch();
    let error = std::time::Duration::from_secs(ahead_secs.unsigned_abs());
    UnixTime::from_duration(match ahead_secs {
        0.. => truth + error,
        _ => truth.saturating_sub(error),
    })
}
