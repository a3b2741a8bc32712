//! Start order, wiring and shutdown of the daemon. Read this first, then `serving`.
//!
//! The state directory is held before anything else, so that no two daemons share it; the local
//! socket opens last, when the daemon can answer. On the way out everything is taken back that was
//! made, last things first. A daemon that takes over from another gets what this one makes at its
//! start from that one, see `handover`.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use agent::AgentConfig;
use arc_swap::ArcSwap;
use dataplane::{Event, ShardConfig, Shift};
use proxy::Listeners;
use runtime::clock::{Clock, random_seed};
use runtime::local_socket::LocalSocket;
use runtime::metrics::Trouble;
use runtime::process::{self, Termination};
use runtime::state_dir::StateDir;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::brain::{Brain, Staged, Surroundings};
use crate::dns::{DnsServer, DnsSockets, DnsTally, Forwarder, Responder};
use crate::drops::KernelDrops;
use crate::handover::{self, Kept, Link, Predecessor, Program};
use crate::local_api::{LocalApi, Reloads};
use crate::machine::machine_id;
use crate::metrics::{MetricsSource, Own};
use crate::mtu::Mtu;
use crate::overlay::{Inherited, OverlayHandle, OverlayParts};
use crate::packets::{Before, PacketWorker, UdpSockets};
use crate::reload::Reloader;
use crate::resolver::HostFiles;
use crate::services::{self, ServicesHandle};
use crate::serving::{Ended, Serving};
use crate::settings::{Flags, Settings};
use crate::stored;

/// News of the shard that may wait for the brain.
const EVENTS_MAX: usize = 4096;
/// Requests for a reload that may wait for one that is under way.
const RELOADS_MAX: usize = 16;

/// What every daemon begins with.
pub(crate) struct Start {
    pub(crate) settings: Settings,
    pub(crate) flags: Flags,
    pub(crate) clock: Clock,
    pub(crate) stop: Termination,
    pub(crate) hangups: Signal,
    pub(crate) program: Program,
}

/// What a daemon consists of before it serves, whether it made or inherited it.
pub(crate) struct Parts {
    pub(crate) start: Start,
    pub(crate) state: Arc<StateDir>,
    pub(crate) packets: Packets,
    pub(crate) dns: DnsSockets,
    pub(crate) socket: LocalSocket,
    pub(crate) staged: Staged,
    pub(crate) inherited: Inherited,
    /// Where calls of services come in, if that is bound already.
    pub(crate) listeners: Option<Listeners>,
    /// The version of the daemon that this one has taken over from.
    pub(crate) from: Option<String>,
}

/// The packet threads, with what they were started with.
pub(crate) struct Packets {
    pub(crate) worker: PacketWorker,
    pub(crate) listen_port: u16,
    events: mpsc::Receiver<Event>,
    sockets: Vec<(OwnedFd, Option<OwnedFd>)>,
    kernel_drops: Arc<KernelDrops>,
    shift: Shift,
}

/// Runs the daemon until it is told to stop, or has handed over.
///
/// # Errors
/// A sentence that says what failed, why, and what to try.
pub async fn run(settings: Settings, flags: Flags) -> Result<(), String> {
    let program =
        Program::running().map_err(|error| format!("cannot find this program's file: {error}"))?;
    let clock = Clock::start();
    // Whoever may ask DNS by TCP holds a descriptor of ours meanwhile.
    process::raise_file_limit();
    // From the first moment, so that no signal ends the daemon without taking back what it made.
    let listening = |error| format!("cannot listen for signals: {error}");
    let start = Start {
        stop: Termination::listen().map_err(listening)?,
        hangups: signal(SignalKind::hangup()).map_err(listening)?,
        settings,
        flags,
        clock,
        program,
    };
    match start.flags.take_over {
        true => handover::run(start).await,
        false => serve(make(start).await?, None).await,
    }
}

