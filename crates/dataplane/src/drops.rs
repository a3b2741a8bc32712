//! Why a packet was not delivered: one reason each, with a stable name for metrics.

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why a packet or datagram went no further. It is counted under exactly one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl DropReason {
            /// Every reason, in the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Returns the name that metrics and the local API use; it never changes.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// Returns a sentence for people.
            pub const fn explanation(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),+).trim_ascii(),)+
                }
            }
        }
    };
}

drop_reasons! {
    // Before the mesh is up.
    /// The host has not joined a fleet.
    NoIdentity = "no_identity",
    /// No policy is known yet, so nothing is allowed.
    NoPolicy = "no_policy",

    // Packets that are wrong in themselves.
    /// Neither IPv4 nor IPv6.
    NotIp = "not_ip",
    /// Shorter than its headers say.
    Truncated = "truncated",
    /// The IP header contradicts itself.
    BadHeader = "bad_header",
    /// The TCP, UDP or ICMP header contradicts itself.
    BadTransport = "bad_transport",
    /// It asks to be source-routed.
    SourceRouted = "source_routed",
    /// More IPv6 extension headers than anyone needs.
    TooManyExtensions = "too_many_extensions",
    /// A fragment too small to be judged, or placed over the header.
    UnsafeFragment = "unsafe_fragment",
    /// A fragment whose first one was not let through before it.
    UnknownFragment = "unknown_fragment",
    /// The kernel's offload header says of the packet what it is not.
    OffloadUnsupported = "offload_unsupported",

    // Packets of this host that have no place in the overlay.
    /// To a multicast address.
    Multicast = "multicast",
    /// To the broadcast address.
    Broadcast = "broadcast",
    /// From or to a link-local address.
    LinkLocal = "link_local",
    /// The kernel looks for a router; there is none.
    RouterSolicitation = "router_solicitation",
    /// To an address that can never be a host's.
    NotUnicast = "not_unicast",
    /// From an address that is not this host's overlay address.
    ForeignSource = "foreign_source",
    /// To this host itself.
    OwnAddress = "own_address",
    /// No peer has this address.
    UnknownDestination = "unknown_destination",
    /// Larger than the MTU.
    TooBig = "too_big",

    // Policy.
    /// The policy denied a packet of this host.
    DeniedOutbound = "denied_outbound",
    /// The policy denied a packet of a peer.
    DeniedInbound = "denied_inbound",
    /// An ICMP error about no known flow.
    UnrelatedIcmp = "unrelated_icmp",
    /// An echo reply that nobody asked for.
    UnrelatedReply = "unrelated_reply",
    /// ICMP that would change this host's routes or neighbours.
    ForbiddenIcmp = "forbidden_icmp",
    /// A rule asks which program sends it, and nobody has told.
    UnknownWorkload = "unknown_workload",
    /// No room for another flow.
    FlowTableFull = "flow_table_full",

    // Packets that waited for a session.
    /// Pushed out by later packets to the same peer, or no memory left for waiting packets.
    PendingOverflow = "pending_overflow",
    /// The peer did not answer any handshake.
    PeerUnreachable = "peer_unreachable",
    /// The peer was removed.
    PeerRemoved = "peer_removed",
    /// Another daemon took over while it waited.
    HandedOver = "handed_over",

    // Datagrams.
    /// From an address that no host can have: port 0, or no unicast address.
    ImpossibleSource = "impossible_source",
    /// Not a WireGuard message.
    NotWireguard = "not_wireguard",
    /// For a session or handshake that is not known here.
    UnknownReceiver = "unknown_receiver",
    /// Not sealed by the peer, or damaged on the way.
    Forged = "forged",
    /// Seen before, or too old to tell.
    Replayed = "replayed",
    /// Sealed under a session that is over.
    SessionExpired = "session_expired",
    /// The inner source is not the peer's own address.
    SpoofedSource = "spoofed_source",
    /// The inner destination is not this host's own address.
    NotOurAddress = "not_our_address",
    /// A control message of a peer's daemon that this version does not understand.
    BadControl = "bad_control",
    /// A peer says that it denied a flow that this host has not opened with it.
    UnrelatedRejection = "unrelated_rejection",
    /// A peer answers a claim that this host has not made.
    UnrelatedClaim = "unrelated_claim",
    /// No room for another claim of a peer of who sends a flow.
    ClaimTableFull = "claim_table_full",
    /// Congestion was marked on a packet that cannot carry the mark (RFC 6040 4.2).
    CongestionUnmarkable = "congestion_unmarkable",

    // Handshakes.
    /// A handshake message not meant for our key.
    HandshakeBadMac = "handshake_bad_mac",
    /// Under load: the sender must first prove its address by the cookie that it was sent.
    HandshakeNeedsCookie = "handshake_needs_cookie",
    /// Too many handshakes at once.
    HandshakeOverload = "handshake_overload",
    /// From a key that is no peer's.
    HandshakeUnknownKey = "handshake_unknown_key",
    /// A handshake message that does not decrypt.
    HandshakeForged = "handshake_forged",
    /// A handshake that is not newer than the last.
    HandshakeReplayed = "handshake_replayed",
    /// A handshake too soon after the last of this peer.
    HandshakeTooFrequent = "handshake_too_frequent",
    /// An answer to no handshake of ours.
    HandshakeUnexpected = "handshake_unexpected",
    /// A cookie that does not decrypt or was not asked for.
    CookieRejected = "cookie_rejected",

    // Between the shards of a host.
    /// Another shard of this host has it to do, and has no room for more.
    HandOverFull = "hand_over_full",

    // On the tunnels' port, and not theirs.
    /// For streams of services over QUIC: more at once than is taken.
    StreamsFull = "streams_full",

    // The way out.
    /// This host's programs send more than it can take, so that each peer has a share: above this one's.
    OverlayAboveShare = "overlay_above_share",
    /// The caller had no memory for it.
    OutboxFull = "outbox_full",
}

impl DropReason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Returns the place of its counter.
    pub(crate) const fn position(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_name_and_place() {
        let mut names: Vec<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        for (position, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason.position(), position);
            assert!(reason.explanation().ends_with('.'), "{reason:?}");
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::COUNT);
    }
}
