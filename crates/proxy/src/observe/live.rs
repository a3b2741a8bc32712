//! The endpoints that are called from here, as all threads together see them.

use std::collections::{BTreeMap, BTreeSet};

use model::catalogue::Catalogue;
use model::local::{LiveEndpoint, LiveService, UnreachableHost};
use model::time::Instant;
use traffic::{BreakerState, EndpointView, Health, Tripped};

use super::host_name;
use crate::marks::Aim;
use crate::report::UpstreamSeen;
use crate::sessions::{ConnectionsSeen, OutageSeen, SessionError, Transport};

/// What the threads see.
pub(super) struct Seen<'s> {
    /// Of services, one list for each thread.
    pub(super) threads: &'s [Vec<UpstreamSeen>],
    /// Of connections, all of them.
    pub(super) connections: &'s [ConnectionsSeen],
    /// Of hosts that are not reached.
    pub(super) outages: &'s [OutageSeen],
}

/// Puts together what threads see, service by service in the order of their names.
pub(super) fn services(all: &Seen<'_>, catalogue: Option<&Catalogue>) -> Vec<LiveService> {
    let mut services: BTreeMap<String, Together> = BTreeMap::new();
    for seen in all.threads.iter().flatten() {
        let service = match (&seen.aim, seen.host) {
            (Aim::Port(port), Some(host)) => format!("{}:{port}", host_name(host, catalogue)),
            (aim, _) => aim.to_string(),
        };
        services.entry(service).or_default().add(seen, catalogue);
    }
    let mut over: BTreeMap<String, BTreeSet<Transport>> = BTreeMap::new();
    for seen in all.connections {
        let host = host_name(seen.host, catalogue);
        over.entry(host).or_default().insert(seen.transport);
    }
    let over = |host: &str| {
        let transports = over.get(host).into_iter().flatten();
        transports.map(Transport::to_string).collect()
    };
    let outages = all
        .outages
        .iter()
        .map(|seen| (host_name(seen.host, catalogue), seen));
    let outages: BTreeMap<String, &OutageSeen> = outages.collect();
    let unreachable = |endpoint: &LiveEndpoint| {
        let known = outages.get(&endpoint.host);
        // Without an outage it was never tried: nobody knows where.
        endpoint.unreachable.clone().map(|it| match known {
            Some(outage) => UnreachableHost {
                secs: outage.lasts.as_secs(),
                why: outage.error.clone(),
            },
            None => it,
        })
    };
    let whole = services.into_iter().map(|(service, together)| LiveService {
        service,
        endpoints: together
            .endpoints
            .into_values()
            .map(|endpoint| LiveEndpoint {
                over: over(&endpoint.host),
                unreachable: unreachable(&endpoint),
                ..endpoint
            })
            .collect(),
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
            add(self.endpoints.entry(host).or_default(), view, seen.at);
        }
        for (host, endpoint) in &mut self.endpoints {
            endpoint.host.clone_from(host);
        }
    }
}

