//! Requests of programs of this host: admitted, decided, sent to an endpoint, sent to another when
//! that is worth it, and answered.

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;
use model::ids::HostId;
use model::rule::{Protocol, StaticAnswer};
use policy::RuleIndex;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use traffic::{CallShape, Failure, Next};

use crate::asking::{Asked, AskedRequest, No, Origin, target};
use crate::body::ProxyBody;
use crate::came::Came;
use crate::fallback;
use crate::grpc;
use crate::head;
use crate::manners::Manners;
use crate::marks::{Aim, CallId, Carries, Marks};
use crate::refusal::Reason;
use crate::replay::Replay;
use crate::report::{CallReport, Side};
use crate::serving;
use crate::snapshot::Snapshot;
use crate::stages::{Stage, Stages};
use crate::sticky::sticky_key;
use crate::trying::in_its_time;
use crate::under_way::{AnswerBody, Beginning, UnderWay};
use crate::upgrades;
use crate::upstreams::{Called, Key};
use crate::worker::Worker;

/// A connection that was caught: who calls what with it.
#[derive(Debug)]
pub(crate) struct Caught {
    /// Where it was accepted from.
    pub app: SocketAddr,
    /// Who.
    pub origin: Rc<Origin>,
    /// What.
    pub aim: Rc<Aim>,
    /// Whom, where it is not the balancer's to say.
    pub host: Option<HostId>,
    /// Whether it speaks HTTP/2.
    pub is_http2: bool,
    /// How it behaves.
    pub manners: Manners,
    /// What the thread knows of what it calls, once it has called.
    pub known: OnceCell<Rc<Called>>,
}

impl Caught {
    /// Returns who may get its calls, before anything is known of their health.
    pub(crate) fn endpoints<'s>(&'s self, snapshot: &'s Snapshot) -> &'s [HostId] {
        match (&self.host, &*self.aim) {
            (Some(host), _) => std::slice::from_ref(host),
            (None, Aim::Service(name)) => snapshot
                .catalogue
                .services
                .get(name)
                .map_or(&[], |service| &service.endpoints),
            (None, Aim::Port(_)) => &[],
        }
    }

    /// Returns what stands for the host in a request of HTTP/1.0 that names none.
    fn host_header(&self) -> HeaderValue {
        match &*self.aim {
            Aim::Service(name) => {
                HeaderValue::from_str(name.as_str()).expect("a name is a DNS label")
            }
            Aim::Port(_) => HeaderValue::from_static("mesh"),
        }
    }

    /// Returns what the thread knows of what is called.
    pub(crate) fn called(&self, worker: &Worker, snapshot: &Snapshot) -> &Rc<Called> {
        self.known.get_or_init(|| {
            let catalogue = &snapshot.catalogue;
            let key = Key::new(&self.aim, self.host.unwrap_or(catalogue.me));
            worker
                .upstreams
                .called(&key, catalogue, worker.now().monotonic)
        })
    }

    /// Decides, for the first endpoint that may be called.
    ///
    /// # Errors
    /// None may be, and why the first may not.
    pub(crate) fn decide(
        &self,
        worker: &Worker,
        snapshot: &Arc<Snapshot>,
        request: Option<AskedRequest>,
        headers: Option<&HeaderMap>,
    ) -> Result<(Asked, RuleIndex), Box<(Asked, No)>> {
        let endpoints = self.endpoints(snapshot);
        let gate = &snapshot.gate;
        let at = worker.now().unix;
        let mut asked = Asked {
            origin: Rc::clone(&self.origin),
            aim: Rc::clone(&self.aim),
            to: endpoints.first().copied().unwrap_or(snapshot.catalogue.me),
            request,
        };
        if endpoints.is_empty() {
            let no = asked.unoffered(snapshot, headers, at);
            return Err(Box::new((asked, no)));
        }
        let first = match asked.decide(gate, headers, at) {
            Ok(rule) => return Ok((asked, rule)),
            Err(no) => no,
        };
        let target = target(&self.aim);
        let is_alike = gate.is_one_for_all(target) && gate.offers(target, asked.to);
        for other in endpoints.iter().skip(1).filter(|_| !is_alike) {
            if let Ok(rule) = asked.decide_for(*other, gate, headers, at) {
                asked.to = *other;
                return Ok((asked, rule));
            }
        }
        Err(Box::new((asked, first)))
    }
}

