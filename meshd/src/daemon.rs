//! Start order, wiring and shutdown of the daemon. Read this first.
//!
//! The state directory is held before anything else, so that no two daemons share it; the local
//! socket opens last, when the daemon can answer. On the way out everything is taken back that was
//! made, last things first.

use std::pin::pin;
use std::sync::Arc;

use agent::{AgentConfig, Names};
use arc_swap::ArcSwap;
use dataplane::ShardConfig;
use runtime::clock::{Clock, random_seed};
use runtime::local_socket::LocalSocket;
use runtime::process::{self, Termination};
use runtime::state_dir::StateDir;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::brain::{Brain, Input, Surroundings};
use crate::dns::{DnsServer, Forwarder, Responder};
use crate::local_api::{self, LocalApi};
use crate::machine::machine_id;
use crate::overlay::{OverlayHandle, OverlayParts};
use crate::packets::{PacketWorker, UdpSockets};
use crate::reload::Reloader;
use crate::resolver::HostFiles;
use crate::settings::{Flags, Settings};
use crate::stopping::{self, Stop};

/// News of the shard that may wait for the brain.
const EVENTS_MAX: usize = 4096;

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// A sentence that says what failed, why, and what to try.
pub async fn run(settings: Settings, flags: Flags) -> Result<(), String> {
    let clock = Clock::start();
    // Whoever may ask DNS by TCP holds a descriptor of ours meanwhile.
    process::raise_file_limit();
    // From the first moment, so that no signal ends the daemon without taking back what it made.
    let stop =
        Termination::listen().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let hangups = signal(SignalKind::hangup())
        .map_err(|error| format!("cannot listen for signals: {error}"))?;
    let state = Arc::new(StateDir::open(&settings.state_dir, "meshd").map_err(text)?);
    let shards = settings.interface.queues;
    let sockets = UdpSockets::bind_group(settings.listen_port, shards).map_err(text)?;
    let listen_port = sockets[0].port();
    let names: Arc<ArcSwap<Names>> = Arc::default();
    let forwarder: Arc<Forwarder> = Arc::default();
    let responder = Responder {
        names: Arc::clone(&names),
        forwarder: Some(Arc::clone(&forwarder)),
    };
    let dns = DnsServer::start(settings.dns_listen, responder.clone())
        .await
        .map_err(text)?;
    let shard = ShardConfig {
        mtu: settings.interface.mtu,
        ..ShardConfig::default()
    };
    let (news, events) = mpsc::channel(EVENTS_MAX);
    let worker = PacketWorker::start(shard, sockets, seed()?, clock, news)
        .map_err(|error| format!("cannot start the packet thread: {error}"))?;
    let (overlay, keeping) = OverlayHandle::start(OverlayParts {
        interface: settings.interface.clone(),
        worker: worker.handle(),
        state: Arc::clone(&state),
        names: Arc::clone(&names),
        dns: dns.address(),
        forwarder,
        files: HostFiles::default(),
        resolver: settings.resolver,
    })
    .map_err(text)?;
    let interface_mtu = settings.interface.mtu;
    let around = Surroundings {
        state,
        worker: worker.handle(),
        events,
        names,
        overlay: overlay.clone(),
        interface: settings.interface.name.clone(),
        nft_table: settings.interface.table.clone(),
        clock,
    };
    let (brain, handle) =
        Brain::new(agent_config(&settings, listen_port), seed()?, around).map_err(text)?;
    let api = LocalApi {
        brain: handle,
        dns: Arc::new(responder),
        overlay,
        interface_mtu,
    };
    let socket = LocalSocket::bind(&settings.socket).map_err(text)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        port = listen_port,
        shards,
        socket = %settings.socket.display(),
        dns = %dns.address(),
        "meshd is ready"
    );
    process::notify_ready("ready");
    let reloader = Reloader::new(flags, settings);
    let outcome = serve((brain, keeping), &api, &socket, stop, (hangups, reloader)).await;
    if outcome.is_err() {
        api.overlay.abandon().await;
    }
    worker.stop();
    outcome
}

async fn serve(
    (brain, mut keeping): (Brain, JoinHandle<()>),
    api: &LocalApi,
    socket: &LocalSocket,
    mut stop: Termination,
    (mut hangups, mut reloader): (Signal, Reloader),
) -> Result<(), String> {
    let mut thinking = tokio::spawn(brain.run());
    let mut serving = pin!(socket.serve(local_api::router(api.clone())));
    let handle = &api.brain;
    loop {
        tokio::select! {
            ended = &mut thinking => {
                return Err(match ended {
                    Ok(Err(error)) => format!("the daemon's brain ended: {error}"),
                    Ok(Ok(())) => "the daemon's brain ended".into(),
                    Err(panic) => format!("the daemon's brain panicked: {panic}"),
                });
            }
            ended = &mut keeping => {
                return Err(match ended {
                    Ok(()) => "what keeps the overlay ended".into(),
                    Err(panic) => format!("what keeps the overlay panicked: {panic}"),
                });
            }
            () = &mut serving => break,
            Some(()) = hangups.recv() => reloader.reload(handle).await,
            signal = stop.heard() => {
                tracing::info!(signal, "stopping");
                process::notify_stopping();
                break;
            }
        }
    }
    let stop = stopping::why().await;
    if stop == Stop::ToStartAgain {
        tracing::info!("what guards the overlay stays for the daemon that is started next");
    }
    let stopped = handle.ask(|done| Input::Stop(stop, done)).await;
    stopped.map_err(text)?;
    thinking.await.map_err(text)?.map_err(text)
}

pub(crate) fn agent_config(settings: &Settings, listen_port: u16) -> AgentConfig {
    AgentConfig {
        software_version: env!("CARGO_PKG_VERSION").into(),
        machine_id: machine_id(),
        listen_port,
        configured_endpoints: settings.endpoints.clone(),
        interface: settings.interface.name.clone(),
        mtu: settings.interface.mtu,
        rotate_key_every: settings.rotate_key_every(),
    }
}

fn seed() -> Result<[u8; 32], String> {
    random_seed().map_err(|error| format!("the kernel gives no randomness: {error}"))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
