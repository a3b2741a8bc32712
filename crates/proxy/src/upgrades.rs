//! Requests that turn their connection into a WebSocket, and into nothing else. HTTP/2 between the
//! hosts has no such thing, so their connection is carried as bytes and speaks HTTP/1.1 inside; each
//! request on it is decided as any other. So are requests carried that wait for `100 Continue` before
//! they send their body: it is the program that asks for it, or refuses it, all the way.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::{TokioIo, TokioTimer};
use model::ids::HostId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio::task::spawn_local;
use tokio::time::sleep;
use traffic::{Failure, Next, Outcome};

use crate::asking::AskedRequest;
use crate::awaiting::{CONTINUE_WAIT, Wanted, until_continue};
use crate::body::{ProxyBody, StreamBody};
use crate::calling::{Caught, marks, once_more};
use crate::came::{Came, outcome_of_reason};
use crate::grpc;
use crate::head;
use crate::local_apps::{AppBody, alone, announce_body};
use crate::marks::Carries;
use crate::pipe::pipe;
use crate::refusal::Reason;
use crate::runtimes::Driver;
use crate::serving::{self, Visit, Visiting};
use crate::socket_body::Activity;
use crate::standing::Stand;
use crate::trying::in_its_time;
use crate::under_way::{AnswerBody, UnderWay, reason_of};
use crate::worker::Worker;

/// Bytes that are copied at once, each way.
const COPY_BYTES: usize = 16 << 10;

/// Answers a request that asks for an upgrade, and carries what follows; or one that waits to be asked
/// for its body.
pub(crate) async fn call(
    worker: &Rc<Worker>,
    caught: &Caught,
    mut under_way: Box<UnderWay>,
    mut request: Request<()>,
) -> Response<AnswerBody> {
    let near = hyper::upgrade::on(&mut request);
    keep_upgrade(request.headers_mut());
    let parts = request.into_parts().0;
    let mut answer = loop {
        let endpoint = match under_way.pick(Some(&parts.headers)).await {
            Ok(endpoint) => endpoint,
            Err(reason) => return under_way.refuse(reason, ""),
        };
        let Some(asked) = attempt(worker, caught, &under_way, &parts, endpoint).await else {
            return under_way.refuse(Reason::CutByPolicy, "");
        };
        let outcome = match &asked {
            Ok(answer) => match reason_of(answer.headers()) {
                Some(reason) => outcome_of_reason(reason),
                None => Outcome::of_status(answer.status().as_u16()),
            },
            Err(came) => came.outcome(false),
        };
        match (under_way.finished(outcome), asked) {
            (Next::Retry { after }, _) => {
                if under_way.stand().until_cut(sleep(after)).await.is_none() {
                    return under_way.refuse(Reason::CutByPolicy, "");
                }
            }
            (_, Ok(answer)) => break answer,
            (_, Err(came)) => return came.answer(under_way),
        }
    };
    under_way.take_told(answer.headers_mut());
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        head::strip_connection(answer.headers_mut());
        return Came::Answer(answer.map(ProxyBody::App)).answer(under_way);
    }
    let far = hyper::upgrade::on(&mut answer);
    keep_upgrade(answer.headers_mut());
    let answer = Response::from_parts(answer.into_parts().0, AnswerBody::Own(bytes::Bytes::new()));
    let idle = under_way
        .called()
        .upstream
        .borrow()
        .settings()
        .timeouts
        .idle_connection;
    spawn_local(async move {
        under_way.switched();
        match splice(near, far, under_way.stand(), idle).await {
            Ok(()) => under_way.complete(None),
            Err(reason) => under_way.broke(reason),
        }
    });
    answer
}

/// Asks an endpoint and waits for the head of its answer; `None`: it was cut.
async fn attempt(
    worker: &Rc<Worker>,
    caught: &Caught,
    under_way: &UnderWay,
    parts: &Parts,
    endpoint: HostId,
) -> Option<Result<Response<AppBody>, Came>> {
    let request = once_more(under_way, parts);
    let asking = ask(worker, caught, under_way, endpoint, request);
    let patient = in_its_time(worker, under_way, Some(&parts.headers), asking);
    let asked = under_way.stand().until_cut(patient).await?;
    let late = Came::Failure(Failure::Timeout, Reason::Deadline, String::new());
    let asked = asked.unwrap_or(Err(late));
    Some(asked.map_err(|came| came.to(under_way.replay())))
}

