//! A call between its begin and its end, at its source: what holds its place, ends it however it
//! ends, and tells of it.

mod passing;
mod telling;

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker, ready};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body as _;
use model::ids::HostId;
use model::time::{Instant, Now, UnixTime};
use policy::{Gate, RuleIndex};
use tokio::time::{Sleep, sleep_until};
use traffic::{
    Admission, Call, CallShape, Choice, Ending, GiveUp, May, Next, NoneReady, Outcome, Overflow,
    Pick, Upstream,
};

use crate::asking::{Asked, No, target};
use crate::body::{ProxyBody, StreamBody};
use crate::fallback;
use crate::grpc;
use crate::marks::{Aim, CallId};
use crate::observe::Trace;
use crate::refusal::Reason;
use crate::replay::Replay;
use crate::report::Side;
use crate::sessions::SessionError;
use crate::snapshot::Snapshot;
use crate::stages::{Milestone, Told};
use crate::standing::Stand;
use crate::upstreams::Called;
use crate::worker::Worker;

pub(crate) use passing::AnswerBody;
use passing::Passing;

/// A call under way. Dropped, it is over: the caller went away, unless it was said otherwise.
pub(crate) struct UnderWay {
    worker: Rc<Worker>,
    snapshot: Arc<Snapshot>,
    stand: Stand,
    called: Rc<Called>,
    /// There until it is over.
    call: Option<Call>,
    id: CallId,
    is_grpc: bool,
    method: Option<Method>,
    rule: RuleIndex,
    /// Whether the policy decides for all endpoints alike.
    is_one_for_all: bool,
    /// What there was none of, when it was refused.
    without: Option<Without>,
    began: Now,
    /// To an endpoint; `None`: it waits for one.
    sent_at: Option<Instant>,
    /// To the endpoint's host, if that is another.
    connected: Milestone,
    /// To a program of this host.
    handed: Milestone,
    /// What the endpoint's host said of its part.
    told: Cell<Option<Told>>,
    answered_at: Option<Instant>,
    ending: Ending,
    status: u16,
    grpc_status: Option<u16>,
    reason: Option<Reason>,
    choice: Option<Choice>,
    gave_up: Option<GiveUp>,
    trace: Option<Trace>,
    replay: Option<Replay>,
    answer_bytes: u64,
    bytes_of_socket: Option<Rc<crate::socket_body::Activity>>,
}

/// What a call did without.
#[derive(Clone, Copy, Debug)]
enum Without {
    Room(Overflow),
    Endpoint(NoneReady),
}

/// What is known of a call when it begins.
pub(crate) struct Beginning {
    /// Which.
    pub id: CallId,
    /// When it came.
    pub began: Now,
    /// What is asked for, and was allowed.
    pub asked: Asked,
    /// By this rule.
    pub rule: RuleIndex,
    /// What the answer is to be if the mesh makes it.
    pub is_grpc: bool,
    /// What it is to the balancer.
    pub shape: CallShape,
    /// Its body, if it has one.
    pub replay: Option<Replay>,
}

impl UnderWay {
    /// Begins a call that the policy allows.
    pub(crate) fn begin(
        worker: &Rc<Worker>,
        snapshot: Arc<Snapshot>,
        called: Rc<Called>,
        beginning: Beginning,
    ) -> Box<Self> {
        let Beginning {
            id,
            began,
            asked,
            rule,
            is_grpc,
            shape,
            replay,
        } = beginning;
        let call = called.upstream.borrow_mut().begin(shape, began.monotonic);
        if let Some(replay) = &replay {
            replay.ends_at(worker.clock.tokio_deadline(call.deadline()));
        }
        let is_one_for_all =
            matches!(*asked.aim, Aim::Port(_)) || snapshot.gate.is_one_for_all(target(&asked.aim));
        Box::new(Self {
            is_one_for_all,
            without: None,
            method: asked
                .request
                .as_ref()
                .map(|request| request.method().clone()),
            stand: worker.standing.enter(asked),
            worker: Rc::clone(worker),
            snapshot,
            called,
            call: Some(call),
            id,
            is_grpc,
            rule,
            began,
            sent_at: None,
            connected: Milestone::ahead(worker.clock),
            handed: Milestone::ahead(worker.clock),
            told: Cell::new(None),
            answered_at: None,
            ending: Ending::Abandoned,
            status: 0,
            grpc_status: None,
            reason: None,
            choice: None,
            gave_up: None,
            trace: None,
            replay,
            answer_bytes: 0,
            bytes_of_socket: None,
        })
    }

