//! The endpoints that are called from here, as all threads together see them.

use std::collections::BTreeMap;

use model::catalogue::Catalogue;
use model::local::{LiveEndpoint, LiveService};
use traffic::{BreakerState, EndpointView, Health, Tripped};

use super::host_name;
use crate::marks::Aim;
use crate::report::UpstreamSeen;

/// Puts together what threads see, service by service in the order of their names.
pub(super) fn services(
    threads: &[Vec<UpstreamSeen>],
    catalogue: Option<&Catalogue>,
) -> Vec<LiveService> {
    let mut services: BTreeMap<String, Together> = BTreeMap::new();
    for seen in threads.iter().flatten() {
        let service = match (&seen.aim, seen.host) {
            (Aim::Port(port), Some(host)) => format!("{}:{port}", host_name(host, catalogue)),
            (aim, _) => aim.to_string(),
        };
        services.entry(service).or_default().add(seen, catalogue);
    }
    let whole = services.into_iter().map(|(service, together)| LiveService {
        service,
        endpoints: together.endpoints.into_values().collect(),
        ..together.service
    });
    whole.collect()
}

#[derive(Default)]
struct Together {
    service: LiveService,
    endpoints: BTreeMap<String, LiveEndpoint>,
}

impl Together {
    fn add(&mut self, seen: &UpstreamSeen, catalogue: Option<&Catalogue>) {
        // The gauge is that of all threads already.
        self.service.in_flight = seen.in_flight;
        self.service.waiting = seen.waiting;
        self.service.using_all |= seen.using_all;
        for view in &seen.endpoints {
            let host = host_name(view.endpoint, catalogue);
            add(self.endpoints.entry(host).or_default(), view);
        }
        for (host, endpoint) in &mut self.endpoints {
            endpoint.host.clone_from(host);
        }
    }
}

fn add(endpoint: &mut LiveEndpoint, view: &EndpointView) {
    endpoint.in_flight += view.in_flight;
    endpoint.known_by += 1;
    endpoint.ejected_by += u32::from(view.breaker != BreakerState::Closed);
    endpoint.down |= view.health == Health::Down;
    endpoint.warming |= view.warming;
    let micros = |latency: std::time::Duration| u64::try_from(latency.as_micros()).ok();
    // The slowest that a thread saw: that is the one to look at.
    endpoint.latency_micros = endpoint.latency_micros.max(view.latency.and_then(micros));
    if let Some(tripped) = view.tripped {
        endpoint.why = Some(why(tripped));
    }
}

fn why(tripped: Tripped) -> String {
    match tripped {
        Tripped::Consecutive(calls) => format!("{calls} calls in a row failed"),
        Tripped::SuccessRate { percent, calls } => {
            format!("{percent} % of {calls} calls succeeded within ten seconds")
        }
        Tripped::Probe => "the call that was to show whether it works again failed".to_owned(),
    }
}
