//! What is shown of calls as they go on: rates, latencies, and the state of endpoints.

use std::collections::BTreeMap;

use model::local::{CallPart, LateEdge, LiveEndpoint, LiveService, UnreachableHost};

use crate::output::{Output, Tone};

/// Calls of some callers, all together.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Lately {
    pub(super) calls_per_second: f64,
    pub(super) failed_percent: f64,
    pub(super) denied_percent: f64,
    pub(super) p50_micros: Option<u64>,
    pub(super) p99_micros: Option<u64>,
}

impl Lately {
    /// Adds callers up; `None`: there are none.
    pub(super) fn of<'c>(callers: impl IntoIterator<Item = &'c LateEdge>) -> Option<Self> {
        let (mut calls, mut failed, mut denied, mut within) = (0, 0, 0, 0);
        let mut latencies = BTreeMap::<u64, u64>::new();
        for caller in callers {
            calls += caller.calls;
            failed += caller.failed;
            denied += caller.denied;
            within = within.max(caller.within_micros);
            for (bound, count) in &caller.latencies {
                *latencies.entry(*bound).or_default() += count;
            }
        }
        (calls > 0).then(|| Self {
            calls_per_second: per_second(calls as f64, within as f64 / 1e6),
            failed_percent: percent(failed as f64, calls as f64),
            denied_percent: percent(denied as f64, calls as f64),
            p50_micros: quantile(&latencies, 50),
            p99_micros: quantile(&latencies, 99),
        })
    }
}

/// Returns how many there were in each of so many seconds.
pub(super) fn per_second(count: f64, seconds: f64) -> f64 {
    count / seconds.max(1e-6)
}

/// Returns how many of a hundred.
pub(super) fn percent(of: f64, all: f64) -> f64 {
    if all > 0.0 { of * 100.0 / all } else { 0.0 }
}

/// Returns the bound below which so many of a hundred are.
pub(super) fn quantile(latencies: &BTreeMap<u64, u64>, percent: u64) -> Option<u64> {
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

/// Writes how many of a hundred failed.
pub(super) fn failed(percent: f64, output: &Output) -> String {
    let tone = match percent {
        0.0 => Tone::Faint,
        some if some < 1.0 => Tone::Doubtful,
        _ => Tone::Bad,
    };
    output.paint(tone, &format!("{percent:.1} %"))
}

/// Writes a latency, if there is one.
pub(super) fn millis(micros: Option<u64>) -> String {
    micros.map_or_else(
        || "-".to_owned(),
        |micros| format!("{:.1} ms", micros as f64 / 1000.0),
    )
}

/// Writes whose part a host has.
pub(super) const fn part(part: Option<CallPart>) -> &'static str {
    match part {
        Some(CallPart::Source) => "source",
        Some(CallPart::Destination) => "destination",
        None => "-",
    }
}

/// Writes whether an endpoint gets calls, and why not.
pub(super) fn state(service: &LiveService, endpoint: &LiveEndpoint, output: &Output) -> String {
    let why = endpoint.why.as_ref();
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    let mut state = if let Some(unreachable) = &endpoint.unreachable {
        let UnreachableHost { secs, why } = unreachable;
        let state = format!("host not reached for {secs} s, and tried again: {why}");
        output.paint(Tone::Bad, &state)
    } else if endpoint.down {
        let since = endpoint.unhealthy_secs;
        let since = since
            .map(|secs| format!(" for {secs} s"))
            .unwrap_or_default();
        let state = format!("unhealthy{since}, as its host says that checks it");
        output.paint(Tone::Bad, &state)
    } else if endpoint.ejected_by > 0 {
        let by = match endpoint.known_by {
            1 => String::new(),
            all => format!(" by {} of {all} threads", endpoint.ejected_by),
        };
        let until = match endpoint.ejected_for_millis {
            Some(millis) => format!(" for {:.1} s more", millis as f64 / 1000.0),
            None => ", and tried again now".to_owned(),
        };
        output.paint(Tone::Bad, &format!("ejected{by}{until}{why}"))
    } else if !why.is_empty() {
        output.paint(Tone::Doubtful, &format!("spared{why}"))
    } else if endpoint.warming {
        output.paint(Tone::Faint, "slow start")
    } else {
        output.paint(Tone::Good, "ready")
    };
    if endpoint.over == ["quic"] && endpoint.unreachable.is_none() {
        state += "; over QUIC, TCP does not get through";
    }
    if service.using_all {
        state += "; fewer than half are well, all get calls";
    }
    state
}

/// Whether an endpoint gets calls, as all threads see it.
pub(super) const fn is_ready(endpoint: &LiveEndpoint) -> bool {
    !endpoint.down && endpoint.ejected_by == 0
}