    /// Returns its id.
    pub(crate) const fn id(&self) -> CallId {
        self.id
    }

    /// Returns what was known when it began.
    pub(crate) const fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Returns its body, if it has one.
    pub(crate) const fn replay(&self) -> Option<&Replay> {
        self.replay.as_ref()
    }

    /// Returns its place among those under way.
    pub(crate) const fn stand(&self) -> &Stand {
        &self.stand
    }

    /// Returns what is called.
    pub(crate) const fn called(&self) -> &Rc<Called> {
        &self.called
    }

    /// Returns what the balancer knows of it.
    pub(crate) fn call(&self) -> &Call {
        self.call
            .as_ref()
            .expect("a call is there until it is over")
    }

    /// Counts what passes on this socket as its bytes.
    pub(crate) fn count(&mut self, activity: Rc<crate::socket_body::Activity>) {
        self.bytes_of_socket = Some(activity);
    }

    /// Goes on with the caller's trace, or begins one, and tells the next of it.
    pub(crate) fn trace(&mut self, headers: &mut HeaderMap) {
        if self.worker.observer.traces() {
            let trace = Trace::of(headers, self.id, Side::Source);
            trace.write(headers);
            self.trace = Some(trace);
        }
    }

    /// Waits until it has room, and for an endpoint that the policy lets it go to.
    ///
    /// # Errors
    /// There is none, or no room in time.
    pub(crate) async fn pick(&mut self, headers: Option<&HeaderMap>) -> Result<HostId, Reason> {
        let admission = self
            .polled(|_, upstream, call, waker, now| upstream.poll_admission(call, waker, now))
            .await?;
        if let Admission::Overflow(why) = admission {
            self.without = Some(Without::Room(why));
            return Err(Reason::Overflow);
        }
        match self.poll_pick(headers).await? {
            Pick::Chosen(choice) => {
                self.choice = Some(choice);
                self.goes_to(choice.endpoint, headers)?;
                self.sends();
                Ok(choice.endpoint)
            }
            Pick::NoneReady(why) => {
                self.without = Some(Without::Endpoint(why));
                Err(Reason::NoEndpoint)
            }
        }
    }

    /// Waits for an endpoint. Where the policy does not decide for all endpoints alike, it is asked
    /// about each that would be chosen.
    async fn poll_pick(&mut self, headers: Option<&HeaderMap>) -> Result<Pick, Reason> {
        if self.is_one_for_all {
            return self
                .polled(|_, upstream, call, waker, now| upstream.poll_pick(call, waker, now))
                .await;
        }
        let (snapshot, at) = (Arc::clone(&self.snapshot), self.worker.now().unix);
        self.polled(|stand, upstream, call, waker, now| {
            let may = allowed(stand, &snapshot.gate, headers, at);
            upstream.poll_pick_among(call, Some(&may), waker, now)
        })
        .await
    }

    /// Notes where it goes, and by which rule.
    fn goes_to(&mut self, chosen: HostId, headers: Option<&HeaderMap>) -> Result<(), Reason> {
        if self.stand.with_asked(|asked| asked.to == chosen) {
            return Ok(());
        }
        self.stand.goes_to(chosen);
        if !self.is_one_for_all {
            let at = self.worker.now().unix;
            let gate = &self.snapshot.gate;
            let decided = self
                .stand
                .with_asked(|asked| asked.decide(gate, headers, at));
            self.rule = decided.map_err(No::reason)?;
        }
        Ok(())
    }

