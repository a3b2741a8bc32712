//! Start order, wiring and shutdown of the coordinator. Read this first.
//!
//! The state directory is held before anything else, so that no two coordinators share it, and the
//! port is taken next, so that a first start knows where hosts will find it. The fleet is founded
//! or taken up; then both doors open: the TLS port for hosts and operators, the local socket.
//!
//! On the way out hosts are told when to come back, requests under way are answered, and the store
//! is closed last.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use fleet::{Fleet, FleetConfig};
use model::record::TrustStatement;
use runtime::clock::{Clock, random_seed};
use runtime::local_socket::LocalSocket;
use runtime::metrics::{MetricsListen, Trouble};
use runtime::process::Termination;
use runtime::state_dir::StateDir;
use runtime::tls::ClientRoots;
use runtime::tls_server::TlsServer;
use runtime::{process, tls};
use tokio::sync::{mpsc, oneshot, watch};
use trust::{Authority, TrustAnchors};

use crate::authority_keeper::AuthorityKeeper;
use crate::backup::BackupSource;
use crate::brain::{Brain, BrainError, BrainHandle, Input};
use crate::founding::{self, Founded};
use crate::metrics::{self, MetricsSource};
use crate::server_certificate::ServerCertificate;
use crate::settings::Settings;
use crate::{
    addresses, admin, authority_file, authority_keeper, backup, control, overlap, watchdog,
};

/// The port of the control channel and the admin API.
pub(crate) const DEFAULT_PORT: u16 = 7443;

/// A coordinator that has started and holds what it needs; it answers once it serves.
pub struct Daemon {
    brain: Brain,
    handle: BrainHandle,
    server: TlsServer,
    keeper: AuthorityKeeper,
    socket: LocalSocket,
    socket_path: PathBuf,
    backup: BackupSource,
    metrics: MetricsSource,
    metrics_listen: MetricsListen,
    metrics_trouble: Trouble,
    statement: TrustStatement,
    pin: String,
    // Last, so that it is let go last.
    _state: Arc<StateDir>,
}

/// Runs the coordinator until it is told to stop.
///
/// # Errors
/// A sentence that says what failed, why, and what to try.
pub async fn run(settings: Settings) -> Result<(), String> {
    process::raise_file_limit();
    let mut termination =
        Termination::listen().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let daemon = tokio::select! {
        daemon = Daemon::start(&settings) => daemon?,
        // A start may be cut off anywhere: the next one goes on.
        _ = termination.heard() => return Ok(()),
    };
    let stop = async {
        let signal = termination.heard().await;
        tracing::info!(signal, "stopping");
        process::notify_stopping();
    };
    daemon.serve(stop).await
}

impl Daemon {
    /// Starts everything up to the opening of the doors.
    ///
    /// # Errors
    /// A sentence that says what failed, why, and what to try.
    pub async fn start(settings: &Settings) -> Result<Self, String> {
        let clock = Clock::start();
        let state = StateDir::open(&settings.state_dir, "mesh-coordinator").map_err(text)?;
        let server = bind(settings.listen).await?;
        let advertise = advertised(settings, server.address());
        let founded = founding::take_up(&state, &settings.fleet, &advertise, clock.now()).await?;
        let Founded {
            authority: file,
            store,
            listing,
            credential,
        } = founded;
        // Found addresses only: what an operator says is looked at below, and refused by name.
        let advertise = match fleet::stored_overlay(&listing.entries) {
            Some(overlay) if settings.advertise.is_empty() => {
                addresses::outside(overlay, advertise, server.address())
            }
            _ => advertise,
        };
        let keys = file.authority()?;
        let config = FleetConfig::new(env!("CARGO_PKG_VERSION"), advertise.clone());
        let fleet = Fleet::new(
            config,
            file.authority()?,
            listing.entries,
            listing.revision,
            seed()?,
            clock.now(),
        );
        let fleet = fleet.map_err(text)?;
        let statement = statement(&fleet, &keys, clock)?;
        let listed = keys.limited_to(&statement.root_certificates);
        let authority = listed.ok_or("the authority's file has no key of the fleet")?;
        let (roots, pin) = (
            ClientRoots::new(authority.root_certificates()),
            authority.root_pin(),
        );
        settings.fleet.check_against(&statement)?;
        for prefix in founding::prefixes(statement.overlay) {
            overlap::refuse_advertised(prefix, &settings.advertise)?;
        }
        let certificate =
            ServerCertificate::issue(authority, statement.fleet_name.clone(), &advertise)?;
        let backup = BackupSource {
            fleet: statement.fleet_name.clone(),
            store: Arc::downgrade(&store),
            authority: state.file(authority_file::FILE),
            clock,
        };
        let store_file = store.path().to_owned();
        let (brain, handle) = Brain::new(fleet, store, clock);
        let metrics = MetricsSource {
            brain: handle.clone(),
            tally: brain.tally(),
            own: Arc::new(metrics::Own {
                started: clock.now().unix,
                census: server.census(),
                store: store_file,
                recent: metrics::Recent::default(),
            }),
        };
        let (ordering, orders) = mpsc::channel(authority_keeper::ORDERS_MAX);
        let state = Arc::new(state);
        let keeper = AuthorityKeeper {
            state: Arc::clone(&state),
            fleet: statement.fleet_name.clone(),
            roots,
            certificate,
            advertise,
            orders,
            brain: handle.clone(),
            has_left_over: false,
        };
        keeper.refresh_credential(pin);
        if settings.advertise.is_empty() {
            tracing::info!(
                advertise = keeper.advertise.join(" "),
                "no --advertise is set: hosts are told these addresses"
            );
        }
        let socket = LocalSocket::bind(&settings.socket).map_err(text)?;
        if let Some(path) = credential {
            tracing::info!(
                fleet = %statement.fleet_name,
                credential = %path.display(),
                "made a new fleet; the credential of its first admin is for `meshctl --credential`, keep it secret"
            );
        }
        let metrics_trouble = Trouble::default();
        Ok(Self {
            metrics_listen: settings.metrics,
            metrics_trouble: metrics_trouble.clone(),
            brain: brain
                .with_authority(ordering)
                .with_disbelief(server.disbelief())
                .with_metrics_trouble(metrics_trouble),
            handle,
            server,
            keeper,
            socket,
            socket_path: settings.socket.clone(),
            backup,
            metrics,
            statement,
            pin: pin.to_string(),
            _state: state,
        })
    }

