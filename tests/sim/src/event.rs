//! What can happen in the world, and what the trace says of it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use agent::PersistId;
use dataplane::HandshakeJob;
use model::time::Instant;

use crate::control::{ConnectionId, Way};
use crate::network::{PartitionId, Realm};
use crate::operator::Errand;
use crate::traffic::FlowId;

/// Names a machine that is, was or will be a host. Shown as the name that it has at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HostIndex(pub(crate) u32);

impl HostIndex {
    pub(crate) const fn position(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for HostIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vm-{}", self.0)
    }
}

/// Counts the starts of one program; what was meant for an earlier one means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Run(pub(crate) u32);

/// A datagram on its way.
pub(crate) struct Datagram {
    /// Where `to` means something.
    pub(crate) realm: Realm,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) ecn: u8,
    pub(crate) bytes: Vec<u8>,
}

/// Something that happens at a time.
pub(crate) enum Event {
    /// A datagram arrives.
    Datagram(Datagram),
    /// A brain asked for the clock.
    HostWakes {
        host: HostIndex,
        run: Run,
        due: Instant,
    },
    /// The coordinator's brain asked for the clock.
    CoordinatorWakes { run: Run, due: Instant },
    /// Another thread has done a piece of public-key work.
    Handshake {
        host: HostIndex,
        run: Run,
        /// Which of the host's shards waits for it.
        shard: usize,
        job: HandshakeJob,
    },
    /// A write to a host's disk ends.
    Persisted {
        host: HostIndex,
        run: Run,
        id: PersistId,
    },
    /// The coordinator's store flushes.
    Flush { run: Run },
    /// The next frame of a connection arrives.
    Frame { connection: ConnectionId, way: Way },
    /// Somebody has waited long enough for an answer.
    CallExpires { connection: ConnectionId },
    /// A channel that its agent closed is closed.
    ChannelCloses { connection: ConnectionId },
    /// A host's application sends a packet.
    Packet {
        host: HostIndex,
        run: Run,
        packet: Vec<u8>,
    },
    /// A flow goes on.
    FlowContinues(FlowId),
    /// Somebody opens a new flow.
    FlowOpens,
    /// A fault strikes.
    FaultStrikes,
    /// Two parts of the network hear each other again.
    PartitionHeals(PartitionId),
    /// Bad weather ends.
    StormEnds,
    /// A host starts that is down since this run.
    HostStarts { host: HostIndex, since: Run },
    /// The coordinator starts, being down since this run.
    CoordinatorStarts { since: Run },
    /// A host's clock is set right.
    ClockIsSet(HostIndex),
    /// There is room on a host's disk again, and it is fast again.
    DiskRecovers(HostIndex),
    /// There is room in the coordinator's store again, and it is fast again.
    StoreRecovers,
    /// The coordinator's clock is set right.
    CoordinatorClockIsSet,
    /// A host that turned against the fleet does something.
    RogueActs { host: HostIndex, run: Run },
    /// A host that turned against the fleet is put right.
    RogueEnds(HostIndex),
    /// A machine that runs from a copy of another's disk gets an empty one.
    CloneIsWiped(HostIndex),
    /// An operator does something.
    Errand(Errand),
    /// The phase of the scenario is looked at.
    Tick,
}

/// What the trace says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Note {
    Datagram {
        from: SocketAddr,
        to: SocketAddr,
        length: usize,
        digest: u64,
    },
    Wake(Who),
    Handshake(HostIndex),
    Persisted(HostIndex, PersistId),
    Flush,
    Frame(ConnectionId, Way),
    Packet(HostIndex, u64),
    Delivered(HostIndex, u64),
    Flow(FlowId),
    Moved(HostIndex, IpAddr),
    Enforces(HostIndex, model::ids::Revision, model::ids::PolicyVersion),
    Says(Who, String),
}

/// Who does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    Host(HostIndex),
    Coordinator,
    Operator,
    Fault,
    World,
}

impl Note {
    /// Returns the host that it is about.
    pub(crate) const fn host(&self) -> Option<HostIndex> {
        match self {
            Self::Moved(host, _) | Self::Enforces(host, ..) | Self::Says(Who::Host(host), _) => {
                Some(*host)
            }
            _ => None,
        }
    }

    /// Returns whether people want to read it. Denials are what a fleet under test is full of.
    pub(crate) fn is_telling(&self) -> bool {
        match self {
            Self::Says(Who::Host(_), text) => !text.contains("denied"),
            Self::Moved(..) | Self::Enforces(..) | Self::Says(..) => true,
            _ => false,
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Moved(host, address) => write!(f, "{host} moves to {address}"),
            Self::Enforces(host, revision, version) => {
                write!(f, "{host} enforces revision {revision}, policy {version}")
            }
            Self::Says(who, text) => write!(f, "{who}: {text}"),
            other => write!(f, "{other:?}"),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => host.fmt(f),
            Self::Coordinator => f.write_str("coordinator"),
            Self::Operator => f.write_str("operator"),
            Self::Fault => f.write_str("fault"),
            Self::World => f.write_str("world"),
        }
    }
}