    /// Sends a request to another host, and returns the head of its answer.
    ///
    /// # Errors
    /// There is none.
    pub(crate) async fn send(
        &self,
        endpoint: HostId,
        request: Request<ProxyBody>,
    ) -> Result<Response<StreamBody>, SessionError> {
        let connection = self.worker.sessions.connection(endpoint).await?;
        self.connected.reach();
        connection.request(request).await
    }

    /// Returns when it was handed to a program of this host.
    pub(crate) const fn handed(&self) -> &Milestone {
        &self.handed
    }

    /// Takes off an answer what its host says of its part, which is not for programs.
    pub(crate) fn take_told(&self, headers: &mut HeaderMap) {
        if let Some(told) = Told::take(headers) {
            self.told.set(Some(told));
        }
    }

    /// The head of an answer is there, or a connection of bytes.
    pub(crate) fn answered(&mut self) {
        self.answered_at = Some(self.worker.clock.monotonic());
    }

    /// It goes to an endpoint now.
    fn sends(&mut self) {
        self.sent_at = Some(self.worker.clock.monotonic());
        self.connected.forget();
        self.handed.forget();
        self.told.set(None);
    }

    /// Polls what may wait for others, until it is ready or the policy cuts the call.
    async fn polled<T>(
        &mut self,
        mut poll: impl FnMut(&Stand, &mut Upstream, &mut Call, &Waker, Instant) -> Poll<T>,
    ) -> Result<T, Reason> {
        let Self {
            worker,
            stand,
            called,
            call,
            ..
        } = self;
        let call = call.as_mut().expect("a call is there until it is over");
        let mut timer: Option<Pin<Box<Sleep>>> = None;
        std::future::poll_fn(|context| {
            if stand.poll_cut(context) {
                return Poll::Ready(Err(Reason::CutByPolicy));
            }
            loop {
                let now = worker.now().monotonic;
                let mut upstream = called.upstream.borrow_mut();
                if let Poll::Ready(ready) = poll(stand, &mut upstream, call, context.waker(), now) {
                    return Poll::Ready(Ok(ready));
                }
                drop(upstream);
                let until = worker.clock.tokio_deadline(call.poll_again_at());
                let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
                timer.as_mut().reset(until);
                ready!(timer.as_mut().poll(context));
            }
        })
        .await
    }

    /// Takes in what came of an attempt.
    pub(crate) fn finished(&mut self, outcome: Outcome) -> Next {
        let now = self.worker.clock.monotonic();
        let replay = self.can_repeat();
        let call = self
            .call
            .as_mut()
            .expect("a call is there until it is over");
        let mut upstream = self.called.upstream.borrow_mut();
        let next = upstream.finished(call, outcome, replay, now);
        match next {
            Next::GiveUp(why) => self.gave_up = Some(why),
            Next::Retry { .. } => self.sent_at = None,
            Next::PassOn => {}
        }
        next
    }

