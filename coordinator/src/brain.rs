//! The task that owns the `Fleet`: it feeds inputs in one at a time and carries outputs out in
//! order. Nothing else in the coordinator decides anything, and nothing here waits for anybody.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use fleet::{
    AdminRequest, Caller, Figures, Fleet, Hearsay, KeepId, Output, PolicyDone, Rejection, Reply,
    RequestId, SessionId, SessionPeer, Testimony, Unwelcome, WorkId,
};
use model::admin::AuditEntry;
use model::control::{Description, EnrolRequest, FromHost};
use model::memory::Memory;
use runtime::clock::Clock;
use runtime::metrics::Trouble;
use runtime::tls_server::Disbelief;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use crate::authority_keeper::AuthorityOrder;
use crate::metrics::{Asker, Tally};
use crate::sessions::{Session, Sessions};
use crate::storage::{News, Order, Storage};
use crate::store::Store;
use crate::workshop::Workshop;

/// Inputs that may wait for the brain; who has one more waits with it.
const INPUTS_MAX: usize = 4096;
/// Inputs that are served before others are looked at.
const SERVED_AT_ONCE: usize = 128;
/// The longest sleep, so that a deadline that is far away needs no big numbers.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// How long requests under way may take to be answered when the coordinator stops.
const STOP_GRACE: Duration = Duration::from_secs(2);

type Answer<T> = oneshot::Sender<T>;

/// The answer to an operator or a joining host, or why not.
pub type Outcome = Result<Reply, Rejection>;

/// What the brain is told or asked.
pub enum Input {
    /// What do metrics tell of the fleet?
    Figures(Answer<Figures>),
    /// What must a joining host know first?
    Describe(Answer<Description>),
    /// A host wants to be a member; from this address.
    Enrol(Box<EnrolRequest>, IpAddr, Answer<Outcome>),
    /// Whose credential is this? It was shown from this address.
    Authenticate(String, IpAddr, Answer<Result<Caller, Unwelcome>>),
    /// An operator asks or orders something.
    Admin(Caller, AdminRequest, Answer<Outcome>),
    /// A host opened its stream, seen at this address.
    Open(SessionPeer, IpAddr, Answer<Session>),
    /// A host said something on its stream.
    Heard(SessionId, FromHost),
    /// A host told a part of what it remembers; what has to be verified of it is answered, nothing when
    /// its stream has ended.
    Remembered(SessionId, Box<Memory>, Answer<Option<Hearsay>>),
    /// What holds of that.
    Testimony(SessionId, Testimony),
    /// A host said something on its stream that means nothing.
    Misheard(SessionId, Status),
    /// The authority's keys were written, or why not.
    AuthorityKept(KeepId, Result<(), String>),
    /// Why what was the authority's file is still on the disk; `None`: it is not.
    LeftOverKeys(Option<String>),
    /// Work on a policy is done.
    PolicyDone(WorkId, PolicyDone),
    /// A stream is gone.
    Closed(SessionId),
    /// The coordinator stops; answered when hosts have been told.
    Stop(Answer<()>),
}

/// Talks to the brain.
#[derive(Clone)]
pub struct BrainHandle(mpsc::Sender<Input>);

/// The brain ended before it answered.
#[derive(Debug, thiserror::Error)]
#[error(
    "the coordinator stopped before it could answer; whether the request was carried out is not \
     known: look, before you try again"
)]
pub struct BrainGone;

impl BrainHandle {
    /// A handle of a brain that has ended.
    #[cfg(test)]
    pub(crate) fn nobody() -> Self {
        Self(mpsc::channel(1).0)
    }

    /// Returns how many inputs wait for the brain, and how many may.
    pub(crate) fn queue(&self) -> (usize, usize) {
        let max = self.0.max_capacity();
        (max - self.0.capacity(), max)
    }

