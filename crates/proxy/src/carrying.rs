//! Connections of bytes: carried on a stream to the endpoint's host, both directions at once, each
//! with its own end.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, Uri};
use http_body::Body;
use model::rule::Protocol;
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::sleep;
use traffic::{CallShape, Failure, Next, Outcome};

use crate::body::{BodyError, ProxyBody, StreamBody};
use crate::calling::{Caught, Refused, marks};
use crate::came::{Came, outcome_of_reason};
use crate::marks::Carries;
use crate::refusal::Reason;
use crate::serving::{Visit, offered_port};
use crate::socket_body::{Activity, Hold, SocketBody, break_off, pump, reset};
use crate::standing::Stand;
use crate::trying::in_its_time;
use crate::under_way::{Beginning, UnderWay};
use crate::worker::{Worker, my_addresses};

/// Carries a connection of a program of this host, until it is over.
pub(crate) async fn call(worker: Rc<Worker>, caught: Rc<Caught>, socket: TcpStream) {
    let (id, began) = (worker.next_call(), worker.now());
    let snapshot = worker.snapshots.to_keep();
    let (asked, rule) = match caught.decide(&worker, &snapshot, None, None) {
        Ok(allowed) => allowed,
        Err(refusal) => {
            let no = refusal.1;
            let refused = Refused {
                worker: &worker,
                caught: &caught,
                snapshot: &snapshot,
                id,
                began,
                is_grpc: false,
            };
            refused.tell(None, no.reason(), no.rule(), 0);
            reset(&socket);
            return;
        }
    };
    let called = Rc::clone(caught.called(&worker, &snapshot));
    let shape = CallShape::default();
    let beginning = Beginning {
        id,
        began,
        asked,
        rule,
        is_grpc: false,
        shape,
        replay: None,
    };
    let mut under_way = UnderWay::begin(&worker, snapshot, called, beginning);
    let socket = Rc::new(socket);
    let activity = Activity::new();
    under_way.count(Rc::clone(&activity));
    let outcome = match reach(&worker, &caught, &mut under_way, &socket, &activity).await {
        Ok(far) => {
            let idle = under_way
                .called()
                .upstream
                .borrow()
                .settings()
                .timeouts
                .idle_connection;
            let carried = carry(
                far.body,
                &socket,
                &activity,
                under_way.stand(),
                idle,
                worker.limits.half_closed_wait,
            );
            match far.program {
                Some(program) => program.served(&activity, carried).await,
                None => carried.await,
            }
        }
        Err(reason) => Err(reason),
    };
    match outcome {
        Ok(()) => under_way.complete(None),
        Err(reason) => {
            under_way.broke(reason);
            break_off(&socket, &activity);
        }
    }
}

/// What was reached.
struct Far {
    /// What comes from it.
    body: ProxyBody,
    /// Where it is a program of this host; what goes to others, their sessions take.
    program: Option<Program>,
}

/// A program of this host that is called by another.
struct Program {
    socket: Rc<TcpStream>,
    activity: Rc<Activity>,
    from_caller: SocketBody,
}

impl Program {
    /// Takes to it what comes from its caller while the other direction is carried. No part of it stays
    /// behind, whoever does not read.
    async fn served(
        self,
        of_caller: &Activity,
        carried: impl Future<Output = Result<(), Reason>>,
    ) -> Result<(), Reason> {
        let writing = async {
            if pump(self.from_caller, &self.socket, &self.activity)
                .await
                .is_err()
            {
                of_caller.broke();
            }
            std::future::pending().await
        };
        let outcome = tokio::select! {
            outcome = carried => outcome,
            never = writing => never,
        };
        if outcome.is_err() {
            break_off(&self.socket, &self.activity);
        }
        outcome
    }
}