    /// Returns until when the attempt may go on whose time is up, because no other could follow now.
    pub(crate) fn go_on(&self, headers: Option<&HeaderMap>) -> Option<Instant> {
        let now = self.worker.now();
        let may = allowed(&self.stand, &self.snapshot.gate, headers, now.unix);
        let may = (!self.is_one_for_all).then_some(&may as May<'_>);
        let mut upstream = self.called.upstream.borrow_mut();
        upstream.go_on(self.call(), self.can_repeat(), may, now.monotonic)
    }

    fn can_repeat(&self) -> traffic::Replay {
        match &self.replay {
            Some(replay) if !replay.can_repeat() => traffic::Replay::Impossible,
            _ => traffic::Replay::Possible,
        }
    }

    /// Whether something else is answered than the refusal, for this reason.
    pub(crate) fn has_fallback(&self, reason: Reason) -> bool {
        let settings = self.called.settings.borrow();
        reason.is_for_fallback() && !self.is_grpc && settings.fallback.is_some()
    }

    /// Makes the answer in a program's place; the call is over with it.
    pub(crate) fn refuse(
        mut self: Box<Self>,
        reason: Reason,
        detail: &str,
    ) -> Response<AnswerBody> {
        self.reason = Some(reason);
        self.ending = Ending::Complete;
        let settings = Rc::clone(&self.called.settings.borrow());
        if let Some(fallback) = &settings.fallback
            && self.has_fallback(reason)
        {
            self.status = fallback.status;
            return fallback::answer(fallback, reason, self.id).map(AnswerBody::Own);
        }
        let without = self.without.map(|it| self.detail(it));
        let detail = without.as_deref().unwrap_or(detail);
        let answer = reason.answer(self.id, self.is_grpc, detail);
        self.status = answer.status().as_u16();
        if self.is_grpc {
            self.grpc_status = Some(reason.grpc_status().into());
        }
        answer.map(AnswerBody::Own)
    }

    /// Passes an answer on; the call is over when all of it was read.
    pub(crate) fn pass_on(
        mut self: Box<Self>,
        answer: Response<ProxyBody>,
    ) -> Response<AnswerBody> {
        self.answered();
        let (mut head, body) = answer.into_parts();
        head.version = http::Version::HTTP_11;
        self.take_told(&mut head.headers);
        self.status = head.status.as_u16();
        self.reason = reason_of(&head.headers);
        if self.is_grpc {
            self.take_grpc_status(&head.headers);
        }
        let body = if body.is_end_stream() {
            self.ending = Ending::Complete;
            AnswerBody::Own(Bytes::new())
        } else {
            let patience = self
                .called
                .upstream
                .borrow()
                .settings()
                .timeouts
                .idle_stream;
            AnswerBody::Passing(Box::new(Passing::new(body, self, patience)))
        };
        Response::from_parts(head, body)
    }

    /// Says that the connection speaks something else from now on.
    pub(crate) fn switched(&mut self) {
        self.answered();
        self.status = StatusCode::SWITCHING_PROTOCOLS.as_u16();
    }

    /// Says that all went well to the end.
    pub(crate) fn complete(&mut self, reason: Option<Reason>) {
        self.ending = Ending::Complete;
        self.reason = self.reason.or(reason);
    }

    /// Says that it broke off.
    pub(crate) fn broke(&mut self, reason: Reason) {
        self.ending = Ending::Broken;
        self.reason = self.reason.or(Some(reason));
    }

    fn take_grpc_status(&mut self, headers: &HeaderMap) {
        let Some(status) = headers.get(grpc::GRPC_STATUS) else {
            return;
        };
        let status: Option<u16> = status.to_str().ok().and_then(|text| text.parse().ok());
        self.grpc_status = status;
        if let (Some(status), Some(call)) = (status, self.call.as_mut()) {
            let now = self.worker.now().monotonic;
            let outcome = Outcome::of_grpc(status.into());
            self.called.upstream.borrow_mut().settle(call, outcome, now);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let Some(call) = self.call.take() else {
            return;
        };
        let now = self.worker.now().monotonic;
        self.tell(&call, now);
        self.called
            .upstream
            .borrow_mut()
            .end(call, self.ending, now);
    }
}

/// Returns what says of an endpoint whether the policy lets a call go to it.
fn allowed(
    stand: &Stand,
    gate: &Arc<Gate>,
    headers: Option<&HeaderMap>,
    at: UnixTime,
) -> impl Fn(HostId) -> bool {
    move |host| {
        let decided = stand.with_asked(|asked| asked.decide_for(host, gate, headers, at));
        decided.is_ok()
    }
}

/// Returns why the mesh answered, if it did.
pub(crate) fn reason_of(headers: &HeaderMap) -> Option<Reason> {
    Reason::of_name(headers.get(crate::marks::REASON)?.as_bytes())
}
