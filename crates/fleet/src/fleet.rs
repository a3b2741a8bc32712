//! The fleet's verbs, and how a request goes from question to answer: planned against what is known,
//! committed, and answered once that is durable and taken over. The nouns have files of their own.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use model::control::{Description, EnrolRequest, FromHost, RefusalCode};
use model::limits::Limits;
use model::store::{Committed, KeyValue, StoreRevision};
use model::time::{Instant, Now};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use thiserror::Error;
use trust::Authority;

use crate::apply::Change;
use crate::commits::Commits;
use crate::config::{FleetConfig, FleetLimits, LoadError};
use crate::explain::Questions;
use crate::output::{CommitId, Output, Rejection, Reply, RequestId, SessionId};
use crate::presence::Presences;
use crate::request::{AdminRequest, Caller};
use crate::sessions::{SessionPeer, Sessions};
use crate::state::State;
use crate::work::{Answer, Job, Origin, Plan, Work};

/// How soon after a change of hosts the others are told; changes within this time go together.
const TELL_CHANGES_AFTER: Duration = Duration::from_millis(20);

/// How soon hints where hosts may be reached are passed on; a storm of them goes together.
const TELL_HINTS_AFTER: Duration = Duration::from_millis(200);

/// The brain of the coordinator.
#[derive(Debug)]
pub struct Fleet {
    pub(crate) config: FleetConfig,
    pub(crate) authority: Authority,
    pub(crate) state: State,
    pub(crate) commits: Commits,
    pub(crate) presences: Presences,
    pub(crate) sessions: Sessions,
    pub(crate) questions: Questions,
    /// Where the search for a free address goes on.
    pub(crate) address_cursor: u32,
    publish_at: Option<Instant>,
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
        _now: Now,
    ) -> Result<Self, LoadError> {
        let (count, max) = (config.advertise.len(), Limits::COORDINATOR_ADDRESSES);
        if count == 0 || count > max {
            return Err(LoadError::Advertise { count, max });
        }
        let state = State::load(&authority.root_pin(), &loaded, revision)?;
        let last_given = state.last_given.map(|(_, index)| index);
        Ok(Self {
            address_cursor: last_given.map_or(0, |index| index.saturating_add(1)),
            config,
            authority,
            state,
            commits: Commits::default(),
            presences: Presences::default(),
            sessions: Sessions::default(),
            questions: Questions::default(),
            publish_at: None,
            random: ChaCha20Rng::from_seed(seed),
            outputs: VecDeque::new(),
        })
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
        let work = Work::Enrol {
            request: Box::new(request),
            from,
        };
        self.accept(Origin::Request(id), work, now);
    }

    /// An operator asks or orders something.
    pub fn handle_admin(&mut self, id: RequestId, caller: Caller, request: AdminRequest, now: Now) {
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

    /// A host said something on its stream.
    pub fn handle_session_message(&mut self, session: SessionId, message: FromHost, now: Now) {
        self.hear(session, message, now);
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
        match State::load(&self.authority.root_pin(), &loaded, revision) {
            Ok(state) => {
                let before = std::mem::replace(&mut self.state, state);
                let gone: Vec<_> = before
                    .hosts
                    .into_keys()
                    .filter(|id| !self.state.hosts.contains_key(id))
                    .collect();
                for id in gone {
                    self.farewell_removed(id, now);
                }
                self.publish(now);
                self.take_over(now);
            }
            Err(error) => self.notice(format!("cannot take over what the store holds: {error}")),
        }
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
            (self.publish_at, "changes to tell hosts"),
        ]
        .into_iter()
        .filter_map(|(due, why)| due.map(|due| (due, why)))
        .min()
    }

    fn accept(&mut self, origin: Origin, work: Work, now: Now) {
        let job = Job {
            origin,
            work,
            conflicts: 0,
        };
        if self.commits.waiting() < FleetLimits::REQUESTS_MAX {
            return self.attempt(job, now);
        }
        let busy = "the coordinator has too many requests under way; try again in a few seconds";
        self.answer(
            &job,
            Err(Rejection::new(RefusalCode::Unavailable, busy)),
            now,
        );
    }

    pub(crate) fn accept_leave(&mut self, session: SessionId, host: model::ids::HostId, now: Now) {
        self.accept(Origin::Session(session), Work::Leave(host), now);
    }

    /// Plans a request against what is known now, and carries the plan out.
    fn attempt(&mut self, job: Job, now: Now) {
        match self.plan(&job.work, now) {
            Ok(Plan::Answer(reply)) => self.answer(&job, Ok(reply), now),
            Ok(Plan::Commit {
                transaction,
                answer,
            }) => self.commit(job, transaction, answer, now),
            Ok(Plan::Wait(on)) => self.commits.park(on, job),
            Ok(Plan::Ask(question)) => self.ask(job.origin, question, now),
            Err(rejection) => self.answer(&job, Err(rejection), now),
        }
    }

    fn plan(&mut self, work: &Work, now: Now) -> Result<Plan, Rejection> {
        match work {
            Work::Enrol { request, from } => self.plan_enrolment(request, *from, now),
            Work::Leave(host) => self.plan_leave(*host, now),
            Work::Admin { caller, request } => {
                request.check_allowed(caller)?;
                self.plan_admin(caller, request, now)
            }
        }
    }

    fn plan_admin(
        &mut self,
        caller: &Caller,
        request: &AdminRequest,
        now: Now,
    ) -> Result<Plan, Rejection> {
        let reply = match request {
            AdminRequest::Status => Reply::Status(self.status()),
            AdminRequest::ListHosts => Reply::Hosts(self.host_views()),
            AdminRequest::ShowHost(name) => {
                Reply::Host(self.host_view(self.state.known_host(name)?))
            }
            AdminRequest::ListTokens => Reply::Tokens(self.token_views()),
            AdminRequest::ListPolicyVersions => Reply::PolicyVersions(self.policy_views()),
            AdminRequest::ShowPolicy(version) => Reply::Policy(self.policy_content(*version)?),
            AdminRequest::ShowRollout => Reply::Rollout(self.rollout()),
            AdminRequest::ListAdmins => Reply::Admins(self.admin_views()),
            AdminRequest::SetLabels { host, set } => {
                return self.plan_labels(caller, host, &set.labels, now);
            }
            AdminRequest::RemoveHost(name) => return self.plan_removal(caller, name, now),
            AdminRequest::CreateToken(create) => return self.plan_token(caller, create, now),
            AdminRequest::RevokeToken(id) => return self.plan_token_revocation(caller, *id, now),
            AdminRequest::ApplyPolicy(apply) => return self.plan_policy(caller, apply, now),
            AdminRequest::RollbackPolicy(back) => return self.plan_rollback(caller, back, now),
            AdminRequest::Why(why) => return self.plan_why(why),
            AdminRequest::CreateAdmin(create) => return self.plan_admin_made(caller, create, now),
            AdminRequest::RevokeAdmin(name) => return self.plan_admin_revoked(name),
        };
        Ok(Plan::Answer(reply))
    }

    fn commit(
        &mut self,
        job: Job,
        transaction: model::store::Transaction,
        answer: Answer,
        now: Now,
    ) {
        if let Some(on) = self.commits.blocker(&transaction) {
            return self.commits.park(on, job);
        }
        if let Err(error) = transaction.check() {
            let text = format!("too large to be stored at once: {error}");
            return self.answer(&job, Err(Rejection::new(RefusalCode::Exhausted, text)), now);
        }
        let id = self.commits.begin(job, answer, &transaction);
        self.outputs.push_back(Output::Commit { id, transaction });
    }

    /// Takes over what the store did, in the order of its revisions, and answers who waited for it.
    fn take_over(&mut self, now: Now) {
        while let Some((committed, by)) = self
            .commits
            .next_in_order(self.state.revision, now.monotonic)
        {
            if committed.revision > self.state.revision {
                self.apply_all(&committed, now);
            }
            if let Some(id) = by {
                self.conclude(id, now);
            }
        }
    }

    fn apply_all(&mut self, committed: &Committed, now: Now) {
        self.state.revision = committed.revision;
        let mut changes = Vec::with_capacity(committed.events.len());
        for event in &committed.events {
            match self.state.apply(event) {
                Ok(change) => changes.push(change),
                Err(error) => self.notice(error.to_string()),
            }
        }
        for change in &changes {
            if let Change::Removed(host) = *change {
                self.farewell_removed(host, now);
            }
        }
        let is_urgent = |it: &Change| matches!(it, Change::Removed(_) | Change::Policy);
        if changes.iter().any(is_urgent) {
            self.publish(now);
        } else if changes.iter().any(|it| matches!(it, Change::Host(_))) {
            self.publish_within(TELL_CHANGES_AFTER, now);
        }
    }

    fn conclude(&mut self, id: CommitId, now: Now) {
        let Some((flight, parked)) = self.commits.end(id) else {
            return;
        };
        let result = self.finish(&flight.job, flight.answer, now);
        self.answer(&flight.job, result, now);
        self.resume(parked, now);
    }

    fn finish(&mut self, job: &Job, answer: Answer, now: Now) -> Result<Reply, Rejection> {
        match answer {
            Answer::Enrolled(host) => self.enrolled(job, host, now),
            Answer::Labelled(id) => match self.state.hosts.get(&id) {
                Some(host) => Ok(Reply::Host(self.host_view(host))),
                None => Err(overtaken()),
            },
            Answer::Removed(view) => Ok(Reply::HostRemoved(*view)),
            Answer::TokenCreated { id, text } => self.token_created(id, text),
            Answer::TokenRevoked(id) => match self.token_view(&id) {
                Some(view) => Ok(Reply::Token(view)),
                None => Err(overtaken()),
            },
            Answer::PolicyApplied {
                version,
                warnings,
                tests_passed,
            } => Ok(Reply::PolicyApplied(model::admin::AppliedPolicy {
                version,
                changed: true,
                diagnostics: warnings,
                tests_passed,
            })),
            Answer::AdminCreated { name, credential } => self.admin_created(&name, credential),
            Answer::AdminRevoked(view) => Ok(Reply::AdminRevoked(*view)),
        }
    }

    fn give_up(&mut self, id: CommitId, error: CommitError, now: Now) {
        let Some((flight, parked)) = self.commits.end(id) else {
            return;
        };
        let mut job = flight.job;
        match error {
            CommitError::Conflict => {
                job.conflicts += 1;
                if job.conflicts < FleetLimits::ATTEMPTS_MAX {
                    self.commits.retry_later(job, now.monotonic);
                } else {
                    let text = "others keep changing the same; nothing was changed, try again";
                    let rejection = Rejection::new(RefusalCode::Unavailable, text);
                    self.answer(&job, Err(rejection), now);
                }
            }
            CommitError::Failed(reason) => {
                let text = format!("nothing was changed, the store cannot write: {reason}");
                self.notice(text.clone());
                self.answer(
                    &job,
                    Err(Rejection::new(RefusalCode::Unavailable, text)),
                    now,
                );
            }
        }
        self.resume(parked, now);
    }

    fn resume(&mut self, jobs: Vec<Job>, now: Now) {
        for job in jobs {
            self.attempt(job, now);
        }
    }

    fn answer(&mut self, job: &Job, result: Result<Reply, Rejection>, now: Now) {
        match (job.origin, result) {
            (Origin::Request(request), result) => {
                self.outputs.push_back(Output::Reply { request, result });
            }
            // A host that left is told so when its removal is taken over.
            (Origin::Session(_), Ok(_)) => {}
            (Origin::Session(session), Err(rejection)) => {
                self.dismiss(session, rejection.to_string(), now);
            }
        }
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

    pub(crate) fn publish_hints_soon(&mut self, now: Now) {
        self.publish_within(TELL_HINTS_AFTER, now);
    }

    pub(crate) fn published(&mut self) {
        self.publish_at = None;
    }

    fn publish_within(&mut self, pause: Duration, now: Now) {
        let due = now.monotonic + pause;
        self.publish_at = Some(self.publish_at.map_or(due, |earlier| earlier.min(due)));
    }
}

/// A commit that is durable was undone by a later one before it could be answered.
pub(crate) fn overtaken() -> Rejection {
    Rejection::new(
        RefusalCode::Conflict,
        "it was done, and undone by somebody else at once",
    )
}
