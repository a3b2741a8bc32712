//! Calls of services: the sockets on which they come in, who makes them, what is caught for them, and
//! the proxy that carries them.

mod callers;
mod keeping;
mod machine;
mod senders;
mod settings;
mod sockets;
mod units;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use dataplane::Sending;
use model::catalogue::{Catalogue, StreamIdentity};
use policy::Gate;
use proxy::{CheckSeen, Listeners, Observatory};
use runtime::clock::Clock;
use tokio::sync::{mpsc, oneshot, watch};

use crate::linux::interception::Interception;
use crate::overlay::OverlayHandle;
use crate::packets::{StreamPort, WorkerHandle};
use keeping::{Keeping, Known, Order};
use senders::Senders;
pub use settings::{AccessLogMode, OtlpCollector, ServiceSettings};

/// Returns what is caught from the start, before the proxy is told anything: with a table that is
/// whole from its first moment nothing that was caught before goes another way in between.
pub(crate) fn caught_from_the_start(
    settings: &ServiceSettings,
    fleet: Option<&(Arc<Catalogue>, Arc<Gate>)>,
) -> Interception {
    let port = settings.intercept_port;
    match fleet {
        Some((catalogue, gate)) => keeping::caught(port, catalogue, gate),
        None => Interception::new(port, [], []),
    }
}

/// Listens beside a daemon that is about to end, where there is something to call or to offer; what
/// comes in waits until the proxy runs.
pub(crate) fn listen_early(
    settings: &ServiceSettings,
    fleet: Option<&(Arc<Catalogue>, Arc<Gate>)>,
) -> Option<Listeners> {
    fleet.filter(|(catalogue, _)| keeping::has_calls(catalogue))?;
    let bound = sockets::bind(settings);
    bound
        .inspect_err(|error| tracing::warn!(%error, "it is tried again"))
        .ok()
}

/// Talks to the task that keeps the proxy.
#[derive(Clone)]
pub struct ServicesHandle {
    known: watch::Sender<Known>,
    orders: mpsc::Sender<Order>,
    alarms: Arc<ArcSwap<Vec<String>>>,
    observatory: Arc<Observatory>,
    senders: Arc<Senders>,
}

impl ServicesHandle {
    /// Starts the task, which carries nothing before it is told of a fleet. `listeners` were bound
    /// before, by a daemon that takes over.
    ///
    /// # Errors
    /// There is no /proc, or no thread.
    pub(crate) fn start(
        settings: ServiceSettings,
        overlay: OverlayHandle,
        streams: Arc<StreamPort>,
        clock: Clock,
        listeners: Option<Listeners>,
        worker: WorkerHandle,
    ) -> std::io::Result<Self> {
        let senders = Arc::new(Senders::start(settings.intercept_port, worker)?);
        let alarms: Arc<ArcSwap<Vec<String>>> = Arc::default();
        let observatory = Observatory::new(settings.threads, settings.telling.clone());
        let seen_by = Arc::clone(&observatory);
        let alarms_of = Arc::clone(&alarms);
        let keeping = Keeping::new(
            settings, overlay, streams, clock, listeners, alarms_of, seen_by,
        )?;
        let (known, told) = watch::channel(Known::default());
        let (orders, ordered) = mpsc::channel(1);
        tokio::spawn(keeping.run(told, ordered));
        Ok(Self {
            known,
            orders,
            alarms,
            observatory,
            senders,
        })
    }

    /// Takes what this host knows of the fleet; `None`: it is no member, and every call ends.
    pub fn set_fleet(&self, fleet: Option<(Arc<Catalogue>, Arc<Gate>)>) {
        let gate = fleet.as_ref().map(|(_, gate)| Arc::clone(gate));
        self.senders.set_gate(gate);
        self.known.send_modify(|known| known.fleet = Some(fleet));
    }

    /// Has the kernel asked which workload sends a flow of UDP; its packet thread is told.
    pub(crate) fn who_sends(&self, of: Sending) {
        self.senders.ask(of);
    }

    /// Takes what this host shows to others.
    pub fn set_identity(&self, identity: Option<Arc<StreamIdentity>>) {
        self.known.send_modify(|known| known.identity = identity);
    }

    /// Accepts nothing any more, and waits until what is under way has ended, or for so long. Once
    /// it has retired, this does nothing.
    pub(crate) async fn retire(&self, drain: Duration) {
        let (done, awaited) = oneshot::channel();
        if self.orders.send(Order::Retire(drain, done)).await.is_ok() {
            let _ = awaited.await;
        }
    }

    /// Returns who sees the calls.
    pub(crate) fn observatory(&self) -> &Observatory {
        &self.observatory
    }

    /// Returns what an operator should look at.
    pub fn alarms(&self) -> Vec<String> {
        let mut alarms = self.alarms.load().to_vec();
        alarms.extend(
            self.observatory
                .checks()
                .into_iter()
                .filter_map(check_alarm),
        );
        alarms
    }
}

/// Says so when the program of a service on this host fails its health check.
fn check_alarm(check: CheckSeen) -> Option<String> {
    let CheckSeen { service, failing } = check;
    failing.map(|why| {
        format!(
            "the program of service {service} on this host fails its health check ({why}): it gets no calls until it passes"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_fails_is_an_alarm_that_says_what_failed() {
        let check = |failing: Option<&str>| CheckSeen {
            service: "orders".parse().unwrap(),
            failing: failing.map(str::to_owned),
        };
        assert_eq!(check_alarm(check(None)), None);
        let alarm = check_alarm(check(Some("http /healthz: answered 500"))).unwrap();
        assert!(alarm.contains("service orders"), "{alarm}");
        assert!(alarm.contains("(http /healthz: answered 500)"), "{alarm}");
    }
}
