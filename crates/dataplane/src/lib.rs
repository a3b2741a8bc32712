//! One core's share of a host's packets: peers, sessions, flows, verdicts, timers.
//!
//! A [`Shard`] is fed with datagrams, overlay packets, commands, finished handshakes and the time;
//! it writes packets into an [`Outbox`] that it is lent and tells the rest as [`Event`]s. It knows
//! no socket, thread or clock, nor what a policy says: `policy` decides, `wireguard` speaks the
//! protocol, `agent` knows who the peers are and where they may be.

#![forbid(unsafe_code)]

mod bequest;
mod checksum;
mod claim;
mod claims;
mod coalescer;
mod command;
mod config;
mod cookie_secrets;
mod counters;
mod denials;
mod drops;
mod ecn;
mod event;
mod flows;
mod fragments;
mod greeting;
mod handshake_job;
mod identity;
mod indices;
mod lanes;
mod offload;
mod outbox;
pub mod packet;
mod path_mtu;
mod peers;
mod pending;
mod pieces;
mod place;
mod probe;
mod rate;
mod recut;
mod refusal;
mod rejection;
mod routes;
mod segments;
mod shard;
mod shift;
mod spread;
mod stamps;
mod timers;

pub use bequest::{
    BEQUEST_FORMAT, Bequest, BequestError, Extent, FlowBequest, FlowPhase, PeerBequest,
};
pub use coalescer::{Coalescer, Joins};
pub use command::{Command, PeerKind};
pub use config::{Limits, ShardConfig};
pub use counters::{Balance, Counters};
pub use drops::DropReason;
pub use event::{Denial, Event, PeerReport, Report, Sending};
pub use handshake_job::{HandshakeDone, HandshakeJob};
pub use lanes::LaneMessage;
pub use offload::VirtioHeader;
pub use outbox::{Misdirected, Outbox, Path, ProbeFate};
pub use path_mtu::{PathMtuReport, Standing};
pub use place::Place;
pub use recut::recut;
pub use shard::{HANDSHAKES_APART, Introduction, Shard};
pub use shift::{Addressee, Shift};
pub use wireguard::DataCipher;