/// Asks the endpoint, on a connection of its own.
async fn ask(
    worker: &Rc<Worker>,
    caught: &Caught,
    under_way: &UnderWay,
    endpoint: HostId,
    request: Request<ProxyBody>,
) -> Result<Response<AppBody>, Came> {
    let snapshot = under_way.snapshot();
    if endpoint == snapshot.catalogue.me {
        let (request, wanted) = awaited(request, Some(CONTINUE_WAIT));
        let asked = serving::deliver_upgrade(
            worker,
            snapshot,
            &caught.origin,
            &caught.aim,
            request,
            under_way.handed(),
        );
        let mut answer = asked.await.map_err(|refused| Came::from(Err(refused)))?;
        answered(wanted, &answer);
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            serving::clean(answer.headers_mut());
        }
        return Ok(answer);
    }
    let (socket, to_host, from_host) = pipe();
    let mut tunnel = Request::new(ProxyBody::Pipe(to_host));
    *tunnel.method_mut() = Method::CONNECT;
    *tunnel.uri_mut() = Uri::from_static("mesh");
    marks(worker, caught, under_way, Carries::Http1).write(tunnel.headers_mut());
    let opened = under_way.send(endpoint, tunnel).await.map_err(Came::from)?;
    if !opened.status().is_success() {
        return Err(Came::Answer(opened.map(ProxyBody::Stream)));
    }
    from_host.feed(opened.into_body());
    let broken = |error: hyper::Error| {
        tracing::debug!(%error, "a connection that was to be upgraded broke");
        Came::Failure(Failure::Broken, Reason::Broken, String::new())
    };
    let (mut sender, connection) = client::Builder::new()
        .handshake(TokioIo::new(socket))
        .await
        .map_err(broken)?;
    let driver = Driver::start(async move {
        let _ = connection.with_upgrades().await;
    });
    // The other end asks for the body, or answers.
    let (mut request, wanted) = awaited(request, None);
    announce_body(&mut request);
    let is_asked = head::names_websocket(request.headers());
    let answer = sender.send_request(request).await.map_err(broken)?;
    if !is_as_asked(&answer, is_asked) {
        return Err(Came::Failure(
            Failure::Broken,
            Reason::Broken,
            UNASKED.to_owned(),
        ));
    }
    answered(wanted, &answer);
    Ok(alone(answer, driver))
}

/// What is said of a program that changes to a protocol by itself.
pub(crate) const UNASKED: &str = "it changes to a protocol that it was not asked for";

/// Returns whether an answer leaves the connection what it is, or makes it the WebSocket that was
/// asked for.
pub(crate) fn is_as_asked<B>(answer: &Response<B>, is_asked: bool) -> bool {
    answer.status() != StatusCode::SWITCHING_PROTOCOLS
        || is_asked && head::names_websocket(answer.headers())
}

/// Holds the body back, if that is what its sender wants.
fn awaited(
    request: Request<ProxyBody>,
    patience: Option<Duration>,
) -> (Request<ProxyBody>, Option<Wanted>) {
    if head::waits_for_continue(request.headers()) && !request.body().is_end_stream() {
        let (request, wanted) = until_continue(request, patience);
        (request, Some(wanted))
    } else {
        (request, None)
    }
}

fn answered<B>(wanted: Option<Wanted>, answer: &Response<B>) {
    if let Some(wanted) = wanted {
        wanted.answered(answer.status());
    }
}

/// Serves a connection of another host that speaks HTTP/1.1.
pub(crate) fn serve(visit: Visit, from_caller: StreamBody) -> Response<ProxyBody> {
    let (socket, to_caller, feed) = pipe();
    let feeding = feed.feed(from_caller);
    let head_wait = visit.worker.limits.head_wait;
    let head_bytes = visit.worker.limits.head_bytes as usize;
    spawn_local(async move {
        let service = service_fn(|request| {
            // The stream may have waited for it for long.
            let visit = visit.next();
            async move { Ok::<_, Infallible>(answer(&visit, request).await) }
        });
        let connection = server::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(head_wait)
            .max_header_size(head_bytes)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(socket), service);
        let _ = connection.with_upgrades().await;
    });
    Response::new(ProxyBody::Pipe(to_caller.with(feeding)))
}

