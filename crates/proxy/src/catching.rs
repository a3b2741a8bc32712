//! Connections of programs of this host that were caught on their way out.

use std::cell::{Cell, OnceCell};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use model::ids::HostId;
use model::rule::Protocol;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::accept_queue;
use crate::asking::{Origin, target};
use crate::calling::{self, Caught, Refused};
use crate::carrying;
use crate::detection::{Spoken, detect};
use crate::directory::Holder;
use crate::framing::Suspect;
use crate::manners::Manners;
use crate::marks::Aim;
use crate::presence::{Presence, SharedSocket};
use crate::refusal::Reason;
use crate::runtimes::{LocalExecutor, PatientSocket};
use crate::snapshot::Snapshot;
use crate::socket_body::reset;
use crate::unparsed;
use crate::worker::Worker;

/// How long nothing is accepted after the kernel was out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes that may be under way on one stream of a program, and on all of a connection. The sum is
/// larger, since equal values can deadlock (TRAFFIC.md, HTTP/2 between hosts).
const HTTP2_STREAM_WINDOW_BYTES: u32 = 1 << 20;
const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes of answers that one HTTP/2 connection of a program buffers for a stream.
const HTTP2_SEND_BUFFER_BYTES: usize = 256 << 10;
/// How often a program that speaks HTTP/2 is asked whether it is there, and how long it may take.
const HTTP2_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const HTTP2_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Takes connections until the proxy is to stop, and those that wait then, though they be too many: they
/// would be reset.
pub(crate) async fn accept(worker: Rc<Worker>, listener: TcpListener) {
    let mut stop = worker.stop.clone();
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = listener.accept(), if worker.connections.get() < worker.limits.connections => {
                match accepted {
                    Ok((stream, peer)) => begin(&worker, stream, peer),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection of a program");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
            () = sleep(ACCEPT_PAUSE), if worker.connections.get() >= worker.limits.connections => {}
        }
    }
    for (stream, peer) in accept_queue::waiting(listener) {
        begin(&worker, stream, peer);
    }
}

fn begin(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    let place = Place::take(worker);
    spawn_local(async move {
        if let Err(error) = connection(&place.0, stream, peer).await {
            tracing::debug!(%error, %peer, "a connection that was caught ended");
        }
    });
}

/// One of the connections that there may be.
struct Place(Rc<Worker>);

impl Place {
    fn take(worker: &Rc<Worker>) -> Self {
        worker.connections.set(worker.connections.get() + 1);
        Self(Rc::clone(worker))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
    }
}

/// One of the connections that one user may have.
struct Share {
    worker: Rc<Worker>,
    uid: Option<u32>,
}

impl Share {
    /// `None`: it has as many already.
    fn take(worker: &Rc<Worker>, uid: Option<u32>) -> Option<Self> {
        let mut users = worker.connections_of_users.borrow_mut();
        let count = users.entry(uid).or_default();
        if *count >= worker.limits.connections_of_user {
            return None;
        }
        *count += 1;
        Some(Self {
            worker: Rc::clone(worker),
            uid,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut users = self.worker.connections_of_users.borrow_mut();
        if let Some(count) = users.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                users.remove(&self.uid);
            }
        }
    }
}

async fn connection(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let dialled = worker.surroundings.original_destination(&stream)?;
    let snapshot = worker.snapshots.to_keep();
    let Some((origin, aim, host)) = aimed(worker, &snapshot, peer, dialled) else {
        tracing::debug!(%dialled, %peer, "nothing is known of what was dialled");
        reset(&stream);
        return Ok(());
    };
    let mut caught = Caught {
        app: peer,
        origin,
        aim: Rc::new(aim),
        host,
        is_http2: false,
        manners: Manners::default(),
        known: OnceCell::new(),
    };
    let Some(_share) = Share::take(worker, caught.origin.uid()) else {
        tracing::warn!(
            uid = caught.origin.uid(),
            "a user's programs have as many connections as one user may"
        );
        refuse(worker, &caught, &snapshot, Reason::Overflow);
        reset(&stream);
        return Ok(());
    };
    let spoken = match protocol(&snapshot, &caught.aim) {
        Protocol::Tcp | Protocol::Udp => Spoken::Bytes,
        Protocol::Http | Protocol::Grpc => match detect(&stream, worker.limits.head_wait).await? {
            Spoken::Http2 => Spoken::Http2,
            // What is no HTTP is refused as such.
            Spoken::Http1 | Spoken::Bytes => Spoken::Http1,
        },
        Protocol::Auto => detect(&stream, worker.limits.detection_wait).await?,
    };
    caught.is_http2 = spoken == Spoken::Http2;
    let caught = Rc::new(caught);
    match spoken {
        // Apart, so that none takes the room of the largest.
        Spoken::Bytes => Box::pin(carrying::call(Rc::clone(worker), caught, stream)).await,
        Spoken::Http1 => {
            let presence = Presence {
                socket: SharedSocket::new(stream),
                app: peer,
                dialled,
            };
            Box::pin(serve_http1(worker, caught, presence)).await;
        }
        Spoken::Http2 => Box::pin(serve_http2(worker, caught, stream)).await,
    }
    Ok(())
}