/// Answers one request.
pub(crate) async fn call(
    worker: Rc<Worker>,
    caught: Rc<Caught>,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    let begun = caught.manners.begin(worker.limits.given_up_requests);
    let answer = answer(&worker, &caught, request).await;
    begun.answered();
    answer
}

async fn answer(
    worker: &Rc<Worker>,
    caught: &Rc<Caught>,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    let began = worker.now();
    let id = worker.next_call();
    let (mut parts, body) = request.into_parts();
    let is_grpc = grpc::is_call(&parts.headers);
    let snapshot = worker.snapshots.to_keep();
    let refused = Refused {
        worker,
        caught,
        snapshot: &snapshot,
        id,
        began,
        is_grpc,
    };
    if let Err(bad) = head::admit(&mut parts) {
        return refused.answer(
            &AskedRequest::new(&parts),
            Reason::BadRequest,
            None,
            &bad.to_string(),
        );
    }
    if !parts.headers.contains_key(HOST) {
        parts.headers.insert(HOST, caught.host_header());
    }
    let request = AskedRequest::new(&parts);
    let (asked, rule) = match caught.decide(worker, &snapshot, Some(request), Some(&parts.headers))
    {
        Ok(allowed) => allowed,
        Err(refusal) => {
            return refused.by_policy(&refusal.0, refusal.1, &parts.headers);
        }
    };
    let is_upgrade = head::is_upgrade(&parts);
    let called = Rc::clone(caught.called(worker, &snapshot));
    let sticky = called.settings.borrow().sticky.clone();
    let shape = CallShape {
        key: sticky.and_then(|sticky| sticky_key(&sticky, &parts.headers, &asked, &snapshot)),
        idempotent: CallShape::is_idempotent(parts.method.as_str()),
        deadline: is_grpc
            .then(|| grpc::timeout(&parts.headers))
            .flatten()
            .map(|timeout| began.monotonic + timeout),
    };
    head::strip_mesh(&mut parts.headers);
    let replay = (!body.is_end_stream()).then(|| {
        let room = called.upstream.borrow().settings().retry.body_bytes_max;
        let room = room.min(worker.limits.replay_bytes);
        Replay::new(ProxyBody::Local(body), room)
    });
    let beginning = Beginning {
        id,
        began,
        asked,
        rule,
        is_grpc,
        shape,
        replay,
    };
    let mut under_way = UnderWay::begin(worker, snapshot, called, beginning);
    under_way.trace(&mut parts.headers);
    let is_awaited = under_way.replay().is_some()
        && parts.version == Version::HTTP_11
        && head::waits_for_continue(&parts.headers)
        // Its programs are asked in HTTP/2, which has no such connection.
        && under_way.snapshot().protocol(&caught.aim) != Some(Protocol::Grpc);
    if is_upgrade || is_awaited {
        let request = Request::from_parts(parts, ());
        return Box::pin(upgrades::call(worker, caught, under_way, request)).await;
    }
    head::strip_connection(&mut parts.headers);
    head::strip_expectation(&mut parts.headers);
    attempts(worker, caught, under_way, parts).await
}

/// Answers a request that says its length in two ways.
pub(crate) fn refuse_two_lengths(
    worker: &Worker,
    caught: &Caught,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    let parts = request.into_parts().0;
    let refused = Refused {
        worker,
        caught,
        snapshot: &worker.snapshots.to_keep(),
        id: worker.next_call(),
        began: worker.now(),
        is_grpc: false,
    };
    let why = head::BadHead::TwoLengths.to_string();
    refused.answer(&AskedRequest::new(&parts), Reason::BadRequest, None, &why)
}

