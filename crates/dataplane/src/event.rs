//! What a shard tells: work for other threads, news of peers, denials.

use std::net::SocketAddr;

use model::ids::PolicyVersion;
use model::map::PeerIndex;
use model::name::{Name, RuleId};
use model::rule::Direction;
use model::time::{Instant, UnixTime};
use wireguard::DataCipher;

use crate::handshake_job::HandshakeJob;
use crate::outbox::Path;
use crate::path_mtu::PathMtuReport;

/// Something that the caller should know or do.
#[derive(Debug)]
pub enum Event {
    /// Public-key work: run it anywhere, hand the result to [`crate::Shard::handle_handshake`].
    /// Run every one: each takes one of [`crate::Limits::handshake_jobs`] until it is back.
    Handshake(HandshakeJob),
    /// A handshake over the path was not answered in time, or there is traffic and no path at
    /// all: propose another with [`crate::Command::SetPath`]. Told again with every retry.
    PathUnanswered {
        /// Which peer.
        peer: PeerIndex,
        /// What was tried.
        path: Option<Path>,
    },
    /// An authenticated packet of the peer came over this path; it is used from now on.
    PeerMoved {
        /// Which peer.
        peer: PeerIndex,
        /// From where.
        path: Path,
    },
    /// A new session with the peer can carry packets.
    SessionEstablished {
        /// Which peer.
        peer: PeerIndex,
        /// Over which path.
        path: Path,
    },
    /// The policy denied a flow. Told sparsely; the counters know all.
    Denied(Denial),
    /// A peer says that its rules deny a flow that this host opened. Told sparsely, as denials are;
    /// the local application was answered.
    Rejected(Denial),
    /// A rule asks which program sends a flow of UDP of this host, whose packets wait meanwhile: answer
    /// with [`crate::Command::Sender`].
    WhoSends(Sending),
    /// Our handshakes may be dated up to this time: store it, and give it back as
    /// `timestamp_floor` after a restart. Told about every half hour.
    TimestampUsed(UnixTime),
    /// The answer to [`crate::Command::Report`].
    Report(Report),
}

/// A flow of UDP that this host sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sending {
    /// The other host.
    pub peer: PeerIndex,
    /// Where it leaves.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
    /// The generation of the table that was in force when it was asked; 0: none.
    pub under: u64,
}

/// A flow that the policy denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Which way the flow was opened, seen from this host.
    pub direction: Direction,
    /// The other host.
    pub peer: PeerIndex,
    /// IANA number.
    pub ip_protocol: u8,
    /// Address and port (0 where the protocol has none) of who opened the flow.
    pub source: SocketAddr,
    /// Address and port that it was opened to.
    pub destination: SocketAddr,
    /// The deny that matched; `None`: no rule allows it. With `needs_workload`, the rule that asks.
    pub rule: Option<RuleId>,
    /// The rule names workloads, and it is not known that one of them sends this, or that none does.
    pub needs_workload: bool,
    /// Which workload sends it, where that is known.
    pub workload: Option<Name>,
    /// The policy that said so; 0 in a peer's rejection that names no rule.
    pub version: PolicyVersion,
}

/// How the peers are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In ascending order of index.
    pub peers: Vec<PeerReport>,
}

/// How one peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerReport {
    /// Which peer.
    pub peer: PeerIndex,
    /// Which of the sessions with it: 0 for the main one, others for lanes, which other shards have.
    pub lane: u16,
    /// Where packets to it go.
    pub path: Option<Path>,
    /// How large packets to it may be.
    pub path_mtu: PathMtuReport,
    /// What packets to it are sealed with; `None`: there is no session.
    pub cipher: Option<DataCipher>,
    /// When its last handshake ended well.
    pub last_handshake: Option<Instant>,
    /// Datagram bytes that were authenticated as from it.
    pub received_bytes: u64,
    /// Datagram bytes sent to it.
    pub sent_bytes: u64,
}
