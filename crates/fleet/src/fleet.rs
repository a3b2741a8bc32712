//! The fleet's verbs, and how a request goes from question to answer: planned against what is known,
//! committed, and answered once that is durable and taken over. The nouns have files of their own.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use model::control::{Description, EnrolRequest, FromHost};
use model::ids::Revision;
use model::limits::Limits;
use model::memory::Memory;
use model::record::Signed;
use model::store::{Committed, KeyValue, StoreRevision};
use model::time::{Instant, Now};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use thiserror::Error;
use trust::Authority;

use crate::audit::{Appender, Refusals};
use crate::ciphers::Offers;
use crate::commits::Commits;
use crate::config::{FleetConfig, LoadError};
use crate::explain::Questions;
use crate::hints::Hints;
use crate::output::{CommitId, KeepId, Output, Rejection, Reply, RequestId, SessionId};
use crate::policy_work::WorkId;
use crate::presence::Presences;
use crate::recovery::{Hearsay, Recovery, Testimony};
use crate::request::{AdminRequest, Caller};
use crate::rotation::Rotation;
use crate::sessions::{SessionPeer, Sessions};
use crate::state::{Former, State};
use crate::turnstile::Turnstile;
use crate::work::{Job, Origin, Work};

/// The brain of the coordinator.
#[derive(Debug)]
pub struct Fleet {
    pub(crate) config: FleetConfig,
    /// The keys of all roots that the last trust statement lists.
    pub(crate) authority: Authority,
    /// All keys on the disk: also those that no statement lists yet, or any more.
    pub(crate) keyring: Authority,
    pub(crate) rotation: Rotation,
    pub(crate) state: State,
    pub(crate) commits: Commits,
    pub(crate) appender: Appender,
    pub(crate) refusals: Refusals,
    pub(crate) streams_turnstile: Turnstile,
    pub(crate) enrolments_turnstile: Turnstile,
    /// One for each credential that has asked something.
    pub(crate) caller_turnstiles: BTreeMap<String, Turnstile>,
    pub(crate) presences: Presences,
    pub(crate) sessions: Sessions,
    pub(crate) questions: Questions,
    pub(crate) recovery: Recovery,
    pub(crate) offers: Offers,
    /// Machines that lately did not believe what this coordinator shows.
    pub(crate) disbelieving: usize,
    /// What an operator should look at on this machine.
    pub(crate) alarms: Vec<String>,
    /// Requests whose policies are being looked at on another thread.
    pub(crate) works: BTreeMap<WorkId, Job>,
    pub(crate) last_work: u64,
    /// Where the search for a free address goes on.
    pub(crate) address_cursor: u32,
    /// The last revision that was signed.
    pub(crate) map_head: Option<(Revision, Signed)>,
    /// Hosts that may be reached elsewhere.
    pub(crate) hints: Hints,
    /// When hosts have to be told what changed.
    pub(crate) publish_at: Option<Instant>,
    random: ChaCha20Rng,
    outputs: VecDeque<Output>,
}

/// Why a commit did not happen.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CommitError {
    /// A compare did not hold; nothing was changed.
    #[error("somebody else changed it first")]
    Conflict,
    /// The store could not write; the text says why and what to try. Nothing was changed, as far as
    /// the store knows: where it does not know, call `Fleet::handle_listing` with what there is.
    #[error("{0}")]
    Failed(String),
}

