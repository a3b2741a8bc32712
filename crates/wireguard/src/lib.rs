//! The WireGuard protocol without IO: messages, handshake, cookies, sessions, timers.
//!
//! The crate knows the protocol and nothing else. It leaves to its caller:
//!
//! - **time**: every call takes `now`, a `Duration` since an arbitrary monotonic start;
//!   a `now` that goes backwards is tolerated. TAI64N timestamps come in as [`Timestamp`].
//! - **dice**: ephemeral keys, receiver indices, cookie secrets and nonces are arguments.
//! - **endpoints**: the crate says when a packet was authenticated ([`Tunnel::open_in_place`],
//!   [`Tunnel::accept_initiation`] and [`Tunnel::install_session`] return `Ok`), the caller roams.
//!   A cookie reply is no such packet.
//! - **queues**: a packet that finds no session gets [`SealError::NeedsHandshake`]; who keeps it
//!   until [`Action::SessionReady`] is the caller's choice.
//! - **the inner packet**: whether its source may come from this peer, and how long it is
//!   without the padding.
//!
//! One [`Tunnel`] is one peer. Its packet path ([`Tunnel::seal_into`], [`Tunnel::open_in_place`])
//! works in the caller's memory in constant time, without allocation or hashing. Public-key work
//! is in *jobs* that own their input and can be run on another thread:
//!
//! ```text
//! initiator                                     responder
//! Action::SendInitiation
//! Tunnel::begin_initiation
//!   InitiationJob::run      (elsewhere)
//! Tunnel::install_initiation -----------------> CookieChecker::check
//!                                                 consume_initiation      (elsewhere)
//!                                               Tunnel::accept_initiation
//!                                                 ResponseJob::run        (elsewhere)
//! CookieChecker::check <----------------------- Tunnel::install_response
//! Tunnel::begin_completion
//!   CompletionJob::run      (elsewhere)
//! Tunnel::install_session
//! Action::SessionReady, SendKeepalive --------> Tunnel::open_in_place
//!                                               Action::SessionReady
//! ```
//!
//! A job whose result never comes back is like a lost datagram: the tunnel tries again.
//! Section numbers in the sources refer to the WireGuard whitepaper.

#![forbid(unsafe_code)]

pub mod cipher;
pub mod cookie;
pub mod handshake;
pub mod key;
mod keyring;
pub mod message;
pub mod replay;
pub mod session;
mod symmetric;
pub mod timers;
pub mod timestamp;
pub mod tunnel;

pub use cipher::DataCipher;
pub use cookie::{CookieChecker, CookieJar, CookieRejected, Load, MacVerdict};
pub use handshake::{
    CompletionJob, ConsumedInitiation, CreatedInitiation, CreatedResponse, HandshakeError,
    InitiationJob, ResponseJob, consume_initiation,
};
pub use key::{KeyPair, PresharedKey, PrivateKey, PublicKey};
pub use message::{CookieReply, DataHeader, Initiation, Kind, Response, classify, receiver_index};
pub use session::{OpenError, Role, SealError, Session, TransportKeys, sealed_len};
pub use timestamp::Timestamp;
pub use tunnel::{Action, InitiationRefused, Superseded, Tunnel, TunnelConfig};
