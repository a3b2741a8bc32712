//! Where this host stands towards a fleet: one state machine from unenrolled to member, and out
//! again. The states hold what they need; `agent` carries out what their steps ask for.

use std::sync::Arc;
use std::time::Duration;

use model::address::HostAddresses;
use model::control::{Description, EnrolRequest, Enrolled, Refusal, RefusalCode};
use model::identity::SpiffeId;
use model::ids::{Digest, HostId};
use model::limits::Limits;
use model::name::Name;
use model::record::{Signed, TrustStatement};
use model::time::{Instant, UnixTime};
use model::wire::stored::Membership;
use trust::enrolment::{TlsKey, Transcript, wireguard_proof};
use trust::{JoinToken, TrustAnchors, TrustError, certificate};

use crate::agent::AgentConfig;
use crate::backoff::Backoff;
use crate::certificate::Validity;
use crate::channel::jittered;
use crate::dice::Dice;
use crate::event::ChannelError;
use crate::keys::HostKeys;
use crate::map::Trusted;
use crate::output::{ChannelIdentity, Output, RequestId};
use crate::persistence::Version;
use crate::sync::SelfKnowledge;
use crate::timer::Timeout;

/// Where this host stands.
#[derive(Debug)]
pub(crate) enum Enrolment {
    /// No member. Keys of a join that did not succeed are used again by the next one, so that a
    /// coordinator which took the first never sees a second host.
    Unenrolled(Option<HostKeys>),
    /// Asks a coordinator what the fleet is.
    Describing(Join),
    /// Waits for the disk: keys and token before the enrolment, membership after it.
    Persisting(Join, Saving),
    /// Asks a coordinator to become a member.
    Enrolling(Join, Offer),
    /// A member.
    Member(Box<Member>),
    /// Tells the coordinator that it leaves, or forgets what it was.
    Leaving(Leaving),
    /// A member that the fleet says is none any more, and why. Nothing of it is enforced.
    Removed(Box<Member>, String),
    /// The state directory is a copy of another machine's, which is this member. Nothing of it is
    /// enforced or said here: the coordinator and the peers know one machine of these keys.
    Cloned(Box<Member>),
}

/// A join under way.
#[derive(Debug)]
pub(crate) struct Join {
    /// Who waits for the answer; nobody after a restart.
    pub(crate) request: Option<RequestId>,
    pub(crate) token: JoinToken,
    pub(crate) name: Name,
    pub(crate) keys: HostKeys,
    /// The identity file knows of it.
    pub(crate) is_saved: bool,
    wait: Wait,
    backoff: Backoff,
    /// How often it may still be told to come back later.
    turns_left: u32,
}

/// What a join waits for, from coordinators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Answer { until: Instant },
    Retry { at: Instant },
}

/// What has to be durable before a join goes on.
#[derive(Debug)]
pub(crate) enum Saving {
    /// Keys, token and marks; then the offer is made.
    Keys {
        identity: Version,
        high_water: Version,
        offer: Offer,
    },
    /// The membership; then this is a member.
    Membership {
        identity: Version,
        member: Box<Member>,
        fleet: Fleet,
    },
}

/// What a coordinator is asked, and what its answer is measured by.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    pub(crate) request: EnrolRequest,
    pub(crate) fleet: Fleet,
}

/// What a host believes of its fleet.
#[derive(Clone, Debug)]
pub(crate) struct Fleet {
    pub(crate) anchors: TrustAnchors,
    pub(crate) trusted: Arc<Trusted>,
}

/// A member of a fleet.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) keys: HostKeys,
    pub(crate) membership: Membership,
    pub(crate) coordinators: Vec<String>,
    pub(crate) fleet_name: Name,
    pub(crate) validity: Validity,
    /// The one who asked for the join and waits for the first map.
    pub(crate) newcomer: Option<Newcomer>,
}

/// Who waits for the first map, and what is known without it.
#[derive(Clone, Debug)]
pub(crate) struct Newcomer {
    pub(crate) request: RequestId,
    pub(crate) until: Instant,
    pub(crate) addresses: HostAddresses,
    pub(crate) dns_suffix: String,
}

/// On the way out.
#[derive(Clone, Debug)]
pub(crate) struct Leaving {
    pub(crate) request: RequestId,
    /// The member that leaves; `None`: it was none.
    pub(crate) host: Option<HostId>,
    /// The coordinator said that it knows.
    pub(crate) told: bool,
    /// The last moment for it to say so; `None`: the state is being erased.
    pub(crate) until: Option<Instant>,
}