/// Makes everything anew, but for what the service manager has kept through a crash.
async fn make(start: Start) -> Result<Parts, String> {
    let settings = &start.settings;
    let state = Arc::new(StateDir::open(&settings.state_dir, "meshd").map_err(text)?);
    let mut stored = stored::take(settings).await;
    let bound = stored.take_or_bind(settings.listen_port, settings.interface.queues);
    let sockets = bound.await.map_err(text)?;
    let dns = DnsSockets::bind(settings.dns_listen).await.map_err(text)?;
    let packets = Packets::start(settings, sockets, start.clock, Shift::default(), None)?;
    let config = agent_config(settings, packets.listen_port);
    let staged = Staged::load(&state, config, seed()?, start.clock).map_err(text)?;
    let socket = LocalSocket::bind(&settings.socket).map_err(text)?;
    let inherited = Inherited {
        device: stored.device,
        dns: Vec::new(),
    };
    Ok(Parts {
        state,
        packets,
        dns,
        socket,
        staged,
        inherited,
        listeners: None,
        from: None,
        start,
    })
}

/// Wires the parts together and serves. `link` leads to the daemon before, while it still opens what
/// was sealed for it.
///
/// # Errors
/// A sentence that says what failed, why, and what to try.
pub(crate) async fn serve(parts: Parts, link: Option<Link>) -> Result<(), String> {
    let Parts { start, packets, .. } = parts;
    let settings = start.settings;
    let worker = packets.worker.handle();
    let names = Arc::new(ArcSwap::from(parts.staged.names()));
    let forwarder: Arc<Forwarder> = Arc::default();
    let tally: Arc<DnsTally> = Arc::default();
    let responder = Responder {
        names: Arc::clone(&names),
        forwarder: Some(Arc::clone(&forwarder)),
        tally: Arc::clone(&tally),
    };
    let given_dns = parts.dns.try_clone().map_err(text)?;
    let dns = DnsServer::serve(parts.dns, responder.clone()).map_err(text)?;
    let (overlay, keeping) = OverlayHandle::start(OverlayParts {
        interface: settings.interface.clone(),
        interception: services::caught_from_the_start(&settings.services, parts.staged.fleet()),
        worker: worker.clone(),
        state: Arc::clone(&parts.state),
        names: Arc::clone(&names),
        dns: dns.address(),
        dns_tally: Arc::clone(&tally),
        forwarder,
        files: HostFiles::default(),
        resolver: settings.resolver,
        inherited: parts.inherited,
    })
    .map_err(text)?;
    let services = ServicesHandle::start(
        settings.services.clone(),
        overlay.clone(),
        Arc::clone(worker.streams()),
        start.clock,
        parts.listeners,
        worker.clone(),
    )
    .map_err(text)?;
    let metrics_trouble = Trouble::default();
    let (brain, handle) = Brain::new(
        parts.staged,
        Surroundings {
            state: Arc::clone(&parts.state),
            worker: worker.clone(),
            events: packets.events,
            names,
            services: services.clone(),
            overlay: overlay.clone(),
            interface: settings.interface.name.clone(),
            nft_table: settings.interface.table.clone(),
            kernel_drops: Arc::clone(&packets.kernel_drops),
            metrics_trouble: metrics_trouble.clone(),
            clock: start.clock,
        },
    );
    let metrics = MetricsSource {
        brain: handle.clone(),
        worker: worker.clone(),
        overlay: overlay.clone(),
        dns: tally,
        services: services.clone(),
        own: Arc::new(Own {
            started: start.clock.now().unix,
            taken_over_from: parts.from.clone(),
            hand_overs_failed: AtomicU64::new(0),
            trouble: metrics_trouble,
            kernel_drops: packets.kernel_drops,
        }),
    };
    let (metrics_setting, metrics_listen) = watch::channel(settings.metrics);
    let (reloads, asked) = mpsc::channel(RELOADS_MAX);
    let api = LocalApi {
        brain: handle.clone(),
        dns: Arc::new(responder),
        overlay: overlay.clone(),
        interface_mtu: settings.interface.mtu,
        reloads: Reloads::new(reloads),
        metrics,
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        port = packets.listen_port,
        shards = settings.interface.queues,
        socket = %settings.socket.display(),
        dns = %dns.address(),
        taken_over_from = parts.from,
        "meshd is ready"
    );
    stored::store_sockets(&packets.sockets);
    process::notify_ready("ready");
    let predecessor = Predecessor {
        program: start.program,
        brain: handle,
        overlay: overlay.clone(),
        worker,
        state: parts.state,
        api: parts.socket.sharer(),
        dns: given_dns,
        sockets: packets.sockets,
        kept: kept(&settings, packets.listen_port),
        shift: packets.shift,
    };
    let serving = Serving {
        api,
        socket: parts.socket,
        dns,
        stop: start.stop,
        hangups: start.hangups,
        reloader: Reloader::new(start.flags, settings, metrics_setting),
        metrics_listen,
        asked,
        predecessor: Arc::new(predecessor),
        services,
        before: link,
    };
    let outcome = serving.run(brain, keeping).await;
    match &outcome {
        Ok(Ended::Stopped | Ended::HandedOver) => {}
        Err(_) => overlay.abandon().await,
    }
    packets.worker.stop();
    outcome.map(drop)
}