/// Tells of a connection that is taken no further.
fn refuse(worker: &Worker, caught: &Caught, snapshot: &Arc<Snapshot>, reason: Reason) {
    let refused = Refused {
        worker,
        caught,
        snapshot,
        id: worker.next_call(),
        began: worker.now(),
        is_grpc: false,
    };
    refused.tell(None, reason, None, 0);
}

type Aimed = (Rc<Origin>, Aim, Option<HostId>);

/// Returns who dials which service, or port of which host.
fn aimed(
    worker: &Worker,
    snapshot: &Snapshot,
    app: SocketAddr,
    dialled: SocketAddr,
) -> Option<Aimed> {
    let catalogue = &snapshot.catalogue;
    let (aim, host) = match worker.directory.holder(catalogue, dialled.ip())? {
        Holder::Service(name) => {
            let port = catalogue.services.get(&name)?.service.port;
            (port == dialled.port()).then_some((Aim::Service(name), None))?
        }
        Holder::Host(host) => (Aim::Port(dialled.port()), Some(host)),
    };
    let caller = worker.surroundings.caller(app, dialled);
    Some((Origin::process(catalogue.me, caller), aim, host))
}

/// Returns what is spoken to what is called. Direct dials are looked at only where a rule wants it.
fn protocol(snapshot: &Snapshot, aim: &Aim) -> Protocol {
    match aim {
        Aim::Service(_) => snapshot.protocol(aim).unwrap_or(Protocol::Tcp),
        Aim::Port(_) if snapshot.gate.needs_request(target(aim)) => Protocol::Auto,
        Aim::Port(_) => Protocol::Tcp,
    }
}

async fn serve_http1(worker: &Rc<Worker>, caught: Rc<Caught>, program: Presence) {
    let limits = &worker.limits;
    let suspect = Suspect::default();
    let requests = Cell::new(0);
    let service = service_fn(|request| {
        let has_two_lengths = suspect.covers(requests.get());
        requests.set(requests.get() + 1);
        let (worker, caught) = (Rc::clone(worker), Rc::clone(&caught));
        async move {
            Ok::<_, Infallible>(if has_two_lengths {
                calling::refuse_two_lengths(&worker, &caught, request)
            } else {
                calling::call(worker, caught, request).await
            })
        }
    });
    let socket = PatientSocket::new(program.socket.clone(), limits.body_wait);
    let socket = socket.suspecting(suspect.clone());
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head_wait)
            .max_header_size(limits.head_bytes as usize)
            .auto_date_header(false)
            // Who has said its last word may wait for its answer all the same.
            .half_close(true)
            .serve_connection(TokioIo::new(socket), service)
            .with_upgrades()
    );
    let served = until_stopped(worker, &caught, connection.as_mut(), |connection| {
        connection.graceful_shutdown()
    });
    tokio::select! {
        biased;
        () = served => {}
        () = program.over(&*worker.surroundings) => {
            tracing::debug!(aim = %caught.aim, "a program left before it was answered");
        }
    }
}

async fn serve_http2(worker: &Rc<Worker>, caught: Rc<Caught>, stream: TcpStream) {
    let limits = &worker.limits;
    let service = service_fn(|request| {
        let answer = calling::call(Rc::clone(worker), Rc::clone(&caught), request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut connection = pin!(
        http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .max_header_list_size(limits.head_bytes)
            .max_concurrent_streams(limits.http2_streams)
            .max_pending_accept_reset_streams(limits.http2_pending_resets)
            .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(HTTP2_SEND_BUFFER_BYTES)
            .keep_alive_interval(HTTP2_ALIVE_INTERVAL)
            .keep_alive_timeout(HTTP2_ALIVE_TIMEOUT)
            .auto_date_header(false)
            .serve_connection(
                TokioIo::new(PatientSocket::new(
                    SharedSocket::new(stream),
                    limits.body_wait
                )),
                service
            )
    );
    until_stopped(worker, &caught, connection.as_mut(), |connection| {
        connection.graceful_shutdown()
    })
    .await;
}

/// Serves a connection to its end. When the proxy is to stop, or the program has no manners, it takes
/// no more requests.
async fn until_stopped<C>(
    worker: &Worker,
    caught: &Caught,
    mut connection: Pin<&mut C>,
    end_gracefully: impl FnOnce(Pin<&mut C>),
) where
    C: Future<Output = hyper::Result<()>>,
{
    let mut stop = worker.stop.clone();
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        _ = stop.wait_for(|stop| *stop) => {
            end_gracefully(connection.as_mut());
            connection.await
        }
        () = caught.manners.too_bad() => {
            tracing::warn!(aim = %caught.aim, "a program gives up its requests as it makes them");
            end_gracefully(connection.as_mut());
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection of a program broke");
        unparsed::tell(worker, caught, &worker.snapshots.to_keep(), &error);
    }
}
