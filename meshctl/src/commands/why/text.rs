//! The answer to "why", for people: from the name to the listener, and what is in the way.

use model::admin::{Decision, EndAnswer, WhyReport};
use model::local::LocalWhyReport;
use model::name::Name;
use model::pair::{Listener, PairDrop, PairFacts};
use model::question::Verdict;

use crate::output::{Output, Tone, span};

/// Returns what the coordinator and both ends say.
pub(super) fn report_text(report: &WhyReport, output: &Output) -> String {
    let flow = flow(
        report.from.as_str(),
        report.to.as_str(),
        &report.protocol,
        report.port,
        report.service.as_ref(),
    );
    let addresses: Vec<String> = report.addresses.iter().map(ToString::to_string).collect();
    let mut lines = vec![
        flow,
        format!("  {:<12} {} is {}", "name", report.to, addresses.join(" ")),
        format!(
            "  {:<12} {}",
            "policy",
            decision_text(&report.policy, output)
        ),
    ];
    lines.extend(notes(&report.policy, output));
    let ends = [
        (&report.from, &report.to, &report.source),
        (&report.to, &report.from, &report.destination),
    ];
    for (end, other, answer) in ends {
        let at = format!("at {end}");
        match answer {
            EndAnswer::Answered(said) => {
                lines.push(format!(
                    "  {at:<12} {}",
                    decision_text(&said.decision, output)
                ));
                // What was said above once is enough.
                if said.decision.notes != report.policy.notes {
                    lines.extend(notes(&said.decision, output));
                }
                match &said.pair {
                    Some(pair) => lines.extend(pair_lines(pair, other.as_str(), report, output)),
                    None => lines.push(faint(&format!("{other} is not known there"), output)),
                }
            }
            EndAnswer::Offline => lines.push(format!(
                "  {at:<12} {}",
                output.paint(Tone::Doubtful, "offline: it enforces what it knows")
            )),
            EndAnswer::Silent => lines.push(format!(
                "  {at:<12} {}",
                output.paint(Tone::Doubtful, "connected, but did not answer in time")
            )),
        }
    }
    if let Some(obstacle) = obstacle(report) {
        lines.push(format!(
            "  {:<12} {}",
            "in the way",
            output.paint(Tone::Bad, &obstacle)
        ));
    }
    lines.join("\n")
}

/// Returns what this host alone says.
pub(super) fn local_text(report: &LocalWhyReport, output: &Output) -> String {
    let (from, to) = (report.from.as_str(), report.to.as_str());
    let protocol = report.protocol.as_str();
    let other = if report.inbound { from } else { to };
    let addresses: Vec<String> = report
        .pair
        .addresses
        .iter()
        .map(ToString::to_string)
        .collect();
    let mut lines = vec![
        flow(from, to, protocol, report.port, report.service.as_ref()),
        format!("  {:<12} {other} is {}", "name", addresses.join(" ")),
        format!(
            "  {:<12} {}",
            "here",
            decision_text(&report.decision, output)
        ),
    ];
    lines.extend(notes(&report.decision, output));
    lines.push(path_line(&report.pair, other, output));
    lines.extend(drop_line(&report.pair, other, output));
    lines.extend(listener_line(&report.pair, protocol, report.port, output));
    lines.push(format!(
        "  {}",
        output.paint(Tone::Faint, "(this host's answer alone)")
    ));
    lines.join("\n")
}

fn flow(from: &str, to: &str, protocol: &str, port: u16, service: Option<&Name>) -> String {
    match (port, service) {
        (0, _) => format!("{from} → {to} {protocol}"),
        (_, None) => format!("{from} → {to}:{port}/{protocol}"),
        (_, Some(service)) => format!("{from} → {service}, as at {to}:{port}/{protocol}"),
    }
}

fn decision_text(decision: &Decision, output: &Output) -> String {
    let verdict = match (decision.verdict, decision.allowed) {
        (Some(Verdict::Depends), _) => output.paint(Tone::Doubtful, "depends"),
        (_, true) => output.paint(Tone::Good, "allowed"),
        (_, false) => output.paint(Tone::Bad, "denied"),
    };
    let reason = match (&decision.rule, &decision.rule_source) {
        (Some(rule), Some(source)) => format!(" by rule {rule} ({source})"),
        (Some(rule), None) => format!(" by rule {rule}"),
        (None, _) if !decision.depends_on.is_empty() => {
            format!(" on {}", decision.depends_on.join(", "))
        }
        (None, _) => ", no rule allows it".into(),
    };
    let of_packets = match decision.verdict {
        Some(_) => "",
        None => " (of packets alone, by an older program)",
    };
    let version = decision.version;
    format!("{verdict}{reason}, policy version {version}{of_packets}")
}

