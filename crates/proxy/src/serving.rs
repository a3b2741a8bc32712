//! Calls of programs of this host: who calls is checked, what is called decided once more, and the
//! program asked. What comes from this host itself was decided already and begins at [`deliver`].

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::HOST;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use model::ids::HostId;
use model::rule::Protocol;
use model::time::{Instant, Now};
use policy::RuleIndex;
use tokio::time::timeout_at;

use crate::asking::{Asked, AskedRequest, Origin};
use crate::body::{BodyError, ProxyBody, StreamBody};
use crate::calling::own;
use crate::carrying;
use crate::grpc;
use crate::head;
use crate::local_apps::{AppBody, AppError, AppPort, Speech};
use crate::marks::{self, Aim, CallId, Carries, Marks};
use crate::observe::Trace;
use crate::refusal::Reason;
use crate::report::{CallReport, Side};
use crate::sessions::{Arrival, Handler};
use crate::snapshot::Snapshot;
use crate::stages::{Milestone, Stage, Stages, Told};
use crate::standing::Stand;
use crate::under_way::reason_of;
use crate::upgrades;
use crate::worker::{Worker, my_addresses};

/// What came of a call here.
pub(crate) type Served = Result<Response<ProxyBody>, (Reason, String)>;

/// Takes the streams of other hosts.
pub(crate) struct Reception {
    worker: Rc<Worker>,
}

impl Reception {
    /// Serves on this thread.
    pub(crate) fn new(worker: Rc<Worker>) -> Rc<Self> {
        Rc::new(Self { worker })
    }
}

impl Handler for Reception {
    async fn handle(
        self: Rc<Self>,
        arrival: Arrival,
        request: Request<StreamBody>,
    ) -> Response<ProxyBody> {
        let worker = Rc::clone(&self.worker);
        let is_connect = request.method() == Method::CONNECT;
        let Some(marks) = Marks::read(request.headers(), is_connect) else {
            let nameless = CallId::from_number(0);
            return own(Reason::BadRequest.answer(
                nameless,
                false,
                "the stream says not what it is for",
            ));
        };
        let visit = Visit::new(&worker, arrival.from, marks);
        match visit.carries {
            Carries::Bytes => Box::pin(carrying::serve(visit, request.into_body())).await,
            Carries::Http1 => upgrades::serve(visit, request.into_body()),
            Carries::Request | Carries::Http2Request => {
                let (parts, body) = request.into_parts();
                let body = if body.is_end_stream() {
                    ProxyBody::Empty
                } else {
                    ProxyBody::Stream(body)
                };
                visit.serve(parts, body).await
            }
        }
    }
}

/// A stream of another host, with what it says of itself.
pub(crate) struct Visit {
    /// The thread.
    pub worker: Rc<Worker>,
    /// What is known of the fleet as it, or its last request, comes.
    pub snapshot: Arc<Snapshot>,
    /// Who calls, as far as the other host may say so.
    pub origin: Rc<Origin>,
    /// What.
    pub aim: Rc<Aim>,
    /// Which call it is.
    pub id: CallId,
    /// When it came.
    pub began: Now,
    /// When its caller stops waiting.
    pub deadline: Option<Instant>,
    /// What it carries.
    pub carries: Carries,
}

impl Visit {
    fn new(worker: &Rc<Worker>, from: HostId, marks: Marks) -> Self {
        let began = worker.now();
        Self {
            worker: Rc::clone(worker),
            snapshot: worker.snapshots.to_keep(),
            origin: Origin::claimed(from, marks.workload),
            aim: Rc::new(marks.aim),
            id: marks.call,
            began,
            deadline: marks.deadline.map(|left| began.monotonic + left),
            carries: marks.carries,
        }
    }

    /// Returns what comes next on the same stream: it is decided by what is known by then.
    pub(crate) fn next(&self) -> Self {
        Self {
            worker: Rc::clone(&self.worker),
            snapshot: self.worker.snapshots.to_keep(),
            origin: Rc::clone(&self.origin),
            aim: Rc::clone(&self.aim),
            id: self.id,
            began: self.worker.now(),
            deadline: self.deadline,
            carries: self.carries,
        }
    }

