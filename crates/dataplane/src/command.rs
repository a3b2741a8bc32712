//! What a shard is told: who we are, who the peers are, where they may be, what is allowed.

use std::sync::Arc;
use std::time::Duration;

use model::address::HostAddresses;
use model::key::{Secret, WireguardKey};
use model::map::PeerIndex;
use model::name::Name;
use model::time::UnixTime;

use wireguard::DataCipher;

use crate::event::Sending;
use crate::outbox::Path;

/// What a peer's program is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeerKind {
    /// Any WireGuard implementation: it gets IP packets and nothing else.
    #[default]
    Standard,
    /// Another mesh daemon, which is also told what was denied.
    Mesh,
}

/// One change. The commands of one call are applied between two packets, all of them.
#[derive(Clone, Debug)]
pub enum Command {
    /// Who this host is. A new address ends every flow, a new key every session, unless it was
    /// accepted already: then the one before it is the one that is accepted too.
    SetIdentity {
        /// Our X25519 private key.
        private_key: Secret,
        /// Our overlay addresses.
        addresses: HostAddresses,
        /// The last [`crate::Event::TimestampUsed`] that was stored: our handshakes are dated
        /// later, whatever the clock says.
        timestamp_floor: UnixTime,
    },
    /// A private key under which handshakes are answered too, and that peers are tried with which
    /// do not answer to the other, while this host's key changes; `None`: there is no other any
    /// more.
    AcceptKey(Option<Secret>),
    /// A peer, new or changed. A new key is for its next handshake, a new address ends its flows.
    SetPeer {
        /// Chosen by the agent, dense from 0.
        index: PeerIndex,
        /// What its program is.
        kind: PeerKind,
        /// Its X25519 public key.
        key: WireguardKey,
        /// Its overlay addresses; what it sends must come from one of them.
        addresses: HostAddresses,
        /// A symmetric key that both know, mixed into every handshake.
        preshared: Option<Secret>,
        /// Sends something at least this often, so that a NAT on the way keeps the path open.
        keepalive: Option<Duration>,
        /// What the sessions that this host begins with it are sealed with; a new one is for its next
        /// handshake. A session that the peer begins has the cipher that the peer chose.
        cipher: DataCipher,
    },
    /// Forgets a peer: its keys are wiped, its flows and packets dropped.
    RemovePeer {
        /// Which.
        index: PeerIndex,
    },
    /// Where to try to reach a peer. A hint: a path over which the peer answers stays.
    SetPath {
        /// Which peer.
        index: PeerIndex,
        /// Where.
        path: Path,
    },
    /// What is allowed from now on; every open flow is decided again at its next packet.
    SetTable(Arc<policy::Table>),
    /// Answers [`crate::Event::WhoSends`].
    Sender {
        /// What was asked about.
        of: Sending,
        /// Whose it is; `None`: nobody that the policy names, or nobody can tell.
        workload: Option<Name>,
    },
    /// Asks for an [`crate::Event::Report`].
    Report,
}