impl Fleet {
    /// Starts from what the store holds at `revision`.
    ///
    /// # Errors
    /// When the store is empty, is not this authority's, or holds what cannot be read.
    pub fn new(
        config: FleetConfig,
        authority: Authority,
        loaded: Vec<KeyValue>,
        revision: StoreRevision,
        seed: [u8; 32],
        now: Now,
    ) -> Result<Self, LoadError> {
        let (count, max) = (config.advertise.len(), Limits::COORDINATOR_ADDRESSES);
        if count == 0 || count > max {
            return Err(LoadError::Advertise { count, max });
        }
        let keyring = authority;
        let state = State::load(&keyring.root_pins(), &loaded, revision)?;
        let authority = keyring
            .limited_to(&state.statement.root_certificates)
            .expect("the key of its newest root is there");
        let last_given = state.last_given.map(|(_, index)| index);
        let mut fleet = Self {
            address_cursor: last_given.map_or(0, |index| index.saturating_add(1)),
            config,
            authority,
            keyring,
            rotation: Rotation::default(),
            state,
            commits: Commits::default(),
            appender: Appender::default(),
            refusals: Refusals::default(),
            streams_turnstile: Turnstile::default(),
            enrolments_turnstile: Turnstile::default(),
            caller_turnstiles: BTreeMap::new(),
            presences: Presences::default(),
            sessions: Sessions::default(),
            questions: Questions::default(),
            recovery: Recovery::default(),
            offers: Offers::default(),
            disbelieving: 0,
            alarms: Vec::new(),
            works: BTreeMap::new(),
            last_work: 0,
            map_head: None,
            hints: Hints::default(),
            publish_at: None,
            random: ChaCha20Rng::from_seed(seed),
            outputs: VecDeque::new(),
        };
        fleet.check_log();
        fleet.resume_rotation(now);
        Ok(fleet)
    }

    /// A damaged audit log stops nobody from working; it is told of.
    fn check_log(&mut self) {
        if let Err(broken) = self.state.audit.check() {
            self.notice(format!(
                "the audit log was changed by somebody else: {broken}; compare it with copies of it, \
                 as in this program's log or in backups (`meshctl audit --verify`)"
            ));
        }
    }

    /// Returns what a joining host must know first.
    pub fn describe(&self, now: Now) -> Description {
        Description {
            trust: self.state.trust.clone(),
            software_version: self.config.software_version.clone(),
            unix: now.unix,
        }
    }

    /// A host asks to become a member, from the address `from`.
    pub fn handle_enrol(&mut self, id: RequestId, request: EnrolRequest, from: IpAddr, now: Now) {
        if let Err(busy) = self.admit_joining(&request, now) {
            return self.reply(id, Err(busy));
        }
        let work = Work::Enrol {
            request: Box::new(request),
            from,
        };
        self.accept(Origin::Request(id), work, now);
    }

    /// An operator asks or orders something.
    pub fn handle_admin(&mut self, id: RequestId, caller: Caller, request: AdminRequest, now: Now) {
        if let Err(busy) = self.admit_caller(&caller, now) {
            return self.reply(id, Err(busy));
        }
        self.accept(Origin::Request(id), Work::Admin { caller, request }, now);
    }

    /// A host opened its stream; `peer` is what its certificate proved.
    pub fn handle_session_opened(
        &mut self,
        session: SessionId,
        peer: SessionPeer,
        observed: Option<IpAddr>,
        now: Now,
    ) {
        self.open_session(session, &peer, observed, now);
    }

    /// Returns whether a stream is a member's, who was let in: its connection may stay.
    pub fn is_of_member(&self, session: SessionId) -> bool {
        self.sessions.has(session)
    }

    /// A host said something on its stream. What it remembers is verified at once: a program that
    /// serves hosts who are not trusted passes that to `handle_memory`.
    pub fn handle_session_message(&mut self, session: SessionId, message: FromHost, now: Now) {
        self.hear(session, message, now);
    }

    /// A host tells a part of what it remembers. Returns what of it has to be verified, by a thread
    /// that has the time, for `handle_testimony`; `None`: the stream has ended.
    pub fn handle_memory(&mut self, session: SessionId, part: Memory, now: Now) -> Option<Hearsay> {
        self.hear_charged_memory(session, part, now)
    }

    /// What holds of what a host told.
    pub fn handle_testimony(&mut self, session: SessionId, told: Testimony, now: Now) {
        self.hear_testimony(session, told, now);
    }

    /// A stream is gone.
    pub fn handle_session_closed(&mut self, session: SessionId, now: Now) {
        self.forget_session(session, now);
    }

    /// The outcome of a commit.
    pub fn handle_commit(
        &mut self,
        id: CommitId,
        outcome: Result<Committed, CommitError>,
        now: Now,
    ) {
        if !self.commits.awaits(id) {
            return;
        }
        match outcome {
            Ok(committed) => {
                self.commits.hold(committed, Some(id));
                self.take_over(now);
            }
            Err(error) => self.give_up(id, error, now),
        }
    }