    /// Decides, and enters what is allowed.
    ///
    /// # Errors
    /// It is not allowed; it was told of.
    pub(crate) fn decide(
        &self,
        request: Option<AskedRequest>,
        headers: Option<&HeaderMap>,
    ) -> Result<Box<Visiting>, (Reason, String)> {
        let asked = Asked {
            origin: Rc::clone(&self.origin),
            aim: Rc::clone(&self.aim),
            to: self.snapshot.catalogue.me,
            request,
        };
        let decided = asked.decide(&self.snapshot.gate, headers, self.began.unix);
        let mut visiting = Box::new(Visiting {
            method: asked
                .request
                .as_ref()
                .map(|request| request.method().clone()),
            stand: self.worker.standing.enter(asked),
            worker: Rc::clone(&self.worker),
            snapshot: Arc::clone(&self.snapshot),
            id: self.id,
            began: self.began,
            rule: None,
            status: 0,
            grpc_status: None,
            reason: None,
            trace: None,
            handed: Milestone::ahead(self.worker.clock),
            answered_at: None,
            answer_bytes: 0,
            bytes_of_socket: None,
        });
        match decided {
            Ok(rule) => {
                visiting.rule = Some(rule);
                Ok(visiting)
            }
            Err(no) => {
                visiting.reason = Some(no.reason());
                visiting.status = no.reason().status().as_u16();
                visiting.rule = no.rule();
                Err((no.reason(), no.detail()))
            }
        }
    }

    /// Answers in a program's place, and tells how long the call was here.
    pub(crate) fn refuse(
        &self,
        reason: Reason,
        is_grpc: bool,
        detail: &str,
    ) -> Response<ProxyBody> {
        let mut answer = own(reason.answer(self.id, is_grpc, detail));
        let now = self.worker.clock.monotonic();
        let stages = Stages::default().with_near(self.began.monotonic, None, now);
        Told::of(&stages).write(answer.headers_mut());
        answer
    }

    /// Serves one request.
    async fn serve(self, mut parts: Parts, body: ProxyBody) -> Response<ProxyBody> {
        let is_grpc = grpc::is_call(&parts.headers);
        // The other host should have seen to it; whether it has is not known.
        if let Err(bad) = head::admit(&mut parts) {
            return self.refuse(Reason::BadRequest, is_grpc, &bad.to_string());
        }
        let mut visiting = match self.decide(Some(AskedRequest::new(&parts)), Some(&parts.headers))
        {
            Ok(visiting) => visiting,
            Err((reason, detail)) => return self.refuse(reason, is_grpc, &detail),
        };
        // While the caller still sends its body, it watches the time itself.
        let deadline = self.deadline.filter(|_| body.is_end_stream());
        let mut request = Request::from_parts(parts, body);
        head::strip_mesh(request.headers_mut());
        visiting.trace(request.headers_mut());
        let served = {
            // Gone before the answer: who is cut does nothing more.
            let serving = pin!(deliver(
                &self.worker,
                &self.snapshot,
                &self.origin,
                &self.aim,
                self.carries,
                request,
                &visiting.handed,
            ));
            let in_time = pin!(async {
                match deadline {
                    Some(deadline) if deadline <= self.began.monotonic => {
                        Err((Reason::Deadline, String::new()))
                    }
                    Some(deadline) => {
                        timeout_at(self.worker.clock.tokio_deadline(deadline), serving)
                            .await
                            .unwrap_or_else(|_| Err((Reason::Deadline, String::new())))
                    }
                    None => serving.await,
                }
            });
            visiting.stand.until_cut(in_time).await
        };
        match served.unwrap_or_else(|| Err((Reason::CutByPolicy, String::new()))) {
            Ok(answer) => visiting.pass_on(answer),
            Err((reason, detail)) => {
                let mut answer = own(reason.answer(self.id, is_grpc, &detail));
                visiting.tell_timing(answer.headers_mut());
                visiting.ended_with(reason);
                visiting.status = answer.status().as_u16();
                answer
            }
        }
    }
}

/// A call from another host under way. It is told of when it is dropped.
pub(crate) struct Visiting {
    worker: Rc<Worker>,
    snapshot: Arc<Snapshot>,
    stand: Stand,
    id: CallId,
    method: Option<Method>,
    began: Now,
    rule: Option<RuleIndex>,
    status: u16,
    grpc_status: Option<u16>,
    reason: Option<Reason>,
    trace: Option<Trace>,
    /// To a program.
    handed: Milestone,
    answered_at: Option<Instant>,
    answer_bytes: u64,
    bytes_of_socket: Option<Rc<crate::socket_body::Activity>>,
}

impl Visiting {
    /// Returns its place among those under way.
    pub(crate) const fn stand(&self) -> &Stand {
        &self.stand
    }

    /// Goes on with the caller's trace, and tells the program of it.
    fn trace(&mut self, headers: &mut HeaderMap) {
        if self.worker.observer.traces() {
            let trace = Trace::of(headers, self.id, Side::Destination);
            trace.write(headers);
            self.trace = Some(trace);
        }
    }

    /// Returns when it was handed to a program.
    pub(crate) const fn handed(&self) -> &Milestone {
        &self.handed
    }

