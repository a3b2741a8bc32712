//! `meshctl top`: who calls what through this host, how fast and how well, between two looks; and
//! the endpoints that are called from here.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::time::Duration;

use model::local::{CallCounts, CallPart, EdgeCounts, LiveEndpoint, LiveService};
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::{Targets, Top};
use crate::failure::Failure;
use crate::membership::member;
use crate::output::{Output, Table, Tone};

/// Clears a terminal and goes to its beginning (ECMA-48: CUP, ED).
const CLEAR: &str = "\u{1b}[H\u{1b}[J";

/// What happened between two looks.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
pub struct Rates {
    /// Between the looks.
    pub seconds: f64,
    /// Who called what; the most calls first.
    pub edges: Vec<EdgeRate>,
    /// What is called from here, as it is at the second look.
    pub services: Vec<LiveService>,
}

/// Calls of one caller to one service between two looks.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
pub struct EdgeRate {
    /// Whose part this host has; `None`: those above the number of edges that are counted apart.
    pub part: Option<CallPart>,
    /// The workload, or else the host.
    pub from: String,
    /// The service, or the host and port.
    pub to: String,
    /// Calls that ended, per second.
    pub calls_per_second: f64,
    /// Those that failed, of a hundred.
    pub failed_percent: f64,
    /// Those that the policy denied, of a hundred.
    pub denied_percent: f64,
    /// Attempts after the first, per second.
    pub retries_per_second: f64,
    /// Half of the calls had the head of their answer within so many microseconds; `None`: there
    /// were none.
    pub p50_micros: Option<u64>,
    /// 99 of a hundred had it within so many.
    pub p99_micros: Option<u64>,
}

/// Looks twice, and again and again until it is interrupted or has looked often enough.
///
/// # Errors
/// The daemon does not answer or refuses.
pub async fn top(asked: Top, targets: &Targets, output: &Output) -> Result<(), Failure> {
    let client = member(targets).await?;
    let live = io::stdout().is_terminal() && !output.is_json();
    let mut left = asked.count.unwrap_or(if live { u64::MAX } else { 1 });
    let mut before: CallCounts = client.get("/v1/top").await?;
    while left > 0 {
        tokio::time::sleep(Duration::from_secs(asked.interval)).await;
        let now: CallCounts = client.get("/v1/top").await?;
        let rates = rates(&before, &now);
        if live && asked.count.is_none() {
            output.print(CLEAR.as_bytes());
        }
        output.show("Top", &rates, |output| text(&rates, output));
        if !output.has_reader() {
            return Ok(());
        }
        before = now;
        left -= 1;
    }
    Ok(())
}

fn rates(before: &CallCounts, now: &CallCounts) -> Rates {
    // A daemon that was started anew counts from nothing: so does the rate.
    let nothing = CallCounts::default();
    let before = if now.at_micros < before.at_micros {
        &nothing
    } else {
        before
    };
    let seconds = (now.at_micros - before.at_micros) as f64 / 1e6;
    let mut edges: Vec<EdgeRate> = now
        .edges
        .iter()
        .map(|edge| {
            let same =
                |it: &&EdgeCounts| (it.part, &it.from, &it.to) == (edge.part, &edge.from, &edge.to);
            rate(before.edges.iter().find(same), edge, seconds)
        })
        .collect();
    edges.sort_by(|one, other| other.calls_per_second.total_cmp(&one.calls_per_second));
    Rates {
        seconds,
        edges,
        services: now.services.clone(),
    }
}

fn rate(before: Option<&EdgeCounts>, now: &EdgeCounts, seconds: f64) -> EdgeRate {
    let since =
        |count: fn(&EdgeCounts) -> u64| count(now).saturating_sub(before.map_or(0, count)) as f64;
    let calls = since(|it| it.calls);
    let percent = |of: f64| if calls > 0.0 { of * 100.0 / calls } else { 0.0 };
    let latencies = latencies_since(before, now);
    EdgeRate {
        part: now.part,
        from: now.from.clone(),
        to: now.to.clone(),
        calls_per_second: calls / seconds.max(1e-6),
        failed_percent: percent(since(|it| it.failed)),
        denied_percent: percent(since(|it| it.denied)),
        retries_per_second: since(|it| it.retries) / seconds.max(1e-6),
        p50_micros: quantile(&latencies, 50),
        p99_micros: quantile(&latencies, 99),
    }
}

fn latencies_since(before: Option<&EdgeCounts>, now: &EdgeCounts) -> BTreeMap<u64, u64> {
    let mut latencies: BTreeMap<u64, u64> = now.latencies.iter().copied().collect();
    for (bound, count) in before.iter().flat_map(|it| &it.latencies) {
        if let Some(now) = latencies.get_mut(bound) {
            *now = now.saturating_sub(*count);
        }
    }
    latencies
}

/// Returns the bound below which so many of a hundred are.
fn quantile(latencies: &BTreeMap<u64, u64>, percent: u64) -> Option<u64> {
    let all: u64 = latencies.values().sum();
    let rank = (all * percent).div_ceil(100);
    let mut so_far = 0;
    latencies
        .iter()
        .find(|(_, count)| {
            so_far += **count;
            so_far >= rank && all > 0
        })
        .map(|(bound, _)| *bound)
}

fn text(rates: &Rates, output: &Output) -> String {
    let mut text = edges_table(rates, output);
    if !rates.services.is_empty() {
        text += "\n\n";
        text += &endpoints_table(&rates.services, output);
    }
    text
}

