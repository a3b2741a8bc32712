//! Whether the programs of this host that offer services are well, by asking them now and then, as
//! the policy says. Calls of one that is not are refused before they reach it, so that their sources
//! try another endpoint.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{HeaderValue, Request};
use model::address::HostAddresses;
use model::name::Name;
use model::rule::{HealthCheck, HealthProbe, Protocol};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{interval, sleep, timeout};

use crate::body::ProxyBody;
use crate::local_apps::{AppPort, Speech};
use crate::report::CheckSeen;
use crate::snapshot::Snapshot;
use crate::stages::Milestone;
use crate::worker::{Worker, my_addresses};

/// How often a program is asked, unless the policy says otherwise.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long it may take to answer, unless the policy says otherwise.
const PATIENCE: Duration = Duration::from_secs(1);
/// Failures in a row after which it is not well: one may be chance.
const FAILURES: u32 = 2;
/// How often it is looked whether there are other services to ask.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// The services whose program here is not well, and why; read by all threads.
#[derive(Debug, Default)]
pub(crate) struct Ailing {
    services: ArcSwap<BTreeMap<Name, String>>,
}

impl Ailing {
    /// Returns whether the program of a service is not well.
    pub(crate) fn contains(&self, service: &Name) -> bool {
        let services = self.services.load();
        !services.is_empty() && services.contains_key(service)
    }

    /// Takes why the program of a service is not well; `None`: it is.
    fn set(&self, service: &Name, failing: Option<String>) {
        let before = self.services.load();
        let before = before.get(service);
        if before == failing.as_ref() {
            return;
        }
        match (&failing, before) {
            (Some(why), None) => {
                tracing::warn!(%service, why, "the program here fails its health checks: it gets no calls");
            }
            (None, Some(_)) => tracing::info!(%service, "the program here is well again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        let mut services = BTreeMap::clone(&self.services.load());
        match failing {
            Some(why) => services.insert(service.clone(), why),
            None => services.remove(service),
        };
        self.services.store(Arc::new(services));
    }

    fn seen(&self, service: &Name) -> CheckSeen {
        CheckSeen {
            service: service.clone(),
            failing: self.services.load().get(service).cloned(),
        }
    }
}

/// What is asked for one service.
#[derive(Clone, PartialEq, Eq)]
struct Asking {
    port: AppPort,
    speech: Speech,
    check: HealthCheck,
    workloads: Vec<Name>,
}

/// Asks until the thread ends; one thread of a proxy does so.
pub(crate) async fn watch(worker: Rc<Worker>) {
    let mut asked: BTreeMap<Name, (Asking, JoinHandle<()>)> = BTreeMap::new();
    let mut look = interval(LOOK_INTERVAL);
    loop {
        look.tick().await;
        let wanted = wanted(&worker.snapshots.current());
        asked.retain(|service, (asking, task)| {
            let is_kept = wanted.get(service) == Some(asking);
            if !is_kept {
                task.abort();
                worker.ailing.set(service, None);
            }
            is_kept
        });
        for (service, asking) in wanted {
            asked.entry(service.clone()).or_insert_with(|| {
                let task = spawn_local(ask_on(Rc::clone(&worker), service, asking.clone()));
                (asking, task)
            });
        }
        let checks = asked.keys().map(|service| worker.ailing.seen(service));
        worker.observer.checks_seen(checks.collect());
    }
}

/// Returns the services that this host offers and that are to be asked.
fn wanted(snapshot: &Snapshot) -> BTreeMap<Name, Asking> {
    let catalogue = &snapshot.catalogue;
    let here = catalogue
        .services
        .values()
        .filter(|it| it.endpoints.contains(&catalogue.me));
    here.filter_map(|it| {
        let asking = Asking {
            port: AppPort {
                number: it.service.port,
                is_service: true,
            },
            speech: match it.service.protocol {
                Protocol::Grpc => Speech::Http2,
                _ => Speech::Http1,
            },
            check: it.service.settings.health.clone()?,
            workloads: it.service.workloads.clone(),
        };
        Some((it.service.name.clone(), asking))
    })
    .collect()
}

async fn ask_on(worker: Rc<Worker>, service: Name, asking: Asking) {
    let patience = asking.check.timeout.unwrap_or(PATIENCE);
    let mut failures = 0;
    loop {
        let found = timeout(patience, ask(&worker, &asking)).await;
        let found = found.unwrap_or_else(|_| Err(format!("no answer within {patience:?}")));
        failures = if found.is_ok() { 0 } else { failures + 1 };
        if found.is_ok() || failures >= FAILURES {
            let check = &asking.check.probe;
            let failing = found.err().map(|why| format!("{}: {why}", Words(check)));
            worker.ailing.set(&service, failing);
        }
        sleep(asking.check.interval.unwrap_or(INTERVAL)).await;
    }
}

/// A check as the policy has it.
struct Words<'p>(&'p HealthProbe);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            HealthProbe::Tcp => f.write_str("tcp"),
            HealthProbe::Http { path } => write!(f, "http {}", path.as_str()),
            HealthProbe::Unit => f.write_str("unit"),
        }
    }
}

/// Asks once; the error is what is wrong.
async fn ask(worker: &Worker, asking: &Asking) -> Result<(), String> {
    let Some(me) = my_addresses(&worker.snapshots.current()) else {
        return Ok(());
    };
    let port = asking.port;
    match &asking.check.probe {
        HealthProbe::Tcp => {
            let connected = worker.apps.connect(me, port).await;
            let failed = |error| format!("port {} takes no connection: {error}", port.number);
            connected.map(drop).map_err(failed)
        }
        HealthProbe::Http { path } => ask_http(worker, me, asking, path.as_str()).await,
        HealthProbe::Unit => {
            let mut units = asking
                .workloads
                .iter()
                .filter_map(|it| worker.surroundings.is_active(it))
                .peekable();
            // Where nobody knows of any, nothing speaks against it.
            if units.peek().is_none() || units.any(|is_active| is_active) {
                return Ok(());
            }
            Err("systemd runs no unit of it".to_owned())
        }
    }
}

async fn ask_http(
    worker: &Worker,
    me: HostAddresses,
    asking: &Asking,
    path: &str,
) -> Result<(), String> {
    let mut request = Request::new(ProxyBody::Empty);
    let target = path.parse();
    *request.uri_mut() = target.map_err(|error| format!("this is no path: {error}"))?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_static("localhost"));
    headers.insert(USER_AGENT, HeaderValue::from_static("mesh-health"));
    let (port, handed) = (asking.port, Milestone::ahead(worker.clock));
    let answer = if asking.speech == Speech::Http1 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        worker.apps.request_alone(me, port, request, &handed).await
    } else {
        let asked = worker
            .apps
            .request(me, port, asking.speech, request, &handed);
        Box::pin(asked).await
    };
    let status = answer.map_err(|error| error.to_string())?.status();
    if status.is_success() || status.is_redirection() {
        return Ok(());
    }
    Err(format!("answered {}", status.as_u16()))
}
