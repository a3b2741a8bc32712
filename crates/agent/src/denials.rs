//! Denied flows as lines of the log: each flow once, its repetitions counted and told at the end of
//! the minute, and never more lines than a person would read.

use std::collections::BTreeMap;
use std::time::Duration;

use model::ids::{HostId, PolicyVersion};
use model::name::RuleId;
use model::rule::{Direction, ip_protocol};
use model::time::Instant;

use crate::output::Outputs;
use crate::timer::{Timeout, is_due};

/// What makes two denials the same for a reader.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DeniedFlow {
    pub(crate) direction: Direction,
    pub(crate) peer: HostId,
    pub(crate) ip_protocol: u8,
    pub(crate) port: u16,
    pub(crate) rule: Option<RuleId>,
    /// The rule might allow it, if it were known who sends it.
    pub(crate) needs_workload: bool,
    pub(crate) version: PolicyVersion,
}

/// The denials of the current minute.
#[derive(Debug, Default)]
pub(crate) struct Denials {
    flows: BTreeMap<DeniedFlow, Repeated>,
    /// Of flows that have no line of their own any more.
    others: u64,
    lines: u32,
    summary_at: Option<Instant>,
}

#[derive(Debug)]
struct Repeated {
    line: String,
    /// The line is in the log.
    told: bool,
    /// Not in the log.
    times: u64,
}

const SUMMARY_EVERY: Duration = Duration::from_secs(60);
/// Flows told apart in a minute.
const FLOWS_MAX: usize = 256;
/// Lines told at once in a minute; what is above waits for the summary.
const LINES_MAX: u32 = 20;

impl Denials {
    /// Takes a denial; `line` says it in full.
    pub(crate) fn handle_denied(
        &mut self,
        flow: DeniedFlow,
        line: String,
        now: Instant,
        out: &mut Outputs,
    ) {
        self.summary_at.get_or_insert(now + SUMMARY_EVERY);
        if let Some(repeated) = self.flows.get_mut(&flow) {
            repeated.times += 1;
            return;
        }
        if self.flows.len() >= FLOWS_MAX {
            self.others += 1;
            return;
        }
        let told = self.lines < LINES_MAX;
        if told {
            self.lines += 1;
            out.info(line.clone());
        }
        self.flows.insert(
            flow,
            Repeated {
                line,
                told,
                times: u64::from(!told),
            },
        );
    }

    /// Tells what was held back, when the minute is over.
    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut Outputs) {
        if !self.summary_at.is_some_and(|at| is_due(at, now)) {
            return;
        }
        let ended = std::mem::take(self);
        let mut held_back: Vec<Repeated> = ended
            .flows
            .into_values()
            .filter(|repeated| repeated.times > 0)
            .collect();
        held_back.sort_by_key(|repeated| std::cmp::Reverse(repeated.times));
        let mut others = ended.others;
        for (position, repeated) in held_back.iter().enumerate() {
            if position < LINES_MAX as usize {
                out.info(repeated.summary());
            } else {
                others += repeated.times;
            }
        }
        if others > 0 {
            out.info(format!(
                "{others} more packets of other flows were denied in a minute"
            ));
        }
    }

    pub(crate) fn poll_timeout(&self) -> Timeout {
        self.summary_at.map(|at| (at, "sum up denials"))
    }
}

impl Repeated {
    fn summary(&self) -> String {
        let Self { line, told, times } = self;
        match (told, times) {
            (false, 1) => line.clone(),
            (false, times) => format!("{line}; {times} times in a minute"),
            (true, times) => format!("{line}; {times} times more in a minute"),
        }
    }
}

/// Returns how people call a protocol.
pub(crate) fn protocol_name(number: u8) -> String {
    match number {
        ip_protocol::TCP => "tcp".to_owned(),
        ip_protocol::UDP => "udp".to_owned(),
        ip_protocol::ICMP | ip_protocol::ICMPV6 => "icmp".to_owned(),
        other => format!("protocol {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Output;

    fn flow(port: u16) -> DeniedFlow {
        DeniedFlow {
            direction: Direction::Inbound,
            peer: HostId::from_bytes([1; 16]),
            ip_protocol: ip_protocol::TCP,
            port,
            rule: None,
            needs_workload: false,
            version: PolicyVersion(3),
        }
    }

    fn lines(out: &mut Outputs) -> Vec<String> {
        std::iter::from_fn(|| out.pop())
            .map(|output| match output {
                Output::Notice { message, .. } => message,
                other => panic!("unexpected {other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_flow_is_told_at_once_and_its_repetitions_together() {
        let (mut denials, mut out) = (Denials::default(), Outputs::default());
        for _ in 0..50 {
            denials.handle_denied(flow(22), "no ssh".into(), Instant::START, &mut out);
        }
        assert_eq!(lines(&mut out), ["no ssh"]);
        let (at, _) = denials.poll_timeout().unwrap();
        denials.handle_timeout(at, &mut out);
        assert_eq!(lines(&mut out), ["no ssh; 49 times more in a minute"]);
        assert_eq!(denials.poll_timeout(), None);
    }

    #[test]
    fn a_port_scan_does_not_flood_the_log() {
        let (mut denials, mut out) = (Denials::default(), Outputs::default());
        for port in 1..5000 {
            denials.handle_denied(flow(port), format!("port {port}"), Instant::START, &mut out);
        }
        let at_once = lines(&mut out).len();
        let (at, _) = denials.poll_timeout().unwrap();
        denials.handle_timeout(at, &mut out);
        let summary = lines(&mut out);
        assert_eq!((at_once, summary.len()), (20, 21));
        assert_eq!(
            summary[20],
            "4959 more packets of other flows were denied in a minute"
        );
    }
}
