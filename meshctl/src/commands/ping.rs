//! `meshctl ping`: echoes through the tunnel, the way that they take, how long they take, and the
//! largest packet that passes.

use std::time::Duration;

use model::local::{PingReply, PingRequest};
use runtime::api_client::ApiClient;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::sleep;

use crate::arguments::{Ping, Targets};
use crate::failure::Failure;
use crate::membership::member;
use crate::output::{Output, Tone};

/// Between two echoes.
const INTERVAL: Duration = Duration::from_millis(200);
/// How long the daemon may take to tell of an echo, beside what the echo itself takes.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// The smallest packet that every path takes whole (RFC 791 3.1).
const PACKET_BYTES_MIN: u16 = 68;
/// What IPv6 takes for granted (RFC 8200 5); a path below it carries no IPv6.
pub(crate) const IPV6_MTU: u16 = 1280;
/// How often a size is tried before it counts as too large: any packet may be lost.
const TRIES: u32 = 2;
/// How long an answer may take that was once quick: this many round trips, and not less than
/// `PROBE_TIMEOUT_MIN`.
const PROBE_ROUND_TRIPS: u64 = 10;
const PROBE_TIMEOUT_MIN: Duration = Duration::from_millis(250);

/// What `--json` shows.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PingReport {
    host: String,
    replies: Vec<PingReply>,
    summary: Summary,
    /// `null`: it was not looked for, or nothing answered.
    mtu: Option<Mtu>,
}

/// What the echoes say together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Summary {
    sent: usize,
    answered: usize,
    loss_percent: usize,
    /// Of those that were answered.
    min_micros: Option<u64>,
    avg_micros: Option<u64>,
    p99_micros: Option<u64>,
    max_micros: Option<u64>,
}

/// Which packets pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Mtu {
    /// Bytes of the largest IP packet inside the tunnel that came through and back, whole.
    largest_packet_bytes: u16,
    /// Bytes of the largest packet that the overlay's interface takes.
    interface_bytes: u16,
}

/// Sends echoes through the tunnel.
///
/// # Errors
/// The peer is not known, or no echo was answered.
pub async fn ping(arguments: Ping, targets: &Targets, output: &Output) -> Result<(), Failure> {
    let patience = Duration::from_millis(arguments.timeout) + ANSWER_PATIENCE;
    let client = member(targets).await?.with_patience(patience);
    let small = PingRequest {
        host: arguments.host.clone(),
        timeout_millis: arguments.timeout,
        packet_bytes: None,
    };
    let mut replies: Vec<PingReply> = Vec::new();
    for number in 0..arguments.count {
        let reply: PingReply = client.query("/v1/ping", &small).await?;
        if !output.is_json() {
            output.show("PingReply", &reply, |output| reply_text(&reply, output));
        }
        let answered = reply.round_trip_micros.is_some();
        replies.push(reply);
        if answered && number + 1 < arguments.count {
            sleep(INTERVAL).await;
        }
    }
    let summary = Summary::of(&replies);
    let mtu = match (summary.max_micros, replies.last()) {
        (Some(slowest), Some(last)) if !arguments.no_mtu => {
            output.progress("looking for the largest packet that passes …");
            let probe = Prober {
                client: &client,
                host: &arguments.host,
                timeout: probe_timeout(slowest, arguments.timeout),
            };
            probe.search(last.interface_mtu).await?
        }
        _ => None,
    };
    let report = PingReport {
        host: arguments.host,
        replies,
        summary,
        mtu,
    };
    output.show("PingReport", &report, |output| {
        summary_text(&report, output)
    });
    if summary.answered > 0 {
        Ok(())
    } else {
        Err(Failure::Failed(String::new()))
    }
}

fn probe_timeout(slowest_micros: u64, timeout_millis: u64) -> Duration {
    let patient = Duration::from_micros(slowest_micros.saturating_mul(PROBE_ROUND_TRIPS));
    patient
        .max(PROBE_TIMEOUT_MIN)
        .min(Duration::from_millis(timeout_millis))
}

/// Asks whether a packet of some size comes through.
struct Prober<'a> {
    client: &'a ApiClient,
    host: &'a str,
    timeout: Duration,
}

