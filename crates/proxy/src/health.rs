//! Whether the programs of this host that offer services are well, by asking them now and then, as
//! the policy says. Calls of one that is not are refused before they reach it, so that their sources
//! try another endpoint.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{HeaderValue, Request};
use model::address::HostAddresses;
use model::name::Name;
use model::rule::{HealthCheck, HealthProbe};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{interval, sleep, timeout};

use crate::body::ProxyBody;
use crate::local_apps::AppPort;
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

/// The services whose program here is not well; read by all threads.
#[derive(Debug, Default)]
pub(crate) struct Ailing {
    services: ArcSwap<BTreeSet<Name>>,
}

impl Ailing {
    /// Returns whether the program of a service is not well.
    pub(crate) fn contains(&self, service: &Name) -> bool {
        let services = self.services.load();
        !services.is_empty() && services.contains(service)
    }

    fn set(&self, service: &Name, is_ailing: bool) {
        if self.contains(service) == is_ailing {
            return;
        }
        if is_ailing {
            tracing::warn!(%service, "the program here fails its health checks: it gets no calls");
        } else {
            tracing::info!(%service, "the program here is well again");
        }
        let mut services = BTreeSet::clone(&self.services.load());
        if is_ailing {
            services.insert(service.clone());
        } else {
            services.remove(service);
        }
        self.services.store(Arc::new(services));
    }
}

/// What is asked for one service.
#[derive(Clone, PartialEq, Eq)]
struct Asking {
    port: AppPort,
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
                worker.ailing.set(service, false);
            }
            is_kept
        });
        for (service, asking) in wanted {
            asked.entry(service.clone()).or_insert_with(|| {
                let task = spawn_local(ask_on(Rc::clone(&worker), service, asking.clone()));
                (asking, task)
            });
        }
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
        let is_well = timeout(patience, ask(&worker, &asking))
            .await
            .unwrap_or(false);
        failures = if is_well { 0 } else { failures + 1 };
        if is_well || failures >= FAILURES {
            worker.ailing.set(&service, !is_well);
        }
        sleep(asking.check.interval.unwrap_or(INTERVAL)).await;
    }
}

async fn ask(worker: &Worker, asking: &Asking) -> bool {
    let Some(me) = my_addresses(&worker.snapshots.current()) else {
        return true;
    };
    match &asking.check.probe {
        HealthProbe::Tcp => worker.apps.connect(me, asking.port).await.is_ok(),
        HealthProbe::Http { path } => ask_http(worker, me, asking.port, path.as_str()).await,
        HealthProbe::Unit => {
            let mut units = asking
                .workloads
                .iter()
                .filter_map(|it| worker.surroundings.is_active(it))
                .peekable();
            // Where nobody knows of any, nothing speaks against it.
            units.peek().is_none() || units.any(|is_active| is_active)
        }
    }
}

async fn ask_http(worker: &Worker, me: HostAddresses, port: AppPort, path: &str) -> bool {
    let mut request = Request::new(ProxyBody::Empty);
    let Ok(target) = path.parse() else {
        return false;
    };
    *request.uri_mut() = target;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_static("localhost"));
    headers.insert(USER_AGENT, HeaderValue::from_static("mesh-health"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let handed = Milestone::ahead(worker.clock);
    let answer = worker.apps.request_alone(me, port, request, &handed).await;
    answer.is_ok_and(|answer| answer.status().is_success() || answer.status().is_redirection())
}
