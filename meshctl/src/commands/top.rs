//! `meshctl top`: who calls what through this host, how fast and how well, between two looks; and
//! the endpoints that are called from here.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::time::Duration;

use model::local::{CallCounts, CallPart, EdgeCounts, LiveService, StageCounts};
use schemars::JsonSchema;
use serde::Serialize;

use super::live::{self, millis, per_second, percent, quantile, state};
use crate::arguments::{Targets, Top};
use crate::failure::Failure;
use crate::membership::member;
use crate::output::{Output, Table};

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
    /// How long calls were at what on average, in the order in which they come to it.
    pub stages: Vec<StageRate>,
}

/// One stage of the calls between two looks.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
pub struct StageRate {
    /// `queue connect tunnel server_queue first_byte body`
    pub stage: String,
    /// Calls that came to it and ended, per second.
    pub calls_per_second: f64,
    /// Microseconds that one of them was at it on average; `None`: there were none.
    pub mean_micros: Option<u64>,
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
        output.show("Top", &rates, |output| text(&rates, asked.stages, output));
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
    let latencies = latencies_since(before, now);
    EdgeRate {
        part: now.part,
        from: now.from.clone(),
        to: now.to.clone(),
        calls_per_second: per_second(calls, seconds),
        failed_percent: percent(since(|it| it.failed), calls),
        denied_percent: percent(since(|it| it.denied), calls),
        retries_per_second: per_second(since(|it| it.retries), seconds),
        p50_micros: quantile(&latencies, 50),
        p99_micros: quantile(&latencies, 99),
        stages: now
            .stages
            .iter()
            .map(|stage| {
                let mut stages = before.iter().flat_map(|it| &it.stages);
                let before = stages.find(|it| it.stage == stage.stage);
                stage_rate(before, stage, seconds)
            })
            .collect(),
    }
}

fn stage_rate(before: Option<&StageCounts>, now: &StageCounts, seconds: f64) -> StageRate {
    let since = |count: fn(&StageCounts) -> u64| count(now).saturating_sub(before.map_or(0, count));
    let calls = since(|it| it.calls);
    StageRate {
        stage: now.stage.clone(),
        calls_per_second: per_second(calls as f64, seconds),
        mean_micros: since(|it| it.micros).checked_div(calls),
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

fn text(rates: &Rates, stages: bool, output: &Output) -> String {
    let mut text = if stages {
        stages_table(rates)
    } else {
        edges_table(rates, output)
    };
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
        table.row([
            edge.from.clone(),
            edge.to.clone(),
            live::part(edge.part).to_owned(),
            format!("{:.1}", edge.calls_per_second),
            live::failed(edge.failed_percent, output),
            live::failed(edge.denied_percent, output),
            format!("{:.1}", edge.retries_per_second),
            millis(edge.p50_micros),
            millis(edge.p99_micros),
        ]);
    }
    table.text(NO_CALLS)
}

const NO_CALLS: &str = "no call of a service has ended on this host";

/// Where the time of calls goes, on average.
fn stages_table(rates: &Rates) -> String {
    let headings = [
        "FROM",
        "TO",
        "PART",
        "CALLS/S",
        "QUEUE",
        "CONNECT",
        "TUNNEL",
        "SERVER QUEUE",
        "FIRST BYTE",
        "BODY",
    ];
    let mut table = Table::new(&headings);
    for edge in &rates.edges {
        let known = [
            edge.from.clone(),
            edge.to.clone(),
            live::part(edge.part).to_owned(),
            format!("{:.1}", edge.calls_per_second),
        ];
        let stages = edge.stages.iter().map(|stage| millis(stage.mean_micros));
        table.row(known.into_iter().chain(stages));
    }
    table.text(NO_CALLS)
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

#[cfg(test)]
mod tests {
    use model::local::LiveEndpoint;

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
                stages: [
                    "queue",
                    "connect",
                    "tunnel",
                    "server_queue",
                    "first_byte",
                    "body",
                ]
                .map(|stage| StageCounts {
                    stage: stage.into(),
                    calls: if stage == "connect" { 0 } else { calls },
                    micros: calls * 1500,
                })
                .into(),
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
                        ejected_for_millis: Some(3_200),
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
            text(&rates(&before, &now), false, &output),
            "\
FROM  TO      PART    CALLS/S  FAILED  DENIED  RETRIES/S  P50     P99
web   orders  source  100.0    5.0 %   0.0 %   0.0        2.0 ms  9.0 ms

SERVICE  ENDPOINT  UNDER WAY  LATENCY  STATE
orders   app-1     3          2.5 ms   ready
orders   app-2     0          -        ejected by 1 of 2 threads for 3.2 s more: 5 calls in a row failed"
        );
    }

    #[test]
    fn where_the_time_goes_is_an_average_and_what_no_call_came_to_has_none() {
        let (before, now) = (
            counts(1_000_000, 100, 0, Vec::new()),
            counts(3_000_000, 300, 0, Vec::new()),
        );
        assert_eq!(
            stages_table(&rates(&before, &now)),
            "\
FROM  TO      PART    CALLS/S  QUEUE   CONNECT  TUNNEL  SERVER QUEUE  FIRST BYTE  BODY
web   orders  source  100.0    1.5 ms  -        1.5 ms  1.5 ms        1.5 ms      1.5 ms"
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