impl Prober<'_> {
    /// Finds the largest packet that passes, between what every path takes and what the interface
    /// takes; `None`: no packet was answered any more, of whatever size.
    async fn search(&self, interface_bytes: u16) -> Result<Option<Mtu>, Failure> {
        let mut search = Search::new(interface_bytes);
        while let Some(packet_bytes) = search.next() {
            let passed = self.passes(packet_bytes).await?;
            search.note(packet_bytes, passed);
        }
        Ok((search.passing > PACKET_BYTES_MIN).then_some(Mtu {
            largest_packet_bytes: search.passing,
            interface_bytes,
        }))
    }

    async fn passes(&self, packet_bytes: u16) -> Result<bool, Failure> {
        let request = PingRequest {
            host: self.host.to_owned(),
            timeout_millis: u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX),
            packet_bytes: Some(packet_bytes),
        };
        for _ in 0..TRIES {
            let reply: PingReply = self.client.query("/v1/ping", &request).await?;
            if reply.round_trip_micros.is_some() {
                return Ok(true);
            }
            if reply.too_big {
                break;
            }
        }
        Ok(false)
    }
}

/// Halves what is not known, after the size that mostly passes: the interface's own.
struct Search {
    passing: u16,
    failing: u16,
    is_first: bool,
}

impl Search {
    fn new(interface_bytes: u16) -> Self {
        Self {
            passing: PACKET_BYTES_MIN,
            failing: interface_bytes.saturating_add(1),
            is_first: true,
        }
    }

    fn next(&self) -> Option<u16> {
        match self.failing.saturating_sub(self.passing) {
            0 | 1 => None,
            _ if self.is_first => Some(self.failing - 1),
            gap => Some(self.passing + gap / 2),
        }
    }

    fn note(&mut self, packet_bytes: u16, passed: bool) {
        self.is_first = false;
        if passed {
            self.passing = packet_bytes;
        } else {
            self.failing = packet_bytes;
        }
    }
}

impl Summary {
    fn of(replies: &[PingReply]) -> Self {
        let mut times: Vec<u64> = replies
            .iter()
            .filter_map(|reply| reply.round_trip_micros)
            .collect();
        times.sort_unstable();
        let (sent, answered) = (replies.len(), times.len());
        let total: u64 = times.iter().sum();
        Self {
            sent,
            answered,
            loss_percent: ((sent - answered) * 100).checked_div(sent).unwrap_or(0),
            min_micros: times.first().copied(),
            avg_micros: total.checked_div(answered as u64),
            // The smallest that 99 of 100 do not exceed.
            p99_micros: times
                .get((answered * 99).div_ceil(100).saturating_sub(1))
                .copied(),
            max_micros: times.last().copied(),
        }
    }
}

fn reply_text(reply: &PingReply, output: &Output) -> String {
    let via = reply
        .endpoint
        .map(|endpoint| format!(" via {endpoint}"))
        .unwrap_or_default();
    match (reply.round_trip_micros, &reply.note) {
        (Some(micros), _) => format!(
            "{} ({}){via}: {} ms",
            reply.name,
            reply.address,
            output.paint(Tone::Good, &millis(micros))
        ),
        (None, note) => format!(
            "{} ({}): {}",
            reply.name,
            reply.address,
            output.paint(Tone::Bad, note.as_deref().unwrap_or("no answer"))
        ),
    }
}

fn millis(micros: u64) -> String {
    format!("{:.2}", micros as f64 / 1000.0)
}

fn summary_text(report: &PingReport, output: &Output) -> String {
    let summary = &report.summary;
    let loss = format!("{} % lost", summary.loss_percent);
    let loss = match summary.loss_percent {
        0 => loss,
        1..=99 => output.paint(Tone::Doubtful, &loss),
        _ => output.paint(Tone::Bad, &loss),
    };
    let mut text = format!("{} of {} answered, {loss}", summary.answered, summary.sent);
    if let (Some(min), Some(avg), Some(p99), Some(max)) = (
        summary.min_micros,
        summary.avg_micros,
        summary.p99_micros,
        summary.max_micros,
    ) {
        text += &format!(
            "; min {} avg {} p99 {} max {} ms",
            millis(min),
            millis(avg),
            millis(p99),
            millis(max)
        );
    }
    let endpoint = report.replies.iter().rev().find_map(|it| it.endpoint);
    if let Some(endpoint) = endpoint {
        text += &format!("\npath direct, {endpoint}");
    }
    if let Some(mtu) = &report.mtu {
        text += &format!("\n{}", mtu_text(mtu, output));
    }
    text
}

