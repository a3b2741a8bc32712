//! Calls between services: connections of local programs that were caught, the streams that carry
//! them from host to host, and their delivery to local programs. What may be called is decided by
//! `policy`, which endpoint and how often by `traffic`; interception and the question who opened a
//! socket are the program's (`meshd`).

#![forbid(unsafe_code)]

mod accept_queue;
mod asking;
mod awaiting;
mod body;
mod calling;
mod came;
mod carrying;
mod catching;
mod config;
mod detection;
mod directory;
mod fallback;
mod framing;
mod gathering;
mod grpc;
mod head;
mod health;
mod left_out;
mod local_apps;
mod manners;
mod marks;
mod observe;
mod path;
mod pipe;
mod presence;
mod proxy;
#[doc(hidden)]
pub mod reading;
mod refusal;
mod replay;
mod report;
mod runtimes;
mod serving;
mod sessions;
mod snapshot;
mod socket_body;
#[cfg(test)]
mod some_hosts;
mod stages;
mod standing;
mod sticky;
mod surroundings;
mod trying;
mod under_way;
mod unparsed;
mod upgrades;
mod upstreams;
mod worker;

pub use body::{BodyError, ProxyBody, StreamBody};
pub use config::{ProxyConfig, ProxyLimits};
pub use marks::{Aim, CallId};
pub use observe::{AccessLog, Collector, EdgeSum, Observatory, Telling, Trace};
pub use proxy::Proxy;
pub use refusal::Reason;
pub use report::{CallReport, CheckSeen, NoObserver, Observer, Side, UpstreamSeen};
pub use sessions::{
    Acceptor, Addressee, Arrival, ConnectionsSeen, DatagramPort, Datagrams, Handler, OutageSeen,
    SessionError, Sessions, Transport,
};
pub use snapshot::{Snapshot, Snapshots};
pub use stages::{Stage, Stages};
pub use surroundings::{Caller, Listeners, Surroundings};