fn edges_table(rates: &Rates, output: &Output) -> String {
    let headings = [
        "FROM",
        "TO",
        "PART",
        "CALLS/S",
        "FAILED",
        "DENIED",
        "RETRIES/S",
        "P50",
        "P99",
    ];
    let mut table = Table::new(&headings);
    for edge in &rates.edges {
        let part = match edge.part {
            Some(CallPart::Source) => "source",
            Some(CallPart::Destination) => "destination",
            None => "-",
        };
        let percent = |percent: f64| {
            let tone = match percent {
                0.0 => Tone::Faint,
                some if some < 1.0 => Tone::Doubtful,
                _ => Tone::Bad,
            };
            output.paint(tone, &format!("{percent:.1} %"))
        };
        table.row([
            edge.from.clone(),
            edge.to.clone(),
            part.to_owned(),
            format!("{:.1}", edge.calls_per_second),
            percent(edge.failed_percent),
            percent(edge.denied_percent),
            format!("{:.1}", edge.retries_per_second),
            millis(edge.p50_micros),
            millis(edge.p99_micros),
        ]);
    }
    table.text("no call of a service has ended on this host")
}

fn endpoints_table(services: &[LiveService], output: &Output) -> String {
    let mut table = Table::new(&["SERVICE", "ENDPOINT", "UNDER WAY", "LATENCY", "STATE"]);
    for service in services {
        for endpoint in &service.endpoints {
            table.row([
                service.service.clone(),
                endpoint.host.clone(),
                endpoint.in_flight.to_string(),
                millis(endpoint.latency_micros),
                state(service, endpoint, output),
            ]);
        }
    }
    table.text("nothing is called from here")
}

fn state(service: &LiveService, endpoint: &LiveEndpoint, output: &Output) -> String {
    let why = endpoint.why.as_ref();
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    let mut state = if endpoint.down {
        output.paint(Tone::Bad, "down, as its health check says")
    } else if endpoint.ejected_by > 0 {
        let by = match endpoint.known_by {
            1 => String::new(),
            all => format!(" by {} of {all} threads", endpoint.ejected_by),
        };
        output.paint(Tone::Bad, &format!("ejected{by}{why}"))
    } else if !why.is_empty() {
        output.paint(Tone::Doubtful, &format!("spared{why}"))
    } else if endpoint.warming {
        output.paint(Tone::Faint, "slow start")
    } else {
        output.paint(Tone::Good, "ready")
    };
    if service.using_all {
        state += "; fewer than half are well, all get calls";
    }
    state
}

fn millis(micros: Option<u64>) -> String {
    micros.map_or_else(
        || "-".to_owned(),
        |micros| format!("{:.1} ms", micros as f64 / 1000.0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Color;

    fn counts(at_micros: u64, calls: u64, failed: u64, latencies: Vec<(u64, u64)>) -> CallCounts {
        CallCounts {
            at_micros,
            edges: vec![EdgeCounts {
                part: Some(CallPart::Source),
                from: "web".into(),
                to: "orders".into(),
                calls,
                failed,
                latencies,
                ..EdgeCounts::default()
            }],
            services: vec![LiveService {
                service: "orders".into(),
                in_flight: 3,
                endpoints: vec![
                    LiveEndpoint {
                        host: "app-1".into(),
                        in_flight: 3,
                        latency_micros: Some(2_500),
                        known_by: 2,
                        ..LiveEndpoint::default()
                    },
                    LiveEndpoint {
                        host: "app-2".into(),
                        ejected_by: 1,
                        known_by: 2,
                        why: Some("5 calls in a row failed".into()),
                        ..LiveEndpoint::default()
                    },
                ],
                ..LiveService::default()
            }],
        }
    }

    #[test]
    fn rates_are_of_what_happened_between_two_looks() {
        let before = counts(1_000_000, 1000, 500, vec![(100, 1000)]);
        let now = counts(
            3_000_000,
            1200,
            510,
            vec![(100, 1000), (2_000, 190), (9_000, 10)],
        );
        let output = Output::new(false, Color::Never);
        assert_eq!(
            text(&rates(&before, &now), &output),
            "\
FROM  TO      PART    CALLS/S  FAILED  DENIED  RETRIES/S  P50     P99
web   orders  source  100.0    5.0 %   0.0 %   0.0        2.0 ms  9.0 ms

SERVICE  ENDPOINT  UNDER WAY  LATENCY  STATE
orders   app-1     3          2.5 ms   ready
orders   app-2     0          -        ejected by 1 of 2 threads: 5 calls in a row failed"
        );
    }

    #[test]
    fn a_daemon_that_was_started_anew_counts_from_nothing() {
        let before = counts(900_000_000, 5000, 0, vec![(100, 5000)]);
        let now = counts(2_000_000, 10, 0, vec![(400, 10)]);
        let rates = rates(&before, &now);
        assert_eq!(rates.edges[0].calls_per_second, 5.0);
        assert_eq!(rates.edges[0].p50_micros, Some(400));
    }

    #[test]
    fn no_calls_have_no_latency() {
        let counts = counts(1_000_000, 10, 0, vec![(400, 10)]);
        let rates = rates(
            &counts,
            &CallCounts {
                at_micros: 2_000_000,
                ..counts.clone()
            },
        );
        assert_eq!(
            (rates.edges[0].p50_micros, rates.edges[0].p99_micros),
            (None, None)
        );
    }
}
