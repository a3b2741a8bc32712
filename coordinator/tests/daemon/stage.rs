//! A state directory, and coordinators that run on it one after the other.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use coordinator::daemon::Daemon;
use coordinator::settings::{FleetChoices, Settings};
use model::admin::{AdminCredential, CoordinatorStatus, CreateToken, CreatedToken};
use model::name::Labels;
use runtime::api_client::ApiClient;
use runtime::logs::LogFormat;
use runtime::metrics::MetricsListen;
use runtime::tls;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use trust::JoinToken;

/// No test waits longer than this for an answer that is due at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for what has to happen.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it happens at once, or never")
}

/// A place for one fleet.
pub(crate) struct Place {
    root: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.root.path().join("state").join(name)
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            state_dir: self.root.path().join("state"),
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            advertise: Vec::new(),
            socket: self.root.path().join("coordinator.sock"),
            fleet: FleetChoices::default(),
            metrics: MetricsListen::Off,
            log_format: LogFormat::Text,
            log_level: "info".into(),
        }
    }

    pub(crate) async fn start(&self) -> Running {
        self.try_start(&self.settings()).await.unwrap()
    }

    pub(crate) async fn try_start(&self, settings: &Settings) -> Result<Running, String> {
        let daemon = Daemon::start(settings).await?;
        let (address, socket) = (daemon.address(), daemon.socket().to_owned());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(daemon.serve(async {
            let _ = stopped.await;
        }));
        Ok(Running {
            address,
            socket,
            stop,
            task,
        })
    }

    pub(crate) fn credential(&self) -> AdminCredential {
        let text = std::fs::read(self.file("admin.credential")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// The first admin, over TLS.
    pub(crate) fn operator(&self) -> ApiClient {
        let credential = self.credential();
        let config = tls::pinned_client(credential.root_pin);
        ApiClient::tls(credential.addresses, config, credential.secret)
    }
}

/// A coordinator that runs.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    socket: PathBuf,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), String>>,
}

impl Running {
    pub(crate) fn at(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn socket(&self) -> &std::path::Path {
        &self.socket
    }

    /// The operator on its own machine.
    pub(crate) fn local(&self) -> ApiClient {
        ApiClient::unix(&self.socket)
    }

    pub(crate) async fn status(&self) -> CoordinatorStatus {
        soon(self.local().get("/v1/status")).await.unwrap()
    }

    pub(crate) async fn token(&self) -> JoinToken {
        self.token_for(token_order()).await
    }

    pub(crate) async fn token_for(&self, create: CreateToken) -> JoinToken {
        let created: CreatedToken = soon(self.local().post("/v1/tokens", &create))
            .await
            .unwrap();
        created.token.parse().unwrap()
    }

    /// Stops it as SIGTERM does.
    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        soon(self.task).await.unwrap().unwrap();
    }
}

/// A token for anybody, for an hour.
pub(crate) fn token_order() -> CreateToken {
    CreateToken {
        labels: Labels::new(),
        uses: None,
        valid_for_secs: 3600,
        names: Vec::new(),
        comment: String::new(),
    }
}