impl Packets {
    /// Starts the packet threads on these sockets; with `before`, behind those of another daemon.
    pub(crate) fn start(
        settings: &Settings,
        sockets: Vec<UdpSockets>,
        clock: Clock,
        shift: Shift,
        before: Option<Before>,
    ) -> Result<Self, String> {
        let listen_port = sockets[0].port();
        let shared = sockets.iter().map(UdpSockets::share);
        let shared = shared.collect::<std::io::Result<Vec<_>>>().map_err(text)?;
        let counted = sockets.iter().flat_map(UdpSockets::drops).collect();
        let kernel_drops = KernelDrops::new(settings.interface.name.clone(), counted);
        let shard = ShardConfig {
            mtu: settings.interface.mtu,
            assumed_mtu: settings.mtu.assumed(),
            shift,
            ..ShardConfig::default()
        };
        let (news, events) = mpsc::channel(EVENTS_MAX);
        let worker = PacketWorker::start_behind(before, shard, sockets, seed()?, clock, news)
            .map_err(|error| format!("cannot start the packet thread: {error}"))?;
        Ok(Self {
            worker,
            listen_port,
            events,
            sockets: shared,
            kernel_drops: Arc::new(kernel_drops),
            shift,
        })
    }
}

fn kept(settings: &Settings, listen_port: u16) -> Kept {
    Kept {
        state_dir: settings.state_dir.clone(),
        socket: settings.socket.clone(),
        interface: settings.interface.name.clone(),
        nft_table: settings.interface.table.clone(),
        mtu: settings.interface.mtu,
        mtu_is_auto: Some(settings.mtu == Mtu::Auto),
        shards: settings.interface.queues,
        listen_port,
        dns_listen: settings.dns_listen,
    }
}

pub(crate) fn agent_config(settings: &Settings, listen_port: u16) -> AgentConfig {
    AgentConfig {
        software_version: env!("CARGO_PKG_VERSION").into(),
        machine_id: machine_id(),
        listen_port,
        stream_port: settings.services.port,
        configured_endpoints: settings.endpoints.clone(),
        interface: settings.interface.name.clone(),
        mtu: settings.interface.mtu,
        offers_aes_256_gcm: settings.cipher.offers_aes_256_gcm(),
        rotate_key_every: settings.rotate_key_every(),
    }
}

fn seed() -> Result<[u8; 32], String> {
    random_seed().map_err(|error| format!("the kernel gives no randomness: {error}"))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