    /// Asks something and waits for the answer.
    ///
    /// # Errors
    /// The brain has ended.
    pub async fn ask<T>(&self, input: impl FnOnce(Answer<T>) -> Input) -> Result<T, BrainGone> {
        let (answer, answered) = oneshot::channel();
        self.0.send(input(answer)).await.map_err(|_| BrainGone)?;
        answered.await.map_err(|_| BrainGone)
    }

    /// Tells something.
    pub async fn tell(&self, input: Input) {
        // The brain's end is the coordinator's end: nobody is left to tell.
        let _ = self.0.send(input).await;
    }
}

/// Why the brain gave up.
#[derive(Debug, thiserror::Error)]
pub enum BrainError {
    /// The store does not know what became of a change.
    #[error(
        "{0}; what was asked meanwhile is left unanswered, a new start finds out what the disk holds"
    )]
    StoreLost(String),
}

/// Who waits for an answer, and since when.
struct Waiting {
    asker: Asker,
    since: Instant,
    answer: Answer<Outcome>,
}

/// The task's state.
pub struct Brain {
    fleet: Fleet,
    clock: Clock,
    inputs: mpsc::Receiver<Input>,
    storage: Storage,
    sessions: Sessions,
    workshop: Workshop,
    requests: BTreeMap<RequestId, Waiting>,
    tally: Arc<Tally>,
    last_request: u64,
    stopping: Option<Instant>,
    /// To the task that keeps the authority's keys.
    authority: Option<mpsc::Sender<AuthorityOrder>>,
    /// Who does not believe what the port shows.
    disbelief: Option<Disbelief>,
    /// Why nobody is answered who asks for metrics.
    metrics_trouble: Trouble,
}

impl Brain {
    /// Takes a fleet and the store that it was loaded from.
    pub fn new(fleet: Fleet, store: Arc<dyn Store>, clock: Clock) -> (Self, BrainHandle) {
        let (sender, inputs) = mpsc::channel(INPUTS_MAX);
        let tally: Arc<Tally> = Arc::default();
        let brain = Self {
            fleet,
            clock,
            inputs,
            storage: Storage::start(store, Arc::clone(&tally)),
            sessions: Sessions::new(Arc::clone(&tally)),
            workshop: Workshop::new(sender.downgrade()),
            requests: BTreeMap::new(),
            tally,
            last_request: 0,
            stopping: None,
            authority: None,
            disbelief: None,
            metrics_trouble: Trouble::default(),
        };
        (brain, BrainHandle(sender))
    }

    /// Returns what is counted.
    pub(crate) fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// Has the orders about the authority carried out by whoever receives them.
    pub(crate) fn with_authority(mut self, orders: mpsc::Sender<AuthorityOrder>) -> Self {
        self.authority = Some(orders);
        self
    }

    /// Tells operators who does not believe what the port shows.
    pub(crate) fn with_disbelief(mut self, disbelief: Disbelief) -> Self {
        self.disbelief = Some(disbelief);
        self
    }

    /// Tells operators why nobody is answered who asks for metrics.
    pub(crate) fn with_metrics_trouble(mut self, trouble: Trouble) -> Self {
        self.metrics_trouble = trouble;
        self
    }

    /// Runs until `Input::Stop`.
    ///
    /// # Errors
    /// The store cannot be relied on any more.
    pub async fn run(mut self) -> Result<(), BrainError> {
        self.carry_out();
        while !self.has_stopped() {
            let deadline = self.deadline();
            let began;
            tokio::select! {
                news = self.storage.news.recv() => {
                    began = Instant::now();
                    self.learn(news.unwrap_or_else(|| News::Lost("the task of the store ended".into())))?;
                }
                () = sleep_until(deadline) => began = Instant::now(),
                Some(input) = self.inputs.recv() => {
                    began = Instant::now();
                    self.handle(input);
                }
            }
            self.carry_out();
            self.serve_all_in_turn()?;
            self.tally.turned(began.elapsed());
            self.tally.set_unread(self.sessions.unread_bytes());
            // Whoever is served may ask again before the next round.
            yield_now().await;
        }
        self.storage.close().await;
        Ok(())
    }