fn notes<'a>(decision: &'a Decision, output: &'a Output) -> impl Iterator<Item = String> + 'a {
    decision.notes.iter().map(|note| faint(note, output))
}

fn faint(text: &str, output: &Output) -> String {
    format!("      {}", output.paint(Tone::Faint, text))
}

fn pair_lines(pair: &PairFacts, other: &str, report: &WhyReport, output: &Output) -> Vec<String> {
    let mut lines = vec![path_line(pair, other, output)];
    lines.extend(drop_line(pair, other, output));
    lines.extend(listener_line(pair, &report.protocol, report.port, output));
    lines
}

fn path_line(pair: &PairFacts, other: &str, output: &Output) -> String {
    let handshake = match pair.last_handshake_secs {
        Some(secs) => format!("last handshake {} ago", span(secs)),
        None => "no handshake yet".into(),
    };
    let text = match (pair.endpoint, pair.answers) {
        (Some(at), true) => format!("path: {other} answers at {at}; {handshake}"),
        (Some(at), false) => format!("path: {other} has not answered at {at}; {handshake}"),
        (None, _) => format!("path: nobody says where {other} can be reached; {handshake}"),
    };
    faint(&text, output)
}

fn drop_line(pair: &PairFacts, other: &str, output: &Output) -> Option<String> {
    let PairDrop {
        secs_ago,
        inbound,
        ip_protocol,
        port,
        rule,
    } = pair.last_drop.as_ref()?;
    let what = match (ip_protocol, port) {
        (6, port) => format!("tcp {port}"),
        (17, port) => format!("udp {port}"),
        (1 | 58, _) => "icmp".into(),
        (other, _) => format!("IP protocol {other}"),
    };
    let way = if *inbound { "from" } else { "to" };
    let by = rule
        .as_ref()
        .map_or_else(|| "no rule".into(), |rule| format!("rule {rule}"));
    let text = format!(
        "last drop: {what} {way} {other}, {} ago ({by})",
        span(*secs_ago)
    );
    Some(faint(&text, output))
}

fn listener_line(pair: &PairFacts, protocol: &str, port: u16, output: &Output) -> Option<String> {
    let at = format!("{protocol} {port}");
    let text = match pair.listener? {
        Listener::Listening => format!("listener: a program listens on {at}"),
        Listener::Elsewhere => {
            format!("listener: a program listens on {at}, but not on the overlay's addresses")
        }
        Listener::Nothing => format!("listener: nothing listens on {at}"),
    };
    Some(faint(&text, output))
}

/// An older program tells of packets alone.
fn is_denied(decision: &Decision) -> bool {
    decision
        .verdict
        .map_or(!decision.allowed, |verdict| verdict == Verdict::Denied)
}