/// Finds an endpoint that takes the connection.
async fn reach(
    worker: &Rc<Worker>,
    caught: &Caught,
    under_way: &mut UnderWay,
    socket: &Rc<TcpStream>,
    activity: &Rc<Activity>,
) -> Result<Far, Reason> {
    loop {
        let endpoint = under_way.pick(None).await?;
        let attempt = async {
            if endpoint == under_way.snapshot().catalogue.me {
                reach_here(worker, caught, under_way, socket, activity).await
            } else {
                reach_there(worker, caught, under_way, endpoint, socket, activity).await
            }
        };
        let in_time = in_its_time(worker, under_way, None, attempt);
        let came = under_way.stand().until_cut(in_time).await;
        let came = came.ok_or(Reason::CutByPolicy)?;
        let (outcome, reason) = match came {
            Some(Ok(far)) => {
                under_way.finished(Outcome::Succeeded);
                under_way.answered();
                return Ok(far);
            }
            Some(Err((outcome, reason))) => (outcome, reason),
            None => (Outcome::Failed(Failure::Timeout), Reason::Deadline),
        };
        match under_way.finished(outcome) {
            Next::Retry { after } => {
                let waited = under_way.stand().until_cut(sleep(after)).await;
                waited.ok_or(Reason::CutByPolicy)?;
            }
            Next::PassOn | Next::GiveUp(_) => return Err(reason),
        }
    }
}

async fn reach_there(
    worker: &Rc<Worker>,
    caught: &Caught,
    under_way: &UnderWay,
    endpoint: model::ids::HostId,
    socket: &Rc<TcpStream>,
    activity: &Rc<Activity>,
) -> Result<Far, (Outcome, Reason)> {
    // Nothing is taken from the program before the endpoint is there: another can be tried.
    let hold = Rc::new(Hold::default());
    // Its end is not the connection's, as long as it is held.
    let from_program = SocketBody::new(
        Rc::clone(socket),
        Rc::clone(activity),
        worker.limits.copy_bytes,
    )
    .held(Rc::clone(&hold));
    let mut request = Request::new(ProxyBody::Socket(from_program));
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = Uri::from_static("mesh");
    marks(worker, caught, under_way, Carries::Bytes).write(request.headers_mut());
    let came = match under_way.send(endpoint, request).await {
        Ok(mut answer) => {
            under_way.take_told(answer.headers_mut());
            if answer.status().is_success() {
                hold.open();
                return Ok(Far {
                    body: ProxyBody::Stream(answer.into_body()),
                    program: None,
                });
            }
            Came::Answer(answer.map(ProxyBody::Stream))
        }
        Err(error) => error.into(),
    };
    let reason = match &came {
        Came::Answer(answer) => {
            crate::under_way::reason_of(answer.headers()).unwrap_or(Reason::Broken)
        }
        Came::Failure(_, reason, _) | Came::CallersFault(reason, _) => *reason,
    };
    Err((came.outcome(false), reason))
}

async fn reach_here(
    worker: &Rc<Worker>,
    caught: &Caught,
    under_way: &UnderWay,
    socket: &Rc<TcpStream>,
    activity: &Rc<Activity>,
) -> Result<Far, (Outcome, Reason)> {
    let snapshot = under_way.snapshot();
    let failed = |reason| (outcome_of_reason(reason), reason);
    let port = offered_port(worker, snapshot, &caught.aim).map_err(|(reason, _)| failed(reason))?;
    let me = my_addresses(snapshot).ok_or(failed(Reason::NotOffered))?;
    let program = worker.apps.connect(me, port).await;
    let program = Rc::new(program.map_err(|_| failed(Reason::ConnectionRefused))?);
    // What the other program gets; its own activity is this one's, seen from the other side.
    let there = Activity::new();
    let from_caller = SocketBody::new(
        Rc::clone(socket),
        Rc::clone(activity),
        worker.limits.copy_bytes,
    );
    let far = SocketBody::new(
        Rc::clone(&program),
        Rc::clone(&there),
        worker.limits.copy_bytes,
    );
    Ok(Far {
        body: ProxyBody::Socket(far),
        program: Some(Program {
            socket: program,
            activity: there,
            from_caller,
        }),
    })
}