    /// Serves a portion of each kind of what waits, so that none keeps the others waiting: neither a
    /// policy that is told to all hosts for seconds, nor hosts that talk all the time.
    fn serve_all_in_turn(&mut self) -> Result<(), BrainError> {
        // What the disk did comes first: it makes room for what waits.
        for _ in 0..SERVED_AT_ONCE {
            let Ok(news) = self.storage.news.try_recv() else {
                break;
            };
            self.learn(news)?;
            self.carry_out();
        }
        let now = self.clock.now();
        let deadline = self.fleet.poll_timeout();
        if deadline.is_some_and(|(due, _)| due <= now.monotonic) {
            self.fleet.handle_timeout(now);
            self.carry_out();
        }
        for _ in 0..SERVED_AT_ONCE {
            let Ok(input) = self.inputs.try_recv() else {
                break;
            };
            self.handle(input);
            self.carry_out();
        }
        Ok(())
    }

    fn has_stopped(&self) -> bool {
        self.stopping
            .is_some_and(|by| self.requests.is_empty() || by <= Instant::now())
    }

    fn deadline(&self) -> Instant {
        let fleet = self
            .fleet
            .poll_timeout()
            .map(|(due, _)| self.clock.tokio_deadline(due));
        let latest = Instant::now() + SLEEP_MAX;
        [fleet, self.stopping]
            .into_iter()
            .flatten()
            .fold(latest, Instant::min)
    }

    fn learn(&mut self, news: News) -> Result<(), BrainError> {
        let now = self.clock.now();
        match news {
            News::Committed(id, outcome) => self.fleet.handle_commit(id, outcome, now),
            News::Listed(listing) => {
                self.fleet
                    .handle_listing(listing.entries, listing.revision, now);
            }
            News::Lost(reason) => return Err(BrainError::StoreLost(reason)),
        }
        Ok(())
    }

    fn handle(&mut self, input: Input) {
        let now = self.clock.now();
        match input {
            Input::Figures(answer) => drop(answer.send(self.fleet.figures())),
            Input::Describe(answer) => drop(answer.send(self.fleet.describe(now))),
            Input::Authenticate(credential, from, answer) => {
                let caller = self.fleet.authenticate_admin(&credential, now);
                if caller == Err(Unwelcome::Unknown) {
                    let from = from.to_string();
                    self.fleet
                        .handle_unknown_credential(&credential, &from, now);
                }
                if let Err(why) = &caller {
                    self.tally.unwelcome(why);
                }
                let _ = answer.send(caller);
            }
            Input::Enrol(request, from, answer) => {
                let id = self.expect(Asker::Joining, answer);
                self.fleet.handle_enrol(id, *request, from, now);
            }
            Input::Admin(caller, request, answer) => {
                let id = self.expect(Asker::Operator, answer);
                if let Some(disbelief) = &self.disbelief {
                    self.fleet.handle_disbelief(disbelief.machines());
                }
                let alarms = self.metrics_trouble.told();
                self.fleet.handle_alarms(alarms.into_iter().collect());
                self.fleet.handle_admin(id, caller, request, now);
            }
            // Once it stops, dropping the answer is the answer.
            Input::Open(..) if self.stopping.is_some() => {}
            Input::Open(_, _, answer) if self.sessions.are_laden() => {
                let _ = answer.send(self.sessions.turn_away());
            }
            Input::Open(peer, from, answer) => {
                let mut session = self.sessions.open();
                let id = session.id;
                self.fleet.handle_session_opened(id, peer, Some(from), now);
                session.is_of_member = self.fleet.is_of_member(id);
                // Whoever asked is gone already: so is the stream.
                if answer.send(session).is_err() && self.sessions.close(id) {
                    self.fleet.handle_session_closed(id, now);
                }
            }
            Input::Heard(session, message) => {
                self.fleet.handle_session_message(session, message, now);
            }
            Input::Remembered(session, part, answer) => {
                let _ = answer.send(self.fleet.handle_memory(session, *part, now));
            }
            Input::Testimony(session, told) => self.fleet.handle_testimony(session, told, now),
            Input::Misheard(session, why) => {
                if self.sessions.end(session, why) {
                    self.fleet.handle_session_closed(session, now);
                }
            }
            Input::AuthorityKept(id, outcome) => {
                self.fleet.handle_authority_kept(id, outcome, now);
            }
            Input::LeftOverKeys(why) => self.fleet.handle_left_over_keys(why),
            Input::PolicyDone(id, done) => self.fleet.handle_policy_done(id, done, now),
            Input::Closed(session) => {
                if self.sessions.close(session) {
                    self.fleet.handle_session_closed(session, now);
                }
            }
            Input::Stop(done) => {
                self.sessions.farewell();
                self.stopping = Some(Instant::now() + STOP_GRACE);
                let _ = done.send(());
            }
        }
    }