async fn attempts(
    worker: &Rc<Worker>,
    caught: &Caught,
    mut under_way: Box<UnderWay>,
    parts: Parts,
) -> Response<AnswerBody> {
    loop {
        let endpoint = match under_way.pick(Some(&parts.headers)).await {
            Ok(endpoint) => endpoint,
            Err(reason) => return under_way.refuse(reason, ""),
        };
        let came = match attempt(worker, caught, &under_way, &parts, endpoint).await {
            Some(came) => came,
            None => return under_way.refuse(Reason::CutByPolicy, ""),
        };
        let is_grpc = grpc::is_call(&parts.headers);
        match under_way.finished(came.outcome(is_grpc)) {
            Next::PassOn | Next::GiveUp(_) => return came.answer(under_way),
            Next::Retry { after } => {
                drop(came);
                if under_way.stand().until_cut(sleep(after)).await.is_none() {
                    return under_way.refuse(Reason::CutByPolicy, "");
                }
            }
        }
    }
}

/// Sends the request to an endpoint and waits for the head of its answer; `None`: it was cut.
async fn attempt(
    worker: &Rc<Worker>,
    caught: &Caught,
    under_way: &UnderWay,
    parts: &Parts,
    endpoint: HostId,
) -> Option<Came> {
    let snapshot = under_way.snapshot();
    let mut request = once_more(under_way, parts);
    let carries = if caught.is_http2 {
        Carries::Http2Request
    } else {
        Carries::Request
    };
    // Calls of other hosts are the most: what others need is elsewhere, so that little is moved about.
    let sent = pin!(async {
        if endpoint == snapshot.catalogue.me {
            let served = Box::pin(serving::deliver(
                worker,
                snapshot,
                &caught.origin,
                &caught.aim,
                carries,
                request,
                under_way.handed(),
            ))
            .await;
            return Came::from(served);
        }
        marks(worker, caught, under_way, carries).write(request.headers_mut());
        match under_way.send(endpoint, request).await {
            Ok(answer) => Came::Answer(answer.map(ProxyBody::Stream)),
            Err(error) => error.into(),
        }
    });
    let patient = pin!(in_its_time(worker, under_way, Some(&parts.headers), sent));
    let came = under_way.stand().until_cut(patient).await?;
    let late = || Came::Failure(Failure::Timeout, Reason::Deadline, String::new());
    Some(came.unwrap_or_else(late).to(under_way.replay()))
}

/// Returns the request for one more attempt.
pub(crate) fn once_more(under_way: &UnderWay, parts: &Parts) -> Request<ProxyBody> {
    let body = under_way.replay().map_or(ProxyBody::Empty, |replay| {
        ProxyBody::Replay(replay.attempt())
    });
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = parts.uri.clone();
    *request.headers_mut() = parts.headers.clone();
    request
}

/// Returns what the other end is told of the call.
pub(crate) fn marks(
    worker: &Worker,
    caught: &Caught,
    under_way: &UnderWay,
    carries: Carries,
) -> Marks {
    let call = under_way.call();
    Marks {
        aim: Aim::clone(&caught.aim),
        workload: caught
            .origin
            .workload(&under_way.snapshot().gate)
            .map(|workload| (*workload).clone()),
        call: under_way.id(),
        deadline: Some(call.left(worker.now().monotonic)),
        attempt: call.attempts(),
        carries,
    }
}

/// Lets something take its time until the deadline. While the caller still sends its body, the
/// deadline waits for it, as long as it does not stand still for longer than what is left to the whole
/// call. `None`: the time is up.
pub(crate) async fn patiently<T>(
    until: Instant,
    stand_still: Duration,
    replay: Option<&Replay>,
    future: impl Future<Output = T>,
) -> Option<T> {
    let mut future = pin!(future);
    let mut timer = pin!(sleep_until(until));
    let mut passed_bytes = 0;
    let wait = until.saturating_duration_since(Instant::now());
    std::future::poll_fn(|context| {
        if let Poll::Ready(ready) = future.as_mut().poll(context) {
            return Poll::Ready(Some(ready));
        }
        poll_deadline(&mut timer, context, || {
            let replay = replay.filter(|replay| !replay.is_over())?;
            let before = std::mem::replace(&mut passed_bytes, replay.passed_bytes());
            if before != passed_bytes {
                return Some(wait.min(stand_still));
            }
            // Another endpoint would wait as this one does.
            let left = replay.time_left(Instant::now());
            (replay.waits_for_caller() && !left.is_zero()).then(|| wait.min(left))
        })
    })
    .await
}