fn mtu_text(mtu: &Mtu, output: &Output) -> String {
    let (largest, interface) = (mtu.largest_packet_bytes, mtu.interface_bytes);
    if largest >= interface {
        return format!("packets of {largest} bytes pass, as large as the interface takes");
    }
    let text = match largest {
        IPV6_MTU.. => format!(
            "packets above {largest} bytes do not pass at once, and the interface takes {interface}: meshd cuts TCP to what passes, and tells other programs; `meshctl peers` shows what it has found (MTU)"
        ),
        _ => format!(
            "packets above {largest} bytes do not pass at once, and IPv6 needs {IPV6_MTU}: larger ones go in fragments, where those pass; make room on the way itself (`tracepath` to the peer's endpoint names the link)"
        ),
    };
    output.paint(Tone::Bad, &text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Color;

    fn reply(round_trip_micros: Option<u64>) -> PingReply {
        PingReply {
            name: "db-1".parse().unwrap(),
            address: [100, 64, 0, 17].into(),
            round_trip_micros,
            endpoint: Some("192.0.2.17:51820".parse().unwrap()),
            interface_mtu: 1420,
            too_big: false,
            note: None,
        }
    }

    fn found(interface: u16, path: u16) -> (u16, u32) {
        let mut search = Search::new(interface);
        let mut probes = 0;
        while let Some(packet_bytes) = search.next() {
            search.note(packet_bytes, packet_bytes <= path);
            probes += 1;
        }
        (search.passing, probes)
    }

    #[test]
    fn the_search_finds_every_size_and_asks_once_when_all_is_well() {
        assert_eq!(found(1420, 1420), (1420, 1));
        for path in [68, 69, 576, 1279, 1280, 1380, 1419] {
            let (largest, probes) = found(1420, path);
            assert_eq!(largest, path);
            assert!(probes <= 13, "{probes}");
        }
        assert_eq!(found(9000, 8940).0, 8940);
    }

    #[test]
    fn a_summary_counts_losses_and_orders_times() {
        let mut replies: Vec<PingReply> = (1..=200).map(|it| reply(Some(it))).collect();
        replies.extend((0..50).map(|_| reply(None)));
        assert_eq!(
            Summary::of(&replies),
            Summary {
                sent: 250,
                answered: 200,
                loss_percent: 20,
                min_micros: Some(1),
                avg_micros: Some(100),
                p99_micros: Some(198),
                max_micros: Some(200),
            }
        );
        let none = Summary::of(&[reply(None)]);
        assert_eq!(
            (none.loss_percent, none.p99_micros, none.avg_micros),
            (100, None, None)
        );
    }

    #[test]
    fn a_path_that_is_too_small_is_told_with_what_to_do() {
        let mut report = PingReport {
            host: "db-1".into(),
            replies: vec![reply(Some(610)), reply(Some(650))],
            summary: Summary::of(&[reply(Some(610)), reply(Some(650))]),
            mtu: Some(Mtu {
                largest_packet_bytes: 1420,
                interface_bytes: 1420,
            }),
        };
        let output = Output::new(false, Color::Never);
        assert_eq!(
            summary_text(&report, &output),
            "\
2 of 2 answered, 0 % lost; min 0.61 avg 0.63 p99 0.65 max 0.65 ms
path direct, 192.0.2.17:51820
packets of 1420 bytes pass, as large as the interface takes"
        );
        report.mtu = Some(Mtu {
            largest_packet_bytes: 1240,
            interface_bytes: 1420,
        });
        let text = summary_text(&report, &output);
        assert!(
            text.contains("above 1240 bytes") && text.contains("IPv6 needs 1280"),
            "{text}"
        );
    }
}