    fn expect(&mut self, asker: Asker, answer: Answer<Outcome>) -> RequestId {
        self.last_request += 1;
        let id = RequestId(self.last_request);
        let since = Instant::now();
        let waiting = Waiting {
            asker,
            since,
            answer,
        };
        self.requests.insert(id, waiting);
        id
    }

    fn order_authority(&mut self, order: AuthorityOrder) {
        let refused = match &self.authority {
            Some(orders) => orders.try_send(order).err().map(|it| match it {
                TrySendError::Full(order) | TrySendError::Closed(order) => order,
            }),
            None => Some(order),
        };
        if let Some(AuthorityOrder::Keep(id, _)) = refused {
            let why = "nobody keeps the authority's file now".to_owned();
            self.fleet
                .handle_authority_kept(id, Err(why), self.clock.now());
        }
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.fleet.poll_output() {
            match output {
                Output::Commit { id, transaction } => {
                    self.storage.order(Order::Commit(id, transaction));
                }
                Output::KeepAuthority { id, keys } => {
                    self.order_authority(AuthorityOrder::Keep(id, keys));
                }
                Output::ShowAuthority { keys } => {
                    self.order_authority(AuthorityOrder::Show(keys));
                }
                Output::Work { id, work } => self.workshop.order(id, work),
                Output::List => self.storage.order(Order::List),
                Output::Reply { request, result } => {
                    let waiting = self.requests.remove(&request);
                    let waiting = waiting.expect("a request is answered once");
                    let waited = waiting.since.elapsed();
                    self.tally.answered(waiting.asker, &result, waited);
                    // Whoever no longer waits finds what was done by asking again.
                    let _ = waiting.answer.send(result);
                }
                Output::Send { session, message } => {
                    if !self.sessions.send(session, message) {
                        tracing::warn!(
                            session = session.0,
                            "a host does not read what it is sent; its stream is closed"
                        );
                        self.fleet.handle_session_closed(session, self.clock.now());
                    }
                }
                Output::Close { session } => {
                    self.sessions.close(session);
                }
                Output::Notice(text) => tracing::warn!("{text}"),
                Output::Audited(entry) => {
                    self.tally.audited(entry.outcome);
                    log_audited(&entry);
                }
            }
        }
    }
}

/// A copy of the audit log outside of the store, so that who changes the one has to change the other.
fn log_audited(entry: &AuditEntry) {
    tracing::info!(
        target: "audit",
        number = entry.number,
        who = entry.who,
        from = entry.from,
        action = entry.action,
        outcome = ?entry.outcome,
        reason = entry.reason,
        changes = ?entry.changes,
        hash = %entry.hash,
        "audit"
    );
}
