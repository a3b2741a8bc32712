//! What the brain asks its program to do, and the words of that conversation. The program carries
//! outputs out in the order in which it draws them; it decides nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use dataplane::Command;
use model::address::{HostAddresses, OverlayPrefixes};
use model::catalogue::{Catalogue, StreamIdentity};
use model::control::{EnrolRequest, Explanation, FromHost, Refusal};
use model::ids::Digest;
use model::key::{Secret, SecretBytes};
use model::local::{Joined, KeyRotated, Left};
use model::name::Name;
use model::rule::FlowQuery;
use policy::Gate;

use crate::names::Names;

/// Names a request of the local API until it is answered by [`Output::Reply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Names a write to the state directory until `Agent::handle_persisted` answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersistId(pub u64);

/// One thing for the program to do.
#[derive(Clone, Debug)]
pub enum Output {
    /// Writes a file of the state directory whole: atomically, flushed to the disk, mode 0600.
    /// Answered by `handle_persisted`. Per file, at most one is under way.
    Persist {
        /// Comes back in the answer.
        id: PersistId,
        /// Which file.
        file: StateFile,
        /// The whole new contents; empty contents mean the same as no file.
        contents: SecretBytes,
    },
    /// Removes every file of the state directory. Answered by `handle_persisted`.
    Erase {
        /// Comes back in the answer.
        id: PersistId,
    },
    /// Asks a coordinator for its description, over TLS that matches the pin. Answered by
    /// `ChannelEvent::Described`, once.
    Describe {
        /// `host:port`, in the order of trying.
        coordinators: Vec<String>,
        /// SHA-256 of the root certificate.
        pin: Digest,
    },
    /// Enrols, over TLS that matches the pin. Answered by `ChannelEvent::Enrolled`, once.
    Enrol {
        /// `host:port`, in the order of trying.
        coordinators: Vec<String>,
        /// SHA-256 of the root certificate.
        pin: Digest,
        /// The request.
        request: EnrolRequest,
    },
    /// Opens the sync channel. Whatever channel there was is closed first. Answered by
    /// `ChannelEvent::Opened` or `Closed`.
    OpenSync {
        /// `host:port`, in the order of trying.
        coordinators: Vec<String>,
        /// Who this host is, and whom it believes.
        channel: ChannelIdentity,
    },
    /// Sends on the open channel; dropped when there is none.
    Send(FromHost),
    /// Sends `FromHost::Explanation` on the open channel; dropped when there is none. First it is
    /// noted in it whether a program of this host listens for the flow.
    Explain {
        /// The answer to `ToHost::Explain`.
        explanation: Explanation,
        /// The flow to look for a listener of; `None`: none is to be looked for.
        listener_at: Option<FlowQuery>,
    },
    /// Closes the channel, or stops opening it; what was sent before goes out first. Answered by
    /// `ChannelEvent::Closed`.
    CloseChannel,
    /// Commands for the shard, applied whole, between two packets.
    Shard(Vec<Command>),
    /// How the overlay's interface has to look; `None`: there is none.
    Interface(Option<InterfaceConfig>),
    /// What DNS answers from now on.
    Names(Arc<Names>),
    /// What a proxy needs to know of the others, and what decides calls; `None`: this host is no
    /// member, and every call ends.
    Services(Option<(Arc<Catalogue>, Arc<Gate>)>),
    /// What this host shows to others at the ends of streams; `None`: it has nothing to show.
    StreamIdentity(Option<Arc<StreamIdentity>>),
    /// Answers a request of the local API.
    Reply {
        /// The request.
        id: RequestId,
        /// The answer.
        result: Result<Reply, Refusal>,
    },
    /// A line for the log.
    Notice {
        /// How bad it is.
        level: NoticeLevel,
        /// What happened, why, what to try.
        message: String,
    },
}

/// A file of the state directory that the agent owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateFile {
    /// Keys and membership; secret.
    Identity,
    /// The last map, as it came.
    Map,
    /// What must never go back.
    HighWater,
}

impl StateFile {
    /// Every file, in the order in which they are named here.
    pub const ALL: [Self; 3] = [Self::Identity, Self::Map, Self::HighWater];

    /// Returns the file's name in the state directory.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Map => "map",
            Self::HighWater => "high-water",
        }
    }
}

/// What a sync channel is authenticated with: mutual TLS.
#[derive(Clone, Debug)]
pub struct ChannelIdentity {
    /// X.509 roots that the coordinator's chain must end in, DER.
    pub roots: Vec<Vec<u8>>,
    /// This host's chain, DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// Seed of this host's TLS key, for `trust::enrolment::TlsKey`.
    pub tls_key: Secret,
    /// The coordinator must show `spiffe://FLEET/coordinator/...`.
    pub fleet: Name,
}

/// How the overlay's interface has to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceConfig {
    /// Its addresses.
    pub addresses: HostAddresses,
    /// What is routed to it.
    pub prefixes: OverlayPrefixes,
    /// Its MTU in bytes.
    pub mtu: u16,
}

/// The answer to a request of the local API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To `handle_join`.
    Joined(Joined),
    /// To `handle_leave`.
    Left(Left),
    /// To `handle_rotate_key`.
    KeyRotated(KeyRotated),
}

/// How bad a notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoticeLevel {
    /// Good to know.
    Info,
    /// Look at it when there is time.
    Warning,
    /// Something does not work.
    Error,
}

/// Outputs that wait to be drawn, in order.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    waiting: VecDeque<Output>,
    /// Commands that the shard may not have yet.
    held: Option<Vec<Command>>,
}

impl Outputs {
    pub(crate) fn push(&mut self, output: Output) {
        self.waiting.push_back(output);
    }

    pub(crate) fn pop(&mut self) -> Option<Output> {
        self.waiting.pop_front()
    }

    pub(crate) fn info(&mut self, message: impl Into<String>) {
        self.notice(NoticeLevel::Info, message.into());
    }

    pub(crate) fn warn(&mut self, message: impl Into<String>) {
        self.notice(NoticeLevel::Warning, message.into());
    }

    pub(crate) fn error(&mut self, message: impl Into<String>) {
        self.notice(NoticeLevel::Error, message.into());
    }

    pub(crate) fn send(&mut self, message: FromHost) {
        self.push(Output::Send(message));
    }

    pub(crate) fn shard(&mut self, commands: Vec<Command>) {
        match &mut self.held {
            Some(held) => held.extend(commands),
            None if commands.is_empty() => {}
            None => self.push(Output::Shard(commands)),
        }
    }

    /// Keeps what is for the shard back, in order, until `release_shard`.
    pub(crate) fn hold_shard(&mut self) {
        self.held.get_or_insert_default();
    }

    pub(crate) fn release_shard(&mut self) {
        let held = self.held.take().unwrap_or_default();
        self.shard(held);
    }

    pub(crate) fn reply(&mut self, request: Option<RequestId>, result: Result<Reply, Refusal>) {
        if let Some(id) = request {
            self.push(Output::Reply { id, result });
        }
    }

    fn notice(&mut self, level: NoticeLevel, message: String) {
        self.push(Output::Notice { level, message });
    }
}
