//! The messages of the control channel. `wire` turns them into bytes and back.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::ids::{Digest, HostId, PolicyVersion, Revision, TokenId};
use crate::key::WireguardKey;
use crate::map::{Endpoint, MapDelta};
use crate::memory::Memory;
use crate::name::{Name, RuleId};
use crate::pair::PairFacts;
use crate::question::{CallFacts, Verdict};
use crate::record::Signed;
use crate::rule::{FlowQuery, Source};
use crate::time::UnixTime;

/// What a host tells the coordinator on its `Sync` stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromHost {
    /// The first message on every stream.
    Hello(Hello),
    /// Where the host can be reached, the whole list.
    Endpoints(EndpointReport),
    /// Where the host sees a peer's authenticated packets come from.
    Observation {
        /// The peer.
        peer: HostId,
        /// Its underlay address, seen from here; port 0 and `::` too, which nobody can answer.
        address: SocketAddr,
    },
    /// A map is in force here, or could not be applied.
    Applied(Applied),
    /// Asks for a new certificate: a PKCS#10 request, DER.
    Renew(Vec<u8>),
    /// Answers `ToHost::Explain`.
    Explanation(Explanation),
    /// The host leaves the fleet for good.
    Leave,
    /// Asks for `ToHost::Pong`.
    Ping(u64),
    /// A part of the answer to `ToHost::Recall`.
    Memory(Box<Memory>),
    /// Asks for a record with another WireGuard key.
    NewKey(NewKey),
}

/// The WireGuard key that a host wants to have from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewKey {
    /// The key.
    pub wireguard_key: WireguardKey,
    /// Proof that the host has the private key; see `trust::key_change`.
    pub proof: [u8; 32],
}

/// The feature of a host that offers AES-256-GCM as data cipher; its record says so then.
pub const AES_256_GCM: &str = "aes-256-gcm";

/// The first message on every stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The revision that the host has; `None`: nothing.
    pub have: Option<Revision>,
    /// Version of `meshd`.
    pub software_version: String,
    /// What this `meshd` can enforce, by name.
    pub features: Vec<String>,
    /// Raised with every start of the daemon.
    pub boot_counter: u64,
    /// What it has of the fleet's authority; `None`: nothing, or it is of an earlier version.
    pub trust: Option<HeldTrust>,
}

/// What a host has on its disk of the fleet's authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldTrust {
    /// Of the trust statement.
    pub epoch: u64,
    /// Of the trust statement.
    pub serial: u64,
    /// SHA-256 of the root certificate that issued the host's own.
    pub certified_by: Digest,
}

/// Where a host can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct EndpointReport {
    /// Best first, at most `Limits::ENDPOINTS_PER_HOST`.
    pub endpoints: Vec<Endpoint>,
    /// The port that WireGuard listens on.
    pub listen_port: u16,
    /// The TCP port that it takes the streams of services at; `None`: it does not say.
    pub stream_port: Option<u16>,
}

/// A map is in force, or could not be applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The revision that is in force on the host now.
    pub revision: Revision,
    /// The policy version that is in force on the host now.
    pub policy: PolicyVersion,
    /// Why the last map could not be applied.
    pub error: Option<String>,
    /// Why the host is not in the overlay although its map is in force, as without a TUN device.
    pub trouble: Option<String>,
    /// The authority that is believed on the host now.
    pub trust: Option<HeldTrust>,
}

/// How a flow would be decided on one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The question's.
    pub id: u64,
    /// The version that decided.
    pub policy: PolicyVersion,
    /// The verdict.
    pub allowed: bool,
    /// The rule that decided; `None`: no rule allows it.
    pub rule: Option<RuleId>,
    /// Where the rule was written.
    pub source: Option<Source>,
    /// As far as it is known what is called; `None`: an older host answered of packets alone.
    pub verdict: Option<Verdict>,
    /// What the verdict is up to, for people: `the method`.
    pub depends_on: Vec<String>,
    /// Near misses and more: sentences for people.
    pub notes: Vec<String>,
    /// The way to the other end; `None`: this host does not know the other end.
    pub pair: Option<PairFacts>,
}