/// How often a coordinator is asked for a description while somebody waits.
const DESCRIBE_ATTEMPTS: u32 = 3;
/// How often an enrolment is tried while somebody waits: it may already have happened.
const ENROL_ATTEMPTS: u32 = 6;
/// The program tries several addresses, each with its own time-out.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
/// How often a join is sent away with a time to come back before that counts as a failure.
const TURNS_MAX: u32 = 100;
const RETRY_BASE: Duration = Duration::from_millis(500);
const RETRY_CAP: Duration = Duration::from_secs(5);
/// With nobody waiting there is no hurry.
const RESUMED_RETRY_CAP: Duration = Duration::from_secs(60);
/// How long an answer to a join waits for the first map.
pub(crate) const FIRST_MAP_PATIENCE: Duration = Duration::from_secs(10);
/// How long a leave waits for the coordinator.
pub(crate) const LEAVE_PATIENCE: Duration = Duration::from_secs(3);

impl Join {
    pub(crate) fn new(
        request: Option<RequestId>,
        token: JoinToken,
        name: Name,
        keys: HostKeys,
        now: Instant,
    ) -> Self {
        let cap = if request.is_some() {
            RETRY_CAP
        } else {
            RESUMED_RETRY_CAP
        };
        Self {
            request,
            token,
            name,
            keys,
            is_saved: false,
            wait: Wait::Answer {
                until: now + ANSWER_PATIENCE,
            },
            backoff: Backoff::new(RETRY_BASE, cap),
            turns_left: TURNS_MAX,
        }
    }

    /// From now on somebody waits: tries soon, and counts attempts from here.
    pub(crate) fn attach(&mut self, request: RequestId, now: Instant) {
        self.request = Some(request);
        self.backoff = Backoff::new(RETRY_BASE, RETRY_CAP);
        if matches!(self.wait, Wait::Retry { .. }) {
            self.wait = Wait::Retry { at: now };
        }
    }

    pub(crate) fn describe(&mut self, now: Instant) -> Output {
        self.wait = Wait::Answer {
            until: now + ANSWER_PATIENCE,
        };
        Output::Describe {
            coordinators: self.token.addresses.clone(),
            pin: self.token.pin,
        }
    }

    pub(crate) fn enrol(&mut self, offer: &Offer, now: Instant) -> Output {
        self.wait = Wait::Answer {
            until: now + ANSWER_PATIENCE,
        };
        Output::Enrol {
            coordinators: self.token.addresses.clone(),
            pin: self.token.pin,
            request: offer.request.clone(),
        }
    }

    /// Starts to count attempts anew, for the next step.
    pub(crate) fn step_done(&mut self) {
        self.backoff.reset();
    }

    /// Makes the offer to a coordinator that described the fleet.
    ///
    /// # Errors
    /// The description does not hold.
    pub(crate) fn offer(
        &self,
        description: &Description,
        config: &AgentConfig,
    ) -> Result<Offer, Refusal> {
        let fleet = Fleet::from_statements(&[], &description.trust, &self.token.pin)?;
        let certificate_request =
            TlsKey::from_seed(self.keys.tls.clone()).certificate_request(&self.name);
        let transcript = Transcript {
            fleet: fleet.anchors.fleet(),
            token: self.token.id,
            name: &self.name,
            wireguard_key: self.keys.wireguard_public,
            certificate_request: &certificate_request,
        };
        let enrolment_key = &fleet.trusted.statement.enrolment_key;
        let wireguard_proof = wireguard_proof(&self.keys.wireguard, enrolment_key, &transcript)
            .map_err(|error| mismatch(error.to_string()))?;
        let request = EnrolRequest {
            token: self.token.id,
            token_secret: self.token.secret,
            name: self.name.clone(),
            wireguard_key: self.keys.wireguard_public,
            certificate_request,
            wireguard_proof,
            software_version: config.software_version.clone(),
            machine_id: config.machine_id.clone(),
            features: config.features().map(str::to_owned).collect(),
        };
        Ok(Offer { request, fleet })
    }

