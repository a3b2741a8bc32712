//! The brain of one host: joins it to a fleet, keeps what it must know in step with the
//! coordinator and on disk, and tells the shard, the interface and DNS what holds. It does no IO:
//! the program hands it what happened and carries out what it asks (`Output`).

#![forbid(unsafe_code)]

mod agent;
mod alarms;
mod at_most;
mod backoff;
mod bygone;
mod catalogue;
mod certificate;
mod channel;
mod denials;
mod dice;
mod endpoints;
mod enforcement;
mod enrolment;
mod event;
mod identity_file;
mod keys;
mod last_denials;
mod map;
mod names;
mod output;
mod paths;
mod persistence;
mod rotation;
mod skew;
mod staging;
mod sync;
mod timer;

pub use agent::{Agent, AgentConfig, Figures, LoadError, ResolvedPeer, StoredFiles};
pub use event::{ChannelError, ChannelErrorKind, ChannelEvent, EnrolError};
pub use names::{NameEntry, NameKind, Names};
pub use output::{
    ChannelIdentity, InterfaceConfig, NoticeLevel, Output, PersistId, Reply, RequestId, StateFile,
};