/// What the coordinator tells a host on its `Sync` stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToHost {
    /// Answers `FromHost::Hello`.
    Welcome(Welcome),
    /// A change of the host's map.
    Map(MapDelta),
    /// Answers `FromHost::Renew`: the new chain, DER, leaf first; or why not.
    Certificate(Result<Vec<Vec<u8>>, String>),
    /// A question of an operator.
    Explain {
        /// Comes back in the `Explanation`.
        id: u64,
        /// The flow.
        query: FlowQuery,
        /// What is known of the call; `None`: an older coordinator asks of packets alone.
        call: Option<Box<CallFacts>>,
    },
    /// The stream ends.
    Goodbye(Goodbye),
    /// Answers `FromHost::Ping`.
    Pong(u64),
    /// Asks for everything that the host remembers of the fleet, in `FromHost::Memory`.
    Recall,
    /// An operator wants this host to have another WireGuard key.
    RotateKey,
    /// Answers `FromHost::NewKey` when it is not granted: why. When it is, the record comes.
    KeyRefused(String),
}

/// Answers `Hello`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The fleet's trust statement.
    pub trust: Signed,
    /// Statements before it that the host lacks, the oldest first.
    pub earlier: Vec<Signed>,
    /// Where the coordinator sees the host.
    pub observed: Option<IpAddr>,
    /// Version of the coordinator.
    pub software_version: String,
    /// The coordinator's clock.
    pub unix: UnixTime,
}

/// The stream ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// For people.
    pub reason: String,
    /// When to come back, before jitter.
    pub retry_after: Duration,
    /// The host's own `Tombstone`: it is no longer a member of the fleet.
    pub tombstone: Option<Signed>,
}

/// What a joining host must know first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// A `TrustStatement`.
    pub trust: Signed,
    /// Version of the coordinator.
    pub software_version: String,
    /// The coordinator's clock.
    pub unix: UnixTime,
}

/// Asks to become a member of the fleet.
#[derive(Clone, PartialEq, Eq)]
pub struct EnrolRequest {
    /// Which token.
    pub token: TokenId,
    /// The token's secret.
    pub token_secret: [u8; 16],
    /// The name the host wants.
    pub name: Name,
    /// The host's WireGuard key.
    pub wireguard_key: WireguardKey,
    /// PKCS#10, DER, signed by the host's TLS key.
    pub certificate_request: Vec<u8>,
    /// Proof that the host has the WireGuard private key; see `trust::enrolment`.
    pub wireguard_proof: [u8; 32],
    /// Version of `meshd`.
    pub software_version: String,
    /// Names the machine, hashed; empty when it has none.
    pub machine_id: String,
    /// As in `Hello`.
    pub features: Vec<String>,
}

impl fmt::Debug for EnrolRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrolRequest")
            .field("token", &self.token)
            .field("name", &self.name)
            .field("wireguard_key", &self.wireguard_key)
            .field("software_version", &self.software_version)
            .finish_non_exhaustive()
    }
}

/// The host is a member, durably.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// The host's id.
    pub host: HostId,
    /// Its first `HostRecord`.
    pub record: Signed,
    /// DER, leaf first.
    pub certificate_chain: Vec<Vec<u8>>,
}

/// Why the coordinator refuses something, with a code for programs and a text for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What programs act on.
    pub code: RefusalCode,
    /// What failed, why, what to try.
    pub message: String,
}

impl Refusal {
    /// Makes a refusal.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// What programs act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalCode {
    /// The request makes no sense; do not repeat it.
    Invalid,
    /// The caller may not do this.
    Denied,
    /// What is asked for does not exist.
    NotFound,
    /// It clashes with what is there: a name, a key, a version.
    Conflict,
    /// A limit is reached.
    Exhausted,
    /// Not now; try again.
    Unavailable,
}