    /// Checks that the membership which a coordinator gave is the one that was asked for.
    ///
    /// # Errors
    /// Something in it does not hold.
    pub(crate) fn accept(
        &self,
        enrolled: Enrolled,
        fleet: &Fleet,
        now: Instant,
    ) -> Result<Member, Refusal> {
        let record = fleet
            .anchors
            .verify_record(&enrolled.record)
            .map_err(|error| mismatch(error.to_string()))?;
        if record.host != enrolled.host
            || record.wireguard_key != self.keys.wireguard_public
            || record.tls_key_hash != self.keys.tls_key_hash
        {
            return Err(mismatch("its record is not this host's".to_owned()));
        }
        let validity = check_chain(
            &enrolled.certificate_chain,
            fleet.anchors.root_certificates(),
            &self.keys,
            fleet.anchors.fleet_name(),
        )
        .map_err(mismatch)?;
        let newcomer = self.request.map(|request| Newcomer {
            request,
            until: now + FIRST_MAP_PATIENCE,
            addresses: record.addresses,
            dns_suffix: fleet.trusted.statement.dns_suffix.clone(),
        });
        Ok(Member {
            keys: self.keys.clone(),
            membership: Membership {
                host: enrolled.host,
                name: record.name,
                root_pin: self.token.pin,
                certificate_chain: enrolled.certificate_chain,
            },
            coordinators: self.token.addresses.clone(),
            fleet_name: fleet.anchors.fleet_name().clone(),
            validity,
            newcomer,
        })
    }

    /// Counts a failure to speak to a coordinator; returns the refusal when it is time to give up.
    pub(crate) fn failed(
        &mut self,
        error: &ChannelError,
        is_offered: bool,
        now: Instant,
        dice: &mut Dice,
    ) -> Option<Refusal> {
        let attempts_max = if is_offered {
            ENROL_ATTEMPTS
        } else {
            DESCRIBE_ATTEMPTS
        };
        let is_awaited = self.request.is_some();
        if let Some(asked) = error.retry_after.filter(|_| self.turns_left > 0) {
            // It is no failure to be told when it is one's turn.
            self.turns_left -= 1;
            self.wait = Wait::Retry {
                at: now + jittered(asked, dice),
            };
            return None;
        }
        self.wait = Wait::Retry {
            at: now + self.backoff.next_wait(dice),
        };
        let is_hopeless = !error.kind.is_transient() || self.backoff.failures() >= attempts_max;
        (is_awaited && is_hopeless)
            .then(|| Refusal::new(RefusalCode::Unavailable, error.message.clone()))
    }

    /// Returns whether it is time to ask again.
    pub(crate) fn wants_retry(&self, now: Instant) -> bool {
        matches!(self.wait, Wait::Retry { at } if at <= now)
    }

    /// Returns whether an answer is overdue.
    pub(crate) fn is_overdue(&self, now: Instant) -> bool {
        matches!(self.wait, Wait::Answer { until } if until <= now)
    }

    fn poll_timeout(&self) -> Timeout {
        match self.wait {
            Wait::Answer { until } => Some((until, "no answer to the join")),
            Wait::Retry { at } => Some((at, "try the join again")),
        }
    }
}

impl Fleet {
    /// Believes a statement by the pin, if need be by way of earlier ones.
    ///
    /// # Errors
    /// They do not hold.
    pub(crate) fn from_statements(
        earlier: &[Signed],
        last: &Signed,
        pin: &Digest,
    ) -> Result<Self, Refusal> {
        let (anchors, steps) = TrustAnchors::from_statements(earlier, last, pin)
            .map_err(|error| mismatch(error.to_string()))?;
        let steps = steps.into_iter().cloned().collect();
        Ok(Self::new(anchors, last, steps))
    }

    /// Believes later statements by those before; `None`: they are known.
    ///
    /// # Errors
    /// The last does not hold.
    pub(crate) fn follow(
        &self,
        earlier: &[Signed],
        last: &Signed,
        pin: &Digest,
    ) -> Result<Option<Self>, TrustError> {
        let Some((anchors, steps)) = self.anchors.follow(earlier, last)? else {
            return Ok(None);
        };
        let mut way = Vec::new();
        if !anchors.believes_root(pin) {
            way.extend_from_slice(&self.trusted.earlier);
            way.push(self.trusted.signed.clone());
            way.extend(steps.into_iter().cloned());
            let surplus = way.len().saturating_sub(Limits::STATEMENTS);
            way.drain(..surplus);
        }
        Ok(Some(Self::new(anchors, last, way)))
    }

    fn new(anchors: TrustAnchors, signed: &Signed, earlier: Vec<Signed>) -> Self {
        let trusted = Arc::new(Trusted {
            signed: signed.clone(),
            statement: anchors.statement().clone(),
            earlier,
        });
        Self { anchors, trusted }
    }
}