    /// Returns where hosts and operators connect.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Returns where local operators connect.
    pub fn socket(&self) -> &Path {
        &self.socket_path
    }

    /// Answers until `stop`, then takes leave of everybody.
    ///
    /// # Errors
    /// The store cannot be relied on any more.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Result<(), String> {
        let tls_config = tls::server(
            self.keeper.certificate.identity(),
            Arc::clone(&self.keeper.roots),
        );
        let (close_door, door_closes) = oneshot::channel::<()>();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            fleet = %self.statement.fleet_name,
            listen = %self.server.address(),
            socket = %self.socket_path.display(),
            pin = self.pin,
            "mesh-coordinator is ready"
        );
        let mut thinking = tokio::spawn(self.brain.run());
        let serving = tokio::spawn(self.server.serve(
            tls_config,
            Arc::clone(&self.keeper.roots),
            public_router(self.handle.clone()),
            async {
                // Also closes when this function is given up.
                let _ = door_closes.await;
            },
        ));
        let local = admin::router(self.handle.clone()).merge(backup::router(self.backup));
        let local = local.merge(metrics::router(self.metrics.clone()));
        // Nobody changes it while the coordinator runs.
        let (_setting, listen) = watch::channel(self.metrics_listen);
        process::notify_ready("ready");
        tokio::select! {
            ended = &mut thinking => return Err(last_words(ended)),
            () = watchdog::run(self.handle.clone()) => {}
            () = self.socket.serve(local) => {}
            () = self.keeper.run() => {}
            () = runtime::metrics::serve(listen, self.metrics, self.metrics_trouble) => {}
            () = stop => {}
        }
        drop(close_door);
        self.handle.ask(Input::Stop).await.map_err(text)?;
        serving.await.map_err(text)?;
        match thinking.await {
            Ok(Ok(())) => Ok(()),
            ended => Err(last_words(ended)),
        }
    }
}

/// The TLS port: calls of hosts, and the admin API.
fn public_router(handle: BrainHandle) -> Router {
    Router::new()
        .route_service(control::PATH, control::service(handle.clone()))
        .merge(admin::router(handle))
}

fn last_words(ended: Result<Result<(), BrainError>, tokio::task::JoinError>) -> String {
    match ended {
        Ok(Err(error)) => error.to_string(),
        Ok(Ok(())) => "the coordinator's brain ended".into(),
        Err(panic) => format!("the coordinator's brain panicked: {panic}"),
    }
}

/// All addresses, both families where the machine has both.
async fn bind(listen: Option<SocketAddr>) -> Result<TlsServer, String> {
    let address = match listen {
        Some(address) => address,
        None => {
            let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, DEFAULT_PORT));
            match TlsServer::bind(both).await {
                Ok(server) => return Ok(server),
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                    return Err(cannot_listen(both, &error));
                }
                Err(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, DEFAULT_PORT)),
            }
        }
    };
    TlsServer::bind(address)
        .await
        .map_err(|error| cannot_listen(address, &error))
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> String {
    format!(
        "cannot listen on {address}: {error}; is another program there? (another --listen lets two run side by side)"
    )
}

fn advertised(settings: &Settings, bound: SocketAddr) -> Vec<String> {
    if !settings.advertise.is_empty() {
        return settings.advertise.clone();
    }
    addresses::advertised(bound)
}

/// What the fleet says of itself, believed by its own authority.
fn statement(fleet: &Fleet, keys: &Authority, clock: Clock) -> Result<TrustStatement, String> {
    let trust = fleet.describe(clock.now()).trust;
    let pins = keys.root_pins();
    let believed = pins.iter().rev();
    let believed = believed.map(|pin| TrustAnchors::from_statement(&trust, pin));
    let believed = believed.reduce(|best, next| if best.is_ok() { best } else { next });
    let (_, statement) = believed.ok_or("there is no root")?.map_err(text)?;
    Ok(statement)
}

fn seed() -> Result<[u8; 32], String> {
    random_seed().map_err(|error| format!("the kernel gives no randomness: {error}"))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