fn add(endpoint: &mut LiveEndpoint, view: &EndpointView, at: Instant) {
    endpoint.in_flight += view.in_flight;
    endpoint.known_by += 1;
    endpoint.ejected_by += u32::from(view.breaker != BreakerState::Closed);
    endpoint.down |= view.health.is_down();
    if view.health == Health::Unreachable {
        let why = SessionError::NoAddress.to_string();
        endpoint.unreachable = Some(UnreachableHost { secs: 0, why });
    }
    let told = view.told_down_since.map(|since| (at - since).as_secs());
    endpoint.unhealthy_secs = endpoint.unhealthy_secs.max(told);
    endpoint.warming |= view.warming;
    let micros = |latency: std::time::Duration| u64::try_from(latency.as_micros()).ok();
    // The slowest that a thread saw: that is the one to look at.
    endpoint.latency_micros = endpoint.latency_micros.max(view.latency.and_then(micros));
    if let BreakerState::Open { until } = view.breaker {
        let left = u64::try_from((until - at).as_millis()).unwrap_or(u64::MAX);
        let first = endpoint.ejected_for_millis.unwrap_or(u64::MAX);
        endpoint.ejected_for_millis = Some(first.min(left));
    }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::ids::HostId;

    use super::*;

    fn seen(breaker: BreakerState, in_flight: u32) -> UpstreamSeen {
        UpstreamSeen {
            aim: Aim::Service("orders".parse().unwrap()),
            host: None,
            at: Instant::from_start(Duration::from_secs(10)),
            in_flight: 5,
            waiting: 1,
            using_all: false,
            endpoints: vec![EndpointView {
                endpoint: HostId::from_bytes([1; HostId::LEN]),
                health: Health::Unknown,
                told_down_since: None,
                breaker,
                tripped: (breaker != BreakerState::Closed).then_some(Tripped::Consecutive(5)),
                in_flight,
                latency: None,
                warming: false,
            }],
        }
    }

    #[test]
    fn an_endpoint_is_what_all_threads_see_of_it_and_comes_back_with_the_first() {
        let open = |secs| BreakerState::Open {
            until: Instant::from_start(Duration::from_secs(secs)),
        };
        let threads = [
            vec![seen(BreakerState::Closed, 2)],
            vec![seen(open(14), 1)],
            vec![seen(open(12), 0)],
        ];
        let connections = [Transport::Quic, Transport::Tcp, Transport::Quic];
        let connections = connections.map(|transport| ConnectionsSeen {
            host: HostId::from_bytes([1; HostId::LEN]),
            transport,
            connections: 1,
        });
        let seen = Seen {
            threads: &threads,
            connections: &connections,
            outages: &[],
        };
        let services = services(&seen, None);
        let [service] = &services[..] else {
            panic!("{services:?}");
        };
        assert_eq!((service.in_flight, service.waiting), (5, 1));
        let [endpoint] = &service.endpoints[..] else {
            panic!("{service:?}");
        };
        assert_eq!((endpoint.known_by, endpoint.ejected_by), (3, 2));
        assert_eq!(endpoint.in_flight, 3);
        assert_eq!(endpoint.over, ["tcp", "quic"]);
        assert_eq!(endpoint.ejected_for_millis, Some(2000));
        let why = endpoint.why.as_deref();
        assert_eq!(why, Some("5 calls in a row failed"));
    }

    #[test]
    fn an_endpoint_that_is_down_says_since_when_and_why() {
        let with = |health, told: Option<u64>| {
            let mut seen = seen(BreakerState::Closed, 0);
            let view = &mut seen.endpoints[0];
            view.health = health;
            view.told_down_since = told.map(|secs| Instant::from_start(Duration::from_secs(secs)));
            vec![seen]
        };
        let outage = OutageSeen {
            host: HostId::from_bytes([1; HostId::LEN]),
            lasts: Duration::from_millis(12_700),
            error: "refused".into(),
        };
        let outages = [outage];
        let endpoint = |threads: &[Vec<UpstreamSeen>], outages| {
            let seen = Seen {
                threads,
                connections: &[],
                outages,
            };
            services(&seen, None).remove(0).endpoints.remove(0)
        };
        let (well, told) = (with(Health::Unknown, None), with(Health::Down, Some(3)));
        let unhealthy = endpoint(&[well.clone(), told], &[]);
        assert_eq!(
            (
                unhealthy.down,
                unhealthy.unhealthy_secs,
                unhealthy.unreachable
            ),
            (true, Some(7), None)
        );
        let gone = endpoint(&[with(Health::Unreachable, None)], &outages);
        let unreachable = gone.unreachable.unwrap();
        assert_eq!((gone.down, gone.unhealthy_secs), (true, None));
        assert_eq!((unreachable.secs, &*unreachable.why), (12, "refused"));
        // A thread that has a connection still.
        let well = endpoint(&[well], &outages);
        assert_eq!((well.down, well.unreachable), (false, None));
    }
}