/// `None` once the time is up and nobody grants more.
fn poll_deadline<T>(
    timer: &mut Pin<&mut Sleep>,
    context: &mut Context<'_>,
    mut more: impl FnMut() -> Option<Duration>,
) -> Poll<Option<T>> {
    while timer.as_mut().poll(context).is_ready() {
        match more() {
            Some(more) => timer.as_mut().reset(Instant::now() + more),
            None => return Poll::Ready(None),
        }
    }
    Poll::Pending
}

/// A call that ends before it begins.
pub(crate) struct Refused<'c> {
    /// Where.
    pub worker: &'c Worker,
    /// On which connection.
    pub caught: &'c Caught,
    /// By what was known.
    pub snapshot: &'c Snapshot,
    /// Its name.
    pub id: CallId,
    /// When it came.
    pub began: model::time::Now,
    /// Whether the answer has to be one of gRPC.
    pub is_grpc: bool,
}

impl Refused<'_> {
    /// Answers what the policy does not allow, or what nobody offers: who would be let call it gets its
    /// fallback.
    pub(crate) fn by_policy(
        &self,
        asked: &Asked,
        no: No,
        headers: &HeaderMap,
    ) -> Response<AnswerBody> {
        let request = asked.request.as_ref().expect("a request is asked about");
        if no == No::Unoffered
            && let Some(fallback) = self.fallback()
            && asked.would_be_allowed(&self.snapshot.gate, Some(headers), self.began.unix)
        {
            let answer = fallback::answer(fallback, no.reason(), self.id);
            self.tell(Some(request), no.reason(), None, answer.status().as_u16());
            return answer.map(AnswerBody::Own);
        }
        self.answer(request, no.reason(), no.rule(), &no.detail())
    }

    /// Returns what the service has instead of endpoints; nothing for gRPC, which would not read it.
    fn fallback(&self) -> Option<&StaticAnswer> {
        let Aim::Service(name) = &*self.caught.aim else {
            return None;
        };
        let service = self.snapshot.catalogue.services.get(name)?;
        let fallback = service.service.settings.fallback.as_ref();
        fallback.filter(|_| !self.is_grpc)
    }

    /// Answers with a reason.
    pub(crate) fn answer(
        &self,
        request: &AskedRequest,
        reason: Reason,
        rule: Option<RuleIndex>,
        detail: &str,
    ) -> Response<AnswerBody> {
        let answer = reason.answer(self.id, self.is_grpc, detail);
        self.tell(Some(request), reason, rule, answer.status().as_u16());
        answer.map(AnswerBody::Own)
    }

    /// Tells of it.
    pub(crate) fn tell(
        &self,
        request: Option<&AskedRequest>,
        reason: Reason,
        rule: Option<RuleIndex>,
        status: u16,
    ) {
        let workload = self.caught.origin.workload(&self.snapshot.gate);
        self.worker.observer.call_ended(
            self.worker.thread,
            &CallReport {
                id: self.id,
                side: Side::Source,
                from: self.caught.origin.host(),
                workload: workload.as_deref(),
                tried: &[],
                choice: None,
                gave_up: None,
                trace: None,
                aim: &self.caught.aim,
                dialled: self.caught.host,
                method: request.map(AskedRequest::method),
                path: request.map(AskedRequest::path),
                status,
                grpc_status: self.is_grpc.then(|| reason.grpc_status().into()),
                reason: Some(reason),
                rule: rule.map(|rule| self.snapshot.gate.rule(rule)),
                policy: self.snapshot.gate.version(),
                began: self.began,
                stages: Stages::default().with(
                    Stage::Queue,
                    self.worker.clock.monotonic() - self.began.monotonic,
                ),
                request_bytes: 0,
                answer_bytes: 0,
            },
        );
    }
}

/// Returns an answer that the mesh made, as a body that goes to another host.
pub(crate) fn own(mut answer: Response<Bytes>) -> Response<ProxyBody> {
    // HTTP/2 has no header about its connection.
    answer.headers_mut().remove(http::header::CONNECTION);
    answer.map(|bytes| {
        if bytes.is_empty() {
            ProxyBody::Empty
        } else {
            ProxyBody::Full(bytes)
        }
    })
}
