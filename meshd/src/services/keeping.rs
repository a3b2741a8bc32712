//! The task that keeps the proxy to what the brain knows: it starts it when there is something to call
//! or to offer, gives it each new snapshot, and has caught what that snapshot names.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use model::address::HostAddresses;
use model::catalogue::{Catalogue, StreamIdentity};
use model::rule::HealthProbe;
use policy::Gate;
use proxy::{Listeners, Observatory, Proxy, ProxyConfig, Snapshot, Snapshots, Surroundings};
use runtime::clock::{Clock, random_seed};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::machine::Machine;
use super::units::{Units, UnitsWanted};
use super::{ServiceSettings, sockets};
use crate::linux::interception::Interception;
use crate::overlay::OverlayHandle;
use crate::packets::StreamPort;

/// How long it is waited before what failed is tried again.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// The lowest port that every user may listen on (ip-sysctl.rst).
const UNPRIVILEGED_PORTS: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";

/// Services and hosts, and what may be called; `None`: this host is no member.
pub(crate) type Fleet = Option<(Arc<Catalogue>, Arc<Gate>)>;

/// What the brain knows; replaced whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// `None`: it has not said yet, and everything stays as it is.
    pub(crate) fleet: Option<Fleet>,
    /// What this host shows to others.
    pub(crate) identity: Option<Arc<StreamIdentity>>,
}

/// What becomes of the proxy.
pub(super) enum Order {
    /// It accepts nothing any more, and what is under way has so long to end; answered when it has.
    Retire(Duration, oneshot::Sender<()>),
}

/// The task's state.
pub(super) struct Keeping {
    settings: ServiceSettings,
    overlay: OverlayHandle,
    clock: Clock,
    machine: Arc<Machine>,
    units: Units,
    /// Bound by the start of this daemon, as when it takes over from another.
    listeners: Option<Listeners>,
    running: Option<(Proxy, Arc<Snapshots>)>,
    alarms: Arc<ArcSwap<Vec<String>>>,
    /// Sees the calls.
    observatory: Arc<Observatory>,
    failure: Option<String>,
}

impl Keeping {
    pub(super) fn new(
        settings: ServiceSettings,
        overlay: OverlayHandle,
        streams: Arc<StreamPort>,
        clock: Clock,
        listeners: Option<Listeners>,
        alarms: Arc<ArcSwap<Vec<String>>>,
        observatory: Arc<Observatory>,
    ) -> std::io::Result<Self> {
        let units = Units::start();
        Ok(Self {
            machine: Machine::new(settings.intercept_port, units.states(), streams)?,
            units,
            settings,
            overlay,
            clock,
            listeners,
            running: None,
            alarms,
            observatory,
            failure: None,
        })
    }

    /// Runs until it is told to retire, or until nobody is left to tell it anything.
    pub(super) async fn run(
        mut self,
        mut known: watch::Receiver<Known>,
        mut orders: tokio::sync::mpsc::Receiver<Order>,
    ) {
        loop {
            let now = known.borrow_and_update().clone();
            self.bring_about(now).await;
            self.tell_alarms();
            let again = Instant::now() + TRY_AGAIN_AFTER;
            tokio::select! {
                changed = known.changed() => if changed.is_err() {
                    return self.retire(Duration::ZERO).await;
                },
                order = orders.recv() => {
                    let Some(Order::Retire(drain, done)) = order else {
                        return self.retire(Duration::ZERO).await;
                    };
                    self.retire(drain).await;
                    let _ = done.send(());
                    return;
                }
                () = self.units.alarm_changed() => {}
                () = sleep_until(again), if self.failure.is_some() => {}
            }
        }
    }

    async fn bring_about(&mut self, known: Known) {
        let Some(fleet) = known.fleet else {
            return;
        };
        let Some((catalogue, gate)) = fleet else {
            // What is caught goes first: nobody is to be brought to a proxy that is gone.
            self.catch(Interception::new(self.settings.intercept_port, [], []))
                .await;
            self.machine.set_addresses(None);
            self.units.want(UnitsWanted::default());
            self.failure = None;
            return self.retire(Duration::ZERO).await;
        };
        let me = catalogue.hosts.get(&catalogue.me);
        self.machine.set_addresses(me.map(|me| me.addresses));
        self.units.want(units_wanted(&catalogue, &gate));
        let caught = caught(self.settings.intercept_port, &catalogue, &gate);
        self.observatory
            .follow(Arc::clone(&catalogue), Arc::clone(&gate));
        let snapshot = Snapshot {
            catalogue,
            gate,
            identity: known.identity,
        };
        // The proxy knows what is caught before it is.
        self.serve(snapshot);
        self.catch(caught).await;
    }

    fn serve(&mut self, snapshot: Snapshot) {
        if let Some((_, snapshots)) = &self.running {
            return snapshots.replace(snapshot);
        }
        if !has_calls(&snapshot.catalogue) {
            return;
        }
        let started = self.start(snapshot);
        let failure = started.err().map(|why| {
            format!(
                "calls of services are refused: {why}; it is tried again every {} s",
                TRY_AGAIN_AFTER.as_secs()
            )
        });
        if let Some(why) = failure.as_ref().filter(|_| failure != self.failure) {
            tracing::error!("{why}");
        }
        self.failure = failure;
    }