impl Member {
    /// Takes a membership up again that the disk kept.
    ///
    /// # Errors
    /// Says what is wrong with its certificate.
    pub(crate) fn from_stored(
        keys: HostKeys,
        membership: Membership,
        coordinators: Vec<String>,
    ) -> Result<Self, String> {
        let leaf = membership
            .certificate_chain
            .first()
            .ok_or("it has no certificate")?;
        let facts = certificate::facts(leaf).map_err(|error| error.to_string())?;
        let SpiffeId::Host { fleet, .. } = facts.spiffe else {
            return Err("its certificate is not a host's".to_owned());
        };
        if facts.tls_key_hash != keys.tls_key_hash {
            return Err("its certificate is for another key".to_owned());
        }
        Ok(Self {
            keys,
            membership,
            coordinators,
            fleet_name: fleet,
            validity: Validity {
                not_before: facts.not_before,
                not_after: facts.not_after,
            },
            newcomer: None,
        })
    }

    pub(crate) fn self_knowledge(&self) -> SelfKnowledge {
        SelfKnowledge {
            host: self.membership.host,
            wireguard_key: self.keys.wireguard_public,
            spare_key: self.keys.spare.as_ref().map(|spare| spare.public),
            tls_key_hash: self.keys.tls_key_hash,
        }
    }

    /// Returns the SHA-256 of the newest root of a statement that this host's certificate leads to.
    pub(crate) fn certified_by(&self, statement: &TrustStatement) -> Option<Digest> {
        let (_, rest) = self.membership.certificate_chain.split_first()?;
        let listed = |der: &&Vec<u8>| statement.root_certificates.contains(der);
        rest.iter().find(listed).map(|der| trust::sha256(der))
    }

    /// Returns what a channel is authenticated with. Without a trust statement, as after a lost
    /// map, the root that came with the certificate is the one that is believed.
    pub(crate) fn channel_identity(&self, anchors: Option<&TrustAnchors>) -> ChannelIdentity {
        let chain = &self.membership.certificate_chain;
        let roots = anchors.map_or_else(
            || {
                let pinned = |der: &&Vec<u8>| trust::sha256(der) == self.membership.root_pin;
                chain.iter().filter(pinned).cloned().collect()
            },
            |anchors| anchors.root_certificates().to_vec(),
        );
        ChannelIdentity {
            roots,
            chain: chain.clone(),
            tls_key: self.keys.tls.clone(),
            fleet: self.fleet_name.clone(),
        }
    }
}

impl Enrolment {
    /// Returns who this host is in its fleet, also while it leaves.
    pub(crate) fn host(&self) -> Option<HostId> {
        match self {
            Self::Member(member) => Some(member.membership.host),
            Self::Leaving(leaving) => leaving.host,
            _ => None,
        }
    }

    pub(crate) fn member(&self) -> Option<&Member> {
        match self {
            Self::Member(member) => Some(member),
            _ => None,
        }
    }

    pub(crate) fn member_mut(&mut self) -> Option<&mut Member> {
        match self {
            Self::Member(member) => Some(member),
            _ => None,
        }
    }

    pub(crate) fn poll_timeout(&self) -> Timeout {
        match self {
            Self::Describing(join) | Self::Enrolling(join, _) => join.poll_timeout(),
            Self::Member(member) => member
                .newcomer
                .as_ref()
                .map(|it| (it.until, "the first map is late")),
            Self::Leaving(Leaving {
                until: Some(until), ..
            }) => Some((*until, "leave without the coordinator")),
            _ => None,
        }
    }
}

/// Checks a chain that a coordinator issued for this host; returns when it is valid. Whether it is
/// valid by this host's clock does not matter: the clock may be wrong, the coordinator's counts.
///
/// # Errors
/// Says what does not hold.
pub(crate) fn check_chain(
    chain: &[Vec<u8>],
    roots: &[Vec<u8>],
    keys: &HostKeys,
    fleet_name: &Name,
) -> Result<Validity, String> {
    let leaf = chain.first().ok_or("it has no certificate")?;
    let not_before = certificate::facts(leaf)
        .map_err(|error| error.to_string())?
        .not_before;
    let facts = certificate::verify_chain(chain, roots, UnixTime::from_secs(not_before.as_secs()))
        .map_err(|error| error.to_string())?;
    facts
        .check_host(fleet_name)
        .map_err(|error| error.to_string())?;
    if facts.tls_key_hash != keys.tls_key_hash {
        return Err("its certificate is for another key".to_owned());
    }
    Ok(Validity {
        not_before: facts.not_before,
        not_after: facts.not_after,
    })
}

fn mismatch(why: String) -> Refusal {
    let message = format!("the coordinator answered with something that does not hold: {why}");
    Refusal::new(RefusalCode::Invalid, message)
}