/// Takes a connection of another host to a program of this one.
pub(crate) async fn serve(visit: Visit, from_caller: StreamBody) -> Response<ProxyBody> {
    if takes_requests_alone(&visit) {
        let why = "its service takes requests, and no other bytes";
        return visit.refuse(Reason::BadRequest, false, why);
    }
    let mut visiting = match visit.decide(None, None) {
        Ok(visiting) => visiting,
        Err((reason, detail)) => return visit.refuse(reason, false, &detail),
    };
    let socket = match connect(&visit).await {
        Ok(socket) => Rc::new(socket),
        Err(reason) => {
            visiting.ended_with(reason);
            return visit.refuse(reason, false, "");
        }
    };
    let activity = Activity::new();
    visiting.count(Rc::clone(&activity));
    let timing = visiting.told();
    let limits = visit.worker.limits.clone();
    let idle = idle_of(&visit);
    let from_program = SocketBody::new(Rc::clone(&socket), Rc::clone(&activity), limits.copy_bytes);
    spawn_local(async move {
        let carried = carry(
            from_caller,
            &socket,
            &activity,
            visiting.stand(),
            idle,
            limits.half_closed_wait,
        );
        if let Err(reason) = carried.await {
            visiting.ended_with(reason);
            break_off(&socket, &activity);
        }
    });
    let mut answer = Response::new(ProxyBody::Socket(from_program));
    timing.write(answer.headers_mut());
    answer
}

/// Returns whether the program may believe what requests say of their callers. Bytes that nobody reads
/// could say the same, and no host that keeps to the policy sends such.
fn takes_requests_alone(visit: &Visit) -> bool {
    let protocol = visit.snapshot.protocol(&visit.aim);
    matches!(protocol, Some(Protocol::Http | Protocol::Grpc))
}

async fn connect(visit: &Visit) -> Result<TcpStream, Reason> {
    let port =
        offered_port(&visit.worker, &visit.snapshot, &visit.aim).map_err(|(reason, _)| reason)?;
    let me = my_addresses(&visit.snapshot).ok_or(Reason::NotOffered)?;
    let connected: io::Result<TcpStream> = visit.worker.apps.connect(me, port).await;
    connected.map_err(|error| {
        tracing::debug!(%error, "a program of this host takes no connection");
        Reason::ConnectionRefused
    })
}

/// Returns how long a connection may be silent, as its service says.
pub(crate) fn idle_of(visit: &Visit) -> Duration {
    let key = crate::upstreams::Key::new(&visit.aim, visit.snapshot.catalogue.me);
    let settings = match &key {
        crate::upstreams::Key::Service(name) => {
            let service = visit.snapshot.catalogue.services.get(name);
            service.map(|service| traffic::Settings::of(&service.service.settings))
        }
        crate::upstreams::Key::Port(..) => None,
    };
    settings.unwrap_or_default().timeouts.idle_connection
}

/// Writes what comes from afar to the socket, until both directions are over. What comes from the
/// socket is read by whoever has its [`SocketBody`].
async fn carry<B>(
    far: B,
    socket: &TcpStream,
    activity: &Activity,
    stand: &Stand,
    idle: Duration,
    half_closed: Duration,
) -> Result<(), Reason>
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    let both = async {
        let writing = async {
            if pump(far, socket, activity).await.is_err() {
                activity.broke();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            is_whole = activity.over() => if is_whole { Ok(()) } else { Err(Reason::Broken) },
            () = writing => Err(Reason::Broken),
            () = activity.silence(idle, half_closed) => Err(Reason::Deadline),
        }
    };
    stand
        .until_cut(both)
        .await
        .unwrap_or(Err(Reason::CutByPolicy))
}