    /// Tells the source how long it was here so far.
    pub(crate) fn tell_timing(&self, headers: &mut HeaderMap) {
        self.told().write(headers);
    }

    /// Returns what the source is told of how long it was here so far.
    pub(crate) fn told(&self) -> Told {
        Told::of(&self.stages(self.worker.clock.monotonic()))
    }

    fn stages(&self, now: Instant) -> Stages {
        let answered_at = self.answered_at.unwrap_or(now);
        // A connection of bytes is answered as soon as there is one.
        let handed = self.handed.at().filter(|_| self.method.is_some());
        let stages = Stages::default().with_near(self.began.monotonic, handed, answered_at);
        match self.answered_at {
            Some(answered_at) => stages.with(Stage::Body, now - answered_at),
            None => stages,
        }
    }

    /// Says why the mesh ended it.
    pub(crate) fn ended_with(&mut self, reason: Reason) {
        self.reason = self.reason.or(Some(reason));
    }

    /// The program has answered; counts what passes on this socket from now on.
    pub(crate) fn count(&mut self, activity: Rc<crate::socket_body::Activity>) {
        self.answered_at = Some(self.worker.clock.monotonic());
        self.bytes_of_socket = Some(activity);
    }

    /// The program has answered so.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.answered_at = Some(self.worker.clock.monotonic());
        self.status = status.as_u16();
    }

    /// Passes an answer on; the call is over when all of it was read.
    pub(crate) fn pass_on(mut self: Box<Self>, answer: Response<ProxyBody>) -> Response<ProxyBody> {
        self.answered(answer.status());
        self.grpc_status = grpc_status(answer.headers());
        let (mut head, body) = answer.into_parts();
        self.reason = reason_of(&head.headers);
        self.tell_timing(&mut head.headers);
        head.version = Version::HTTP_11;
        let body = if body.is_end_stream() {
            ProxyBody::Empty
        } else {
            ProxyBody::Served(Box::new(ServedBody {
                body,
                visiting: self,
            }))
        };
        Response::from_parts(head, body)
    }
}

