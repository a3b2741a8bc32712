//! The proxy as its program holds it: threads that share nothing but snapshots and counters.

use std::io;
use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use runtime::clock::Clock;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::catching;
use crate::config::ProxyConfig;
use crate::health;
use crate::report::Observer;
use crate::serving::Reception;
use crate::sessions::Acceptor;
use crate::snapshot::Snapshots;
use crate::surroundings::{Listeners, Surroundings};
use crate::worker::{Shared, Worker};

/// A proxy that runs. Dropped, it stops at once.
#[derive(Debug)]
pub struct Proxy {
    stop: watch::Sender<bool>,
    cut: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
    /// Closed by each thread when it is done.
    done: mpsc::Receiver<()>,
}

impl Proxy {
    /// Starts the threads, each with its own listeners.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(
        config: ProxyConfig,
        listeners: Listeners,
        surroundings: Arc<dyn Surroundings>,
        snapshots: Arc<Snapshots>,
        clock: Clock,
        observer: Arc<dyn Observer>,
    ) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let (cut, is_cut) = watch::channel(false);
        let (tell, done) = mpsc::channel();
        let shared = Shared {
            limits: config.limits,
            surroundings,
            snapshots,
            clock,
            observer,
            gauges: Arc::default(),
            outages: Arc::default(),
            ailing: Arc::default(),
            stop: stopped,
            seed: config.seed,
            own_ports: ports(&listeners),
            threads: config.threads.max(1),
        };
        let mut own = split(listeners, shared.threads);
        let mut threads = Vec::with_capacity(own.len());
        for (number, listeners) in own.drain(..).enumerate() {
            let (shared, is_cut, tell) = (shared.clone(), is_cut.clone(), tell.clone());
            let thread = std::thread::Builder::new().name(format!("proxy-{number}"));
            let (begun, outcome) = mpsc::channel();
            threads.push(thread.spawn(move || {
                // It stays on its thread, and so does all that it runs.
                let runtime = Builder::new_current_thread()
                    .enable_all()
                    .build_local(LocalOptions::default());
                let runtime = runtime.map_err(|error| begun.send(Err(error)));
                if let Ok(runtime) = runtime {
                    let _ = begun.send(Ok(()));
                    runtime.block_on(run(number, shared, listeners, is_cut));
                }
                drop(tell);
            })?);
            outcome.recv().unwrap_or(Ok(()))?;
        }
        Ok(Self {
            stop,
            cut,
            threads,
            done,
        })
    }

    /// Takes nothing new, lets what is under way end for as long as `drain`, then cuts it.
    pub fn stop(mut self, drain: Duration) {
        self.stop.send_replace(true);
        let until = Instant::now() + drain;
        // Nothing is ever sent: the channel closes with the last thread.
        let _ = self
            .done
            .recv_timeout(until.saturating_duration_since(Instant::now()));
        self.end();
    }

    fn end(&mut self) {
        self.stop.send_replace(true);
        self.cut.send_replace(true);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a proxy thread panicked");
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.end();
    }
}

/// What one thread accepts on.
#[derive(Default)]
struct Own {
    outgoing: Vec<StdListener>,
    streams: Vec<StdListener>,
}

fn ports(listeners: &Listeners) -> Arc<[u16]> {
    let all = [&listeners.outgoing, &listeners.streams];
    let sockets = all.into_iter().flatten().flatten();
    let ports = sockets.filter_map(|socket| socket.local_addr().ok());
    ports.map(|address| address.port()).collect()
}

fn split(listeners: Listeners, threads: usize) -> Vec<Own> {
    let mut own: Vec<Own> = std::iter::repeat_with(Own::default).take(threads).collect();
    for (number, sockets) in listeners.outgoing.into_iter().enumerate() {
        own[number % threads].outgoing.extend(sockets);
    }
    for (number, sockets) in listeners.streams.into_iter().enumerate() {
        own[number % threads].streams.extend(sockets);
    }
    own
}

/// One thread, from its begin to its end.
async fn run(number: usize, shared: Shared, own: Own, mut cut: watch::Receiver<bool>) {
    let worker = Worker::new(number, shared);
    tokio::select! {
        () = serve(&worker, own) => {}
        () = Rc::clone(&worker).follow() => {}
        () = health::watch(Rc::clone(&worker)), if number == 0 => {}
        _ = cut.wait_for(|cut| *cut) => {}
    }
    if let Some(datagrams) = &worker.datagrams {
        datagrams.close().await;
    }
}

/// Accepts until it is to stop, then waits until nothing is under way.
async fn serve(worker: &Rc<Worker>, own: Own) {
    let mut accepting = JoinSet::new();
    for listener in own.outgoing.into_iter().filter_map(listening) {
        accepting.spawn_local(catching::accept(Rc::clone(worker), listener));
    }
    let reception = Reception::new(Rc::clone(worker));
    let acceptor = Acceptor::new(
        Arc::clone(&worker.snapshots),
        reception,
        worker.stop.clone(),
    );
    for listener in own.streams.into_iter().filter_map(listening) {
        accepting.spawn_local(Rc::clone(&acceptor).serve(listener));
    }
    if let Some(datagrams) = &worker.datagrams {
        accepting.spawn_local(acceptor.serve_datagrams(Rc::clone(datagrams)));
    }
    let mut stop = worker.stop.clone();
    let _ = stop.wait_for(|stop| *stop).await;
    while accepting.join_next().await.is_some() {}
    while worker.connections.get() > 0 {
        tokio::time::sleep(DRAIN_LOOK).await;
    }
}

/// How often a thread that stops looks whether its connections are over.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

fn listening(listener: StdListener) -> Option<TcpListener> {
    let listener = listener
        .set_nonblocking(true)
        .and_then(|()| TcpListener::from_std(listener));
    listener
        .inspect_err(|error| tracing::error!(%error, "a listener of the proxy cannot be used"))
        .ok()
}
