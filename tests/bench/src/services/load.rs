//! The client that calls: one thread, HTTP/1.1 over connections that stay open. A *steady* load sends its
//! next request when an answer is there, a *timed* one when its time has come.

mod connection;
mod timed;

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use lab::{LabError, Namespace};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Builder;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, timeout};

use connection::Connection;
pub(super) use timed::timed;

/// Goes before what counts: connections are made, and what is cold gets warm.
const WARM_UP: Duration = Duration::from_millis(700);
/// How long a load may take longer than it should.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many of many connections are being opened at once: no server's backlog is full of them.
const OPENED_AT_ONCE: usize = 128;

/// What is asked of whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) target: SocketAddr,
    /// Of the body that is asked for.
    pub(super) bytes: usize,
}

/// What came of a steady load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steady {
    /// In the seconds that count.
    pub(super) requests_per_sec: f64,
    /// Of bodies.
    pub(super) gigabits_per_sec: f64,
    /// With those of the warm-up.
    pub(super) requests_in_all: u64,
}

/// Lets this process and all that it starts have as many connections as the machine lets it.
pub(super) fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    // What cannot be had will be told of when connections fail.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
}

/// Calls on so many connections at once, each as soon as it has its answer.
pub(super) fn steady(
    machine: &Namespace,
    call: Call,
    connections: usize,
    seconds: u32,
) -> Result<Steady, LabError> {
    let counted = Duration::from_secs(seconds.into());
    run(machine, WARM_UP + counted, async move || {
        let tally = Rc::new(Tally::default());
        let mut callers = Vec::new();
        for _ in 0..connections {
            let caller = call_for_ever(call, Rc::clone(&tally));
            callers.push(tokio::task::spawn_local(caller));
        }
        sleep(WARM_UP).await;
        let (started, requests, bytes) = (Instant::now(), tally.requests.get(), tally.bytes.get());
        sleep(counted).await;
        let took = started.elapsed().as_secs_f64();
        let per_sec = |now: u64, before: u64| (now - before) as f64 / took;
        for caller in callers.extract_if(.., |caller| caller.is_finished()) {
            // Only a failure ends it.
            caller.await.map_err(io::Error::other)??;
        }
        Ok(Steady {
            requests_per_sec: per_sec(tally.requests.get(), requests),
            gigabits_per_sec: per_sec(tally.bytes.get(), bytes) * 8.0 / 1e9,
            requests_in_all: tally.requests.get(),
        })
    })
}

#[derive(Default)]
struct Tally {
    requests: Cell<u64>,
    bytes: Cell<u64>,
}

async fn call_for_ever(call: Call, tally: Rc<Tally>) -> io::Result<()> {
    let mut connection = Connection::open(call).await?;
    loop {
        let count = |bytes| tally.bytes.set(tally.bytes.get() + bytes as u64);
        connection.ask(count).await?;
        tally.requests.set(tally.requests.get() + 1);
    }
}

/// Opens so many connections, has each answered once, and looks at something while all stay open.
pub(super) fn while_open<T: Send>(
    machine: &Namespace,
    call: Call,
    connections: usize,
    look: impl FnOnce() -> T + Send,
) -> Result<T, LabError> {
    run(machine, PATIENCE, async move || {
        let mut open = Vec::with_capacity(connections);
        while open.len() < connections {
            let next = OPENED_AT_ONCE.min(connections - open.len());
            let opened: Vec<_> = (0..next)
                .map(|_| tokio::task::spawn_local(opened(call)))
                .collect();
            for opened in opened {
                open.push(opened.await.map_err(io::Error::other)??);
            }
        }
        Ok(look())
    })
}

async fn opened(call: Call) -> io::Result<Connection> {
    let mut connection = Connection::open(call).await?;
    connection.ask(drop).await?;
    Ok(connection)
}

/// Calls once, and tells what was wrong with the answer.
pub(super) fn once(machine: &Namespace, call: Call) -> Result<io::Result<()>, LabError> {
    attempt(machine, Duration::ZERO, async move || {
        opened(call).await.map(drop)
    })
}

/// Does something on the machine that ought to take so long.
fn run<T: Send, F: Future<Output = io::Result<T>>>(
    machine: &Namespace,
    usually: Duration,
    work: impl FnOnce() -> F + Send,
) -> Result<T, LabError> {
    let outcome = attempt(machine, usually, work)?;
    outcome.map_err(|error| LabError::new(format!("the client got no answer: {error}")))
}

/// Does something that may fail and be tried again.
fn attempt<T: Send, F: Future<Output = io::Result<T>>>(
    machine: &Namespace,
    usually: Duration,
    work: impl FnOnce() -> F + Send,
) -> Result<io::Result<T>, LabError> {
    machine.inside(|| {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let local = LocalSet::new();
        let whole = local.run_until(async { timeout(usually + PATIENCE, work()).await });
        runtime.block_on(whole)?
    })
}