    fn start(&mut self, snapshot: Snapshot) -> Result<(), String> {
        let listeners = match self.listeners.take() {
            Some(listeners) => listeners,
            None => sockets::bind(&self.settings).map_err(|error| error.to_string())?,
        };
        let seed = random_seed().map_err(|error| error.to_string())?;
        let seed = seed.first_chunk().copied().map_or(0, u64::from_ne_bytes);
        let config = ProxyConfig {
            threads: self.settings.threads,
            seed,
            ..ProxyConfig::default()
        };
        let snapshots = Snapshots::new(snapshot);
        let machine: Arc<dyn Surroundings> = Arc::clone(&self.machine) as _;
        let proxy = Proxy::start(
            config,
            listeners,
            machine,
            Arc::clone(&snapshots),
            self.clock,
            Arc::clone(&self.observatory) as _,
        );
        let proxy = proxy.map_err(|error| format!("no threads: {error}"))?;
        tracing::info!(
            port = self.settings.port,
            threads = self.settings.threads,
            "calls of services are carried"
        );
        self.running = Some((proxy, snapshots));
        Ok(())
    }

    async fn catch(&mut self, interception: Interception) {
        self.overlay.intercept(interception).await;
    }

    async fn retire(&mut self, drain: Duration) {
        self.listeners = None;
        let Some((proxy, _)) = self.running.take() else {
            return;
        };
        // It waits for threads of its own.
        let _ = tokio::task::spawn_blocking(move || proxy.stop(drain)).await;
    }

    fn tell_alarms(&self) {
        let mut alarms: Vec<String> = self.failure.iter().cloned().collect();
        if self.running.is_some() {
            alarms.extend(port_alarm(self.settings.intercept_port));
            alarms.extend(self.machine.alarm());
            alarms.extend(self.units.alarm());
        }
        if **self.alarms.load() != alarms {
            self.alarms.store(Arc::new(alarms));
        }
    }
}

/// Whether a proxy has anything to do: a host that calls and offers nothing listens nowhere.
pub(super) fn has_calls(catalogue: &Catalogue) -> bool {
    !catalogue.services.is_empty() || catalogue.hosts.len() > 1
}

/// Returns what is caught for a catalogue and its rules.
pub(super) fn caught(port: u16, catalogue: &Catalogue, gate: &Gate) -> Interception {
    let services = catalogue.services.values().map(|it| it.addresses);
    let address = |host| catalogue.hosts.get(&host).map(|it| it.addresses);
    let dials = gate.caught();
    let direct = dials.filter_map(|(host, ports)| -> Option<(HostAddresses, _)> {
        Some((address(host)?, ports))
    });
    Interception::new(port, services, direct)
}

/// Returns the units that say whether what this host offers is well.
fn units_wanted(catalogue: &Catalogue, gate: &Gate) -> UnitsWanted {
    let here = catalogue.services.values().filter(|it| {
        let check = it.service.settings.health.as_ref();
        check.is_some_and(|it| it.probe == HealthProbe::Unit)
            && it.endpoints.contains(&catalogue.me)
    });
    let workloads = here.flat_map(|it| &it.service.workloads);
    workloads
        .filter_map(|name| Some((name.clone(), gate.unit_of(name)?.clone())))
        .collect()
}

/// Says so when any user of this host could take the place of the proxy while it is away.
fn port_alarm(port: u16) -> Option<String> {
    let text = std::fs::read_to_string(Path::new(UNPRIVILEGED_PORTS)).ok()?;
    let first: u16 = text.trim().parse().ok()?;
    (port >= first).then(|| {
        format!(
            "every user of this host may listen on port {port} while meshd does not run, and take calls of services: net.ipv4.ip_unprivileged_port_start is {first}; set it above {port}, or choose a lower intercept_port"
        )
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use model::address::OverlayPrefixes;
    use model::ids::{FleetId, HostId, PolicyVersion};

    use super::*;

    fn catalogue() -> Catalogue {
        let overlay = OverlayPrefixes::derived_from(FleetId::from_bytes([0; 16]));
        Catalogue {
            fleet_name: "test".parse().unwrap(),
            suffix: "mesh.internal".into(),
            me: HostId::from_bytes([1; 16]),
            policy_version: PolicyVersion(1),
            service_prefixes: overlay.services(),
            services: BTreeMap::new(),
            hosts: BTreeMap::new(),
        }
    }

    #[test]
    fn a_host_without_services_listens_nowhere() {
        let catalogue = catalogue();
        assert!(!has_calls(&catalogue));
        let nothing = caught(747, &catalogue, &Gate::default());
        assert_eq!(nothing, Interception::default());
    }

    #[test]
    fn a_port_below_the_first_of_ordinary_users_is_no_alarm() {
        let text = std::fs::read_to_string(UNPRIVILEGED_PORTS).unwrap();
        let first: u16 = text.trim().parse().unwrap();
        assert!(port_alarm(first).is_some_and(|it| it.contains("ip_unprivileged_port_start")));
        assert_eq!(first.checked_sub(1).and_then(port_alarm), None);
    }
}