/// Finds what keeps a flow from working that the policy allows; the first of what there may be.
fn obstacle(report: &WhyReport) -> Option<String> {
    if is_denied(&report.policy) {
        return None;
    }
    let (from, to) = (&report.from, &report.to);
    let (source, destination) = match (&report.source, &report.destination) {
        (EndAnswer::Offline, _) => return Some(format!("{from} has no coordinator")),
        (_, EndAnswer::Offline) => return Some(format!("{to} has no coordinator; is it up?")),
        (EndAnswer::Answered(source), EndAnswer::Answered(destination)) => (source, destination),
        _ => return None,
    };
    for (end, said) in [(from, source), (to, destination)] {
        if is_denied(&said.decision) {
            return Some(format!(
                "{end} enforces version {}, which denies it",
                said.decision.version
            ));
        }
    }
    let pair = source.pair.as_ref()?;
    if pair.last_handshake_secs.is_none() && pair.endpoint.is_none() {
        return Some(format!("{from} knows no way to {to}"));
    }
    match destination.pair.as_ref().and_then(|pair| pair.listener) {
        Some(Listener::Nothing) => Some(format!("nothing listens on {to}")),
        // The daemon there brings calls of a service to loopback, too.
        Some(Listener::Elsewhere) if report.protocol == "tcp" => Some(format!(
            "on {to} the program listens on other addresses only, such as loopback: calls of a \
             service reach it there, direct dials do not"
        )),
        Some(Listener::Elsewhere) => Some(format!(
            "on {to} the program listens on other addresses only, such as loopback"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use model::admin::EndReport;
    use model::ids::PolicyVersion;

    use super::*;
    use crate::output::Color;

    fn decision(allowed: bool) -> Decision {
        Decision {
            allowed,
            verdict: Some(match allowed {
                true => Verdict::Allowed,
                false => Verdict::Denied,
            }),
            depends_on: Vec::new(),
            rule: allowed.then(|| "web-db".into()),
            rule_source: allowed.then(|| "policy.yaml:8".into()),
            version: PolicyVersion(2),
            notes: Vec::new(),
        }
    }

    fn end(listener: Option<Listener>) -> EndAnswer {
        EndAnswer::Answered(Box::new(EndReport {
            decision: decision(true),
            pair: Some(PairFacts {
                addresses: vec![[100, 64, 0, 17].into()],
                endpoint: Some("192.0.2.17:51820".parse().unwrap()),
                answers: true,
                last_handshake_secs: Some(12),
                last_drop: listener.map(|_| PairDrop {
                    secs_ago: 61,
                    inbound: true,
                    ip_protocol: 6,
                    port: 22,
                    rule: None,
                }),
                listener,
            }),
        }))
    }

    fn report(listener: Listener) -> WhyReport {
        WhyReport {
            from: "web-1".parse().unwrap(),
            to: "db-1".parse().unwrap(),
            addresses: vec![[100, 64, 0, 17].into()],
            protocol: "tcp".into(),
            port: 5432,
            service: None,
            policy: decision(true),
            source: end(None),
            destination: end(Some(listener)),
        }
    }

    #[test]
    fn an_answer_goes_from_the_name_to_the_listener() {
        let output = Output::new(false, Color::Never);
        assert_eq!(
            report_text(&report(Listener::Nothing), &output),
            "\
web-1 → db-1:5432/tcp
  name         db-1 is 100.64.0.17
  policy       allowed by rule web-db (policy.yaml:8), policy version 2
  at web-1     allowed by rule web-db (policy.yaml:8), policy version 2
      path: db-1 answers at 192.0.2.17:51820; last handshake 12s ago
  at db-1      allowed by rule web-db (policy.yaml:8), policy version 2
      path: web-1 answers at 192.0.2.17:51820; last handshake 12s ago
      last drop: tcp 22 from web-1, 1m01s ago (no rule)
      listener: nothing listens on tcp 5432
  in the way   nothing listens on db-1"
        );
    }

    #[test]
    fn what_it_depends_on_is_told_once_with_the_rules() {
        let output = Output::new(false, Color::Never);
        let depends = Decision {
            allowed: false,
            verdict: Some(Verdict::Depends),
            depends_on: vec!["which workload calls".into(), "the method".into()],
            rule: None,
            rule_source: None,
            version: PolicyVersion(2),
            notes: vec!["workload web: depends on the method".into()],
        };
        let mut report = WhyReport {
            service: Some("orders".parse().unwrap()),
            policy: depends.clone(),
            ..report(Listener::Nothing)
        };
        if let EndAnswer::Answered(said) = &mut report.destination {
            said.decision = depends;
        }
        let text = report_text(&report, &output);
        let lines: Vec<&str> = text.lines().collect();
        let said = "depends on which workload calls, the method, policy version 2";
        assert_eq!(lines[0], "web-1 → orders, as at db-1:5432/tcp");
        assert_eq!(lines[2], format!("  policy       {said}"));
        assert_eq!(lines[3], "      workload web: depends on the method");
        assert!(
            text.contains(&format!("  at db-1      {said}\n      path:")),
            "{text}"
        );
        assert_eq!(
            obstacle(&report).as_deref(),
            Some("nothing listens on db-1")
        );
    }

    #[test]
    fn loopback_is_in_the_way_of_some() {
        let mut elsewhere = report(Listener::Elsewhere);
        let tcp = obstacle(&elsewhere).unwrap();
        assert!(tcp.contains("direct dials do not"), "{tcp}");
        elsewhere.protocol = "udp".into();
        let udp = obstacle(&elsewhere).unwrap();
        assert!(!udp.contains("service"), "{udp}");
    }

    #[test]
    fn the_first_obstacle_is_named() {
        assert_eq!(obstacle(&report(Listener::Listening)), None);
        let mut denied = report(Listener::Nothing);
        denied.policy = decision(false);
        assert_eq!(obstacle(&denied), None, "the policy says it already");
        let mut offline = report(Listener::Nothing);
        offline.destination = EndAnswer::Offline;
        assert!(
            obstacle(&offline)
                .unwrap()
                .contains("db-1 has no coordinator")
        );
        let mut behind = report(Listener::Nothing);
        if let EndAnswer::Answered(said) = &mut behind.source {
            said.decision = decision(false);
        }
        assert!(
            obstacle(&behind)
                .unwrap()
                .contains("web-1 enforces version 2")
        );
        let mut lost = report(Listener::Nothing);
        if let EndAnswer::Answered(said) = &mut lost.source {
            said.pair = Some(PairFacts::default());
        }
        assert!(obstacle(&lost).unwrap().contains("no way to db-1"));
    }
}
