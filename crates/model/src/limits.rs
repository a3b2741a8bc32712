//! How much of anything there may be. Every bound of the wire messages and records stands here,
//! so that what one program sends another accepts.

/// The bounds. A value above one is refused where it arises, with the bound in the message.
pub struct Limits;

impl Limits {
    /// Labels of one host.
    pub const LABELS_PER_HOST: usize = 32;
    /// Endpoints that a host may report.
    pub const ENDPOINTS_PER_HOST: usize = 16;
    /// Coordinator addresses in a token or a host's state.
    pub const COORDINATOR_ADDRESSES: usize = 8;
    /// Allow and deny rules of a bundle.
    pub const RULES: usize = 100_000;
    /// Services of a bundle.
    pub const SERVICES: usize = 10_000;
    /// Workloads of a bundle.
    pub const WORKLOADS: usize = 10_000;
    /// Entries of the `http` of one rule.
    pub const HTTP_MATCHES_PER_RULE: usize = 64;
    /// Methods of one such entry.
    pub const METHODS_PER_MATCH: usize = 16;
    /// Headers of one such entry.
    pub const HEADERS_PER_MATCH: usize = 16;
    /// Bytes of the body that a service answers when nothing is left.
    pub const FALLBACK_BODY_BYTES: usize = 16 << 10;
    /// Selectors in one `from`, `to` or `endpoints`.
    pub const SELECTORS_PER_LIST: usize = 256;
    /// Port ranges in one list.
    pub const PORT_RANGES_PER_LIST: usize = 256;
    /// Bytes of all files of a bundle's directory.
    pub const BUNDLE_BYTES: usize = 16 << 20;
    /// Hosts of a fleet.
    pub const HOSTS: usize = 1 << 20;
    /// Forgotten peers of which a host keeps how far their records had come.
    pub const FORMER_PEERS: usize = 1 << 16;
    /// Bytes of one message of the control channel.
    pub const CONTROL_MESSAGE_BYTES: usize = 64 << 20;
    /// Bytes of one certificate.
    pub const CERTIFICATE_BYTES: usize = 16 << 10;
    /// Certificates in a chain.
    pub const CHAIN_LENGTH: usize = 4;
    /// Characters of a reason, note or version.
    pub const TEXT_CHARS: usize = 1024;
    /// Bytes of one message from a host to its coordinator: `FromHost`, `EnrolRequest`.
    pub const REPORT_BYTES: usize = 256 << 10;
    /// Bytes of a signed record, tombstone, head or trust statement.
    pub const SIGNED_PAYLOAD_BYTES: usize = 256 << 10;
    /// Signatures on one payload.
    pub const SIGNATURES: usize = 16;
    /// Trust statements that lead from one that a host knows to the last.
    pub const STATEMENTS: usize = 64;
    /// X.509 roots that a fleet trusts at once.
    pub const ROOT_CERTIFICATES: usize = 8;
    /// Keys that may sign a fleet's records at once.
    pub const RECORD_KEYS: usize = 16;
    /// Bytes of one leaf of a bundle; the one with all denies is the largest.
    pub const LEAF_BYTES: usize = 32 << 20;
    /// Leaves of a bundle: the denies, each allow, each service, each workload.
    pub const LEAVES: usize = 1 + Self::RULES + Self::SERVICES + Self::WORKLOADS;
    /// Hashes from a leaf to the root of the tallest tree.
    pub const PROOF_LENGTH: usize = 32;
    /// Endpoints of a peer in a map: its own, and what others see.
    pub const ENDPOINTS_PER_PEER: usize = 32;
    /// Bytes of a certificate request.
    pub const CERTIFICATE_REQUEST_BYTES: usize = 8 << 10;
    /// Features that a host names.
    pub const FEATURES: usize = 64;
    /// Headers of a call that is asked about.
    pub const FACT_HEADERS: usize = 32;
    /// Notes of an explanation.
    pub const NOTES: usize = 64;
    /// Overlay addresses of one end of a flow that is explained.
    pub const PAIR_ADDRESSES: usize = 4;
    /// Characters of a DNS suffix: a name of 63 and a dot fit before it (RFC 1035 2.3.4).
    pub const DNS_SUFFIX_CHARS: usize = 189;
}