async fn answer(visit: &Visit, request: Request<Incoming>) -> Response<ProxyBody> {
    let (mut parts, body) = request.into_parts();
    let is_grpc = grpc::is_call(&parts.headers);
    if let Err(bad) = head::admit(&mut parts) {
        return visit.refuse(Reason::BadRequest, is_grpc, &bad.to_string());
    }
    let decided = visit.decide(Some(AskedRequest::new(&parts)), Some(&parts.headers));
    let mut visiting = match decided {
        Ok(visiting) => visiting,
        Err((reason, detail)) => return visit.refuse(reason, is_grpc, &detail),
    };
    head::strip_mesh(&mut parts.headers);
    let mut request = Request::from_parts(parts, body);
    let near = hyper::upgrade::on(&mut request);
    keep_upgrade(request.headers_mut());
    let request = request.map(ProxyBody::Local);
    let (request, wanted) = awaited(request, Some(CONTINUE_WAIT));
    let asking = serving::deliver_upgrade(
        &visit.worker,
        &visit.snapshot,
        &visit.origin,
        &visit.aim,
        request,
        visiting.handed(),
    );
    let asked = visiting.stand().until_cut(asking).await;
    let mut answer = match asked.unwrap_or_else(|| Err((Reason::CutByPolicy, String::new()))) {
        Ok(answer) => answer,
        Err((reason, detail)) => {
            visiting.ended_with(reason);
            return visit.refuse(reason, is_grpc, &detail);
        }
    };
    answered(wanted, &answer);
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        serving::clean(answer.headers_mut());
        return visiting.pass_on(answer.map(ProxyBody::App));
    }
    let far = hyper::upgrade::on(&mut answer);
    keep_upgrade(answer.headers_mut());
    visiting.answered(answer.status());
    visiting.tell_timing(answer.headers_mut());
    let idle = crate::carrying::idle_of(visit);
    spawn_local(carry(near, far, visiting, idle));
    answer.map(|_| ProxyBody::Empty)
}

async fn carry(near: OnUpgrade, far: OnUpgrade, mut visiting: Box<Visiting>, idle: Duration) {
    if let Err(reason) = splice(near, far, visiting.stand(), idle).await {
        visiting.ended_with(reason);
    }
}

/// Leaves, of what belongs to one connection only, the upgrade; and nothing in the mesh's name.
fn keep_upgrade(headers: &mut HeaderMap) {
    head::keep_websocket(headers);
    head::strip_mesh(headers);
}

/// Carries bytes between two connections that were upgraded, until both directions are over.
async fn splice(
    near: OnUpgrade,
    far: OnUpgrade,
    stand: &Stand,
    idle: Duration,
) -> Result<(), Reason> {
    let activity = Activity::new();
    let carried = async {
        let (near, far) = tokio::try_join!(near, far).map_err(|_| Reason::Broken)?;
        let mut near = Noticed::new(near, &activity);
        let mut far = Noticed::new(far, &activity);
        let copied = copy_bidirectional_with_sizes(&mut near, &mut far, COPY_BYTES, COPY_BYTES);
        copied.await.map(|_| ()).map_err(|_| Reason::Broken)
    };
    let in_time = async {
        tokio::select! {
            carried = carried => carried,
            () = activity.silence(idle, idle) => Err(Reason::Deadline),
        }
    };
    stand
        .until_cut(in_time)
        .await
        .unwrap_or(Err(Reason::CutByPolicy))
}

/// A connection that tells when something passes.
struct Noticed<'a> {
    connection: TokioIo<Upgraded>,
    activity: &'a Activity,
}

impl<'a> Noticed<'a> {
    fn new(connection: Upgraded, activity: &'a Activity) -> Self {
        Self {
            connection: TokioIo::new(connection),
            activity,
        }
    }

    fn note<T>(&self, outcome: Poll<T>) -> Poll<T> {
        if outcome.is_ready() {
            self.activity.passed();
        }
        outcome
    }
}

impl AsyncRead for Noticed<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.connection).poll_read(context, buffer);
        self.note(outcome)
    }
}

impl AsyncWrite for Noticed<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.connection).poll_write(context, bytes);
        self.note(outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}