    /// The authority's keys were written, or not: the text says why.
    pub fn handle_authority_kept(&mut self, id: KeepId, outcome: Result<(), String>, now: Now) {
        self.kept(id, outcome, now);
    }

    /// What of retired keys still lies on the disk beside the key file, and why; `None`: nothing.
    pub fn handle_left_over_keys(&mut self, why: Option<String>) {
        self.rotation.left_over = why;
    }

    /// So many machines have lately not believed what this coordinator shows: they take part in no
    /// recovery, and an operator has to know.
    pub fn handle_disbelief(&mut self, machines: usize) {
        self.disbelieving = machines;
    }

    /// What an operator should look at on this coordinator's machine; whoever asks for its status is
    /// told.
    pub fn handle_alarms(&mut self, alarms: Vec<String>) {
        self.alarms = alarms;
    }

    /// A change of the store, this coordinator's own or another's; those that are known already are
    /// passed over. A program whose store has other writers passes every change of it here.
    pub fn handle_watch(&mut self, committed: Committed, now: Now) {
        self.commits.hold(committed, None);
        self.take_over(now);
    }

    /// Everything that the store holds at `revision`: the answer to `Output::List`, and what to do
    /// when a watch was interrupted or the outcome of a commit is unknown.
    pub fn handle_listing(&mut self, loaded: Vec<KeyValue>, revision: StoreRevision, now: Now) {
        if revision < self.state.revision {
            return;
        }
        match State::load(&self.keyring.root_pins(), &loaded, revision) {
            Ok(state) => {
                let trust_changed = self.state.trust_changed;
                let mut before = std::mem::replace(&mut self.state, state);
                let hosts = std::mem::take(&mut before.hosts);
                self.note_listed(before);
                self.note_statement(trust_changed, now);
                for id in hosts.into_keys() {
                    if !self.state.hosts.contains_key(&id) {
                        self.farewell_removed(id, now);
                    }
                }
                self.publish(now);
                self.take_over(now);
            }
            Err(error) => self.notice(format!("cannot take over what the store holds: {error}")),
        }
    }

    fn note_listed(&mut self, before: State) {
        let hosts = self.state.hosts.iter();
        let changed: Vec<_> = hosts
            .filter(|(_, host)| host.revision > before.revision)
            .map(|(id, _)| *id)
            .collect();
        let is_other_policy = self.state.policy.revision > before.revision;
        let former = Former {
            interest: before.interest,
            policy: before.policy,
        };
        self.note_rearranged(&former, &changed, is_other_policy);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(job) = self.commits.take_due_retry(now.monotonic) {
            self.attempt(job, now);
        }
        if self.commits.take_overdue_gap(now.monotonic) {
            self.outputs.push_back(Output::List);
        }
        self.expire_questions(now);
        self.expire_sessions(now);
        self.expire_recovery(now);
        self.expire_rotation(now);
        self.expire_offers(now);
        if self.publish_at.is_some_and(|due| due <= now.monotonic) {
            self.publish(now);
        }
    }

    /// Returns what is to be done next; call until `None` after every `handle_*`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns when `handle_timeout` has to be called next, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        [
            (self.commits.retry_deadline(), "retry after a conflict"),
            (self.commits.gap_deadline(), "missing revision"),
            (self.questions.deadline(), "hosts that were asked"),
            (self.sessions.deadline(), "silent sessions"),
            (self.recovery.deadline(), "what hosts remember"),
            (self.rotation.deadline(), "the authority's keys"),
            (self.offers.deadline(), "ciphers that hosts offer"),
            (self.publish_at, "changes to tell hosts"),
        ]
        .into_iter()
        .filter_map(|(due, why)| due.map(|due| (due, why)))
        .min()
    }

    pub(crate) fn reply(&mut self, request: RequestId, result: Result<Reply, Rejection>) {
        self.outputs.push_back(Output::Reply { request, result });
    }

    pub(crate) fn output(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(crate) fn notice(&mut self, text: String) {
        self.outputs.push_back(Output::Notice(text));
    }

    pub(crate) fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.random.fill_bytes(&mut bytes);
        bytes
    }
}