impl Drop for Visiting {
    fn drop(&mut self) {
        let stages = self.stages(self.worker.clock.monotonic());
        let (request_bytes, answer_bytes) = match &self.bytes_of_socket {
            // Here the socket is the program's.
            Some(activity) => {
                let (from_program, to_program) = activity.bytes();
                (to_program, from_program)
            }
            None => (0, self.answer_bytes),
        };
        self.stand.with_asked(|asked| {
            let workload = asked.origin.workload(&self.snapshot.gate);
            self.worker.observer.call_ended(
                self.worker.thread,
                &CallReport {
                    id: self.id,
                    side: Side::Destination,
                    from: asked.origin.host(),
                    workload: workload.as_deref(),
                    tried: std::slice::from_ref(&asked.to),
                    choice: None,
                    gave_up: None,
                    trace: self.trace,
                    aim: &asked.aim,
                    dialled: asked.dialled(),
                    method: self.method.as_ref(),
                    path: asked.request.as_ref().map(AskedRequest::path),
                    status: self.status,
                    grpc_status: self.grpc_status,
                    reason: self.reason,
                    rule: self.rule.map(|rule| self.snapshot.gate.rule(rule)),
                    policy: self.snapshot.gate.version(),
                    began: self.began,
                    stages,
                    request_bytes,
                    answer_bytes,
                },
            );
        });
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get(grpc::GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

/// What a program of this host answers to another.
pub struct ServedBody {
    body: ProxyBody,
    visiting: Box<Visiting>,
}

impl std::fmt::Debug for ServedBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServedBody")
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}

impl Body for ServedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if this.visiting.stand.poll_cut(context) {
            this.visiting.ended_with(Reason::CutByPolicy);
            return Poll::Ready(Some(Err(BodyError::GivenUp("the policy has changed"))));
        }
        let frame = std::task::ready!(Pin::new(&mut this.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.visiting.answer_bytes += data.len() as u64;
                } else if let Some(trailers) = frame.trailers_ref() {
                    this.visiting.grpc_status = grpc_status(trailers);
                }
            }
            Some(Err(_)) => this.visiting.ended_with(Reason::Broken),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Asks the program of this host that offers what is called. `handed` is reached when it has a
/// connection.
///
/// # Errors
/// None does, or it gives no answer.
pub(crate) async fn deliver(
    worker: &Worker,
    snapshot: &Snapshot,
    origin: &Origin,
    aim: &Aim,
    carries: Carries,
    mut request: Request<ProxyBody>,
    handed: &Milestone,
) -> Served {
    let port = offered_port(worker, snapshot, aim)?;
    let me = my_addresses(snapshot).ok_or((Reason::NotOffered, String::new()))?;
    introduce(worker, snapshot, origin, request.headers_mut());
    let speech = speech(snapshot, aim, carries, request.headers());
    let answer = worker
        .apps
        .request(me, port, speech, request, handed)
        .await
        .map_err(refused)?;
    if !upgrades::is_as_asked(&answer, false) {
        return Err((Reason::Broken, upgrades::UNASKED.to_owned()));
    }
    let (mut head, body) = answer.into_parts();
    clean(&mut head.headers);
    let body = if body.is_end_stream() {
        ProxyBody::Empty
    } else {
        ProxyBody::App(body)
    };
    Ok(Response::from_parts(head, body))
}

/// Returns how the program is to be spoken to: as its caller speaks, and in HTTP/2 where its service
/// says that it takes gRPC.
fn speech(snapshot: &Snapshot, aim: &Aim, carries: Carries, headers: &HeaderMap) -> Speech {
    if carries != Carries::Http2Request && snapshot.protocol(aim) != Some(Protocol::Grpc) {
        Speech::Http1
    } else if grpc::is_call(headers) {
        Speech::Http2Alone
    } else {
        Speech::Http2
    }
}

/// Asks the program for an upgrade, on a connection of its own.
///
/// # Errors
/// As `deliver`.
pub(crate) async fn deliver_upgrade(
    worker: &Worker,
    snapshot: &Snapshot,
    origin: &Origin,
    aim: &Aim,
    mut request: Request<ProxyBody>,
    handed: &Milestone,
) -> Result<Response<AppBody>, (Reason, String)> {
    let port = offered_port(worker, snapshot, aim)?;
    let me = my_addresses(snapshot).ok_or((Reason::NotOffered, String::new()))?;
    introduce(worker, snapshot, origin, request.headers_mut());
    let is_asked = head::names_websocket(request.headers());
    let asked = worker.apps.request_alone(me, port, request, handed);
    let answer = asked.await.map_err(refused)?;
    if !upgrades::is_as_asked(&answer, is_asked) {
        return Err((Reason::Broken, upgrades::UNASKED.to_owned()));
    }
    Ok(answer)
}

fn refused(error: AppError) -> (Reason, String) {
    tracing::debug!(%error, "a program of this host gave no answer");
    match error {
        AppError::Refused(..) => (Reason::ConnectionRefused, String::new()),
        AppError::Broken(_) | AppError::Silent => (Reason::Broken, String::new()),
        AppError::Misunderstood(why) => (Reason::ProtocolMismatch, why.to_owned()),
    }
}

/// Returns the port of this host where what is called is offered.
///
/// # Errors
/// It is not, or by a program that is not well.
pub(crate) fn offered_port(
    worker: &Worker,
    snapshot: &Snapshot,
    aim: &Aim,
) -> Result<AppPort, (Reason, String)> {
    let catalogue = &snapshot.catalogue;
    match aim {
        Aim::Port(number) => Ok(AppPort {
            number: *number,
            is_service: false,
        }),
        Aim::Service(name) if worker.ailing.contains(name) => {
            Err((Reason::Unhealthy, String::new()))
        }
        Aim::Service(name) => catalogue
            .services
            .get(name)
            .filter(|service| service.endpoints.contains(&catalogue.me))
            .map(|service| AppPort {
                number: service.service.port,
                is_service: true,
            })
            .ok_or((Reason::NotOffered, String::new())),
    }
}

/// Tells the program who calls.
fn introduce(worker: &Worker, snapshot: &Snapshot, origin: &Origin, headers: &mut HeaderMap) {
    let workload = origin.workload(&snapshot.gate);
    let Some(caller) = worker.caller_headers(snapshot, origin.host(), workload.as_deref()) else {
        return;
    };
    headers.insert(marks::CALLER, caller.identity);
    let forwarded_for = if headers.contains_key(marks::FORWARDED_FOR) {
        let before = headers.get_all(marks::FORWARDED_FOR).iter();
        let all: Vec<&[u8]> = before
            .chain([&caller.address])
            .map(HeaderValue::as_bytes)
            .collect();
        HeaderValue::from_bytes(&all.join(&b", "[..])).unwrap_or(caller.address)
    } else {
        caller.address
    };
    headers.insert(marks::FORWARDED_FOR, forwarded_for);
    if !headers.contains_key(marks::FORWARDED_PROTO) {
        headers.insert(marks::FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if !headers.contains_key(marks::FORWARDED_HOST)
        && let Some(host) = headers.get(HOST).cloned()
    {
        headers.insert(marks::FORWARDED_HOST, host);
    }
}

/// Takes off an answer what is of its connection, or in the name of the mesh.
pub(crate) fn clean(headers: &mut HeaderMap) {
    head::strip_connection(headers);
    head::strip_mesh(headers);
}
