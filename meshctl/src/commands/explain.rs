//! `meshctl explain`: one call of a service by its id: who decided what, whom it was sent to, and how
//! long each part took.

use model::local::{CallExplained, CallPart};

use crate::arguments::{Explain, Targets};
use crate::failure::Failure;
use crate::membership::member;
use crate::output::{Output, Tone, bytes, time};

/// Shows what this host knows of a call.
///
/// # Errors
/// The daemon does not answer or refuses, or it knows nothing of the call.
pub async fn explain(asked: Explain, targets: &Targets, output: &Output) -> Result<(), Failure> {
    let id = asked.id.trim().to_ascii_lowercase();
    if id.len() != 16 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Failure::Usage(format!(
            "{:?} is no id of a call: it has 16 hexadecimal digits, as in the header mesh-call of an answer",
            asked.id
        )));
    }
    let calls: Vec<CallExplained> = member(targets)
        .await?
        .get(&format!("/v1/calls/{id}"))
        .await?;
    if calls.is_empty() {
        return Err(Failure::Failed(format!(
            "this host knows nothing of a call {id}: it was carried by other hosts, or so many came after it that it was forgotten; ask at the caller's host"
        )));
    }
    output.show("CallList", &calls, |output| {
        let texts: Vec<String> = calls.iter().map(|call| text(call, output)).collect();
        texts.join("\n\n")
    });
    Ok(())
}

fn text(call: &CallExplained, output: &Output) -> String {
    let mut lines = vec![headline(call)];
    let mut line = |name: &str, text: String| lines.push(format!("  {name:<9} {text}"));
    line("began", format!("{} UTC", moment(call.began_millis)));
    let caller = call.workload.as_ref().map_or_else(
        || format!("{} (no workload of the policy)", call.from),
        |workload| format!("workload {workload} on {}", call.from),
    );
    line("caller", caller);
    let tone = match call.decision.starts_with("denied") {
        true => Tone::Bad,
        false => Tone::Good,
    };
    let decided = output.paint(tone, &call.decision);
    line("policy", format!("{decided}, version {}", call.policy));
    for near_miss in &call.near_misses {
        line("", near_miss.clone());
    }
    line("endpoint", endpoints(call));
    if let Some(why) = &call.gave_up {
        line("", format!("not sent once more: {}", gave_up(why)));
    }
    line("answer", answer(call, output));
    line("time", times(call));
    let (asked, answered) = (bytes(call.request_bytes), bytes(call.answer_bytes));
    line(
        "bytes",
        format!("{asked} from the caller, {answered} to it"),
    );
    lines.join("\n")
}

fn headline(call: &CallExplained) -> String {
    let part = match call.part {
        CallPart::Source => "as its source",
        CallPart::Destination => "as its destination",
    };
    let what = match (&call.method, &call.path) {
        (Some(method), Some(path)) => format!("{method} {path}"),
        _ => "a connection".to_owned(),
    };
    let service = call.service.as_ref();
    let service = service.map(|name| format!(", where service {name} is"));
    let service = service.unwrap_or_default();
    format!("{} {what} to {}{service}, {part}", call.id, call.to)
}

fn moment(millis: u64) -> String {
    let whole = time(millis / 1000);
    format!("{}.{:03}", whole.trim_end_matches('Z'), millis % 1000)
}

fn endpoints(call: &CallExplained) -> String {
    let Some((last, before)) = call.tried.split_last() else {
        return "none was asked".to_owned();
    };
    let choice = call.choice.as_ref();
    let choice = choice.map(|why| format!(": {why}")).unwrap_or_default();
    match before {
        [] => format!("{last}{choice}"),
        before => format!("{last}{choice}; tried before: {}", before.join(", ")),
    }
}

fn gave_up(why: &str) -> &str {
    match why {
        "attempts_used" => "it was sent as often as the service allows",
        "not_idempotent" => {
            "the endpoint may have done it, and its method says not that it may be done twice"
        }
        "not_replayable" => "part of its body was gone",
        "told_not_to" => "the endpoint is overloaded and asked not to",
        "definite" => "the endpoint failed in a way that another attempt would not change",
        "nobody_else" => "there was nobody else to ask",
        "budget_used" => "the retries of the service were used up",
        "deadline" => "there was no time left",
        other => other,
    }
}

fn answer(call: &CallExplained, output: &Output) -> String {
    let status = match (call.status, call.grpc_status) {
        (Some(status), Some(grpc)) => format!("{status}, gRPC status {grpc}"),
        (Some(status), None) => status.to_string(),
        (None, _) if call.method.is_none() => "bytes".to_owned(),
        (None, _) => "none".to_owned(),
    };
    match &call.reason {
        None => status,
        Some(reason) => {
            let by_mesh = output.paint(Tone::Bad, &format!("by the mesh: {reason}"));
            format!("{status}, {by_mesh}")
        }
    }
}

/// Says how long it was at what, as far as it came and this host knows.
fn times(call: &CallExplained) -> String {
    let source = call.part == CallPart::Source;
    let answer = Some(call.answer_micros).filter(|_| call.first_byte_micros.is_none());
    let stages = [
        ("queue", source.then_some(call.queue_micros)),
        ("connect", call.connect_micros),
        ("tunnel", call.tunnel_micros),
        ("server queue", call.server_queue_micros),
        ("first byte", call.first_byte_micros),
        ("to the answer's head", answer.filter(|micros| *micros > 0)),
        (
            "body",
            Some(call.body_micros).filter(|_| call.answer_micros > 0),
        ),
    ];
    let millis = |micros: u64| format!("{:.1}", micros as f64 / 1000.0);
    let parts = stages
        .into_iter()
        .filter_map(|(stage, micros)| Some(format!("{stage} {}", millis(micros?))));
    let all = call.queue_micros + call.answer_micros + call.body_micros;
    format!(
        "{} ms: {}",
        millis(all),
        parts.collect::<Vec<_>>().join(", ")
    )
}

#[cfg(test)]
mod tests {
    use model::ids::PolicyVersion;

    use super::*;
    use crate::output::Color;

    fn denied() -> CallExplained {
        CallExplained {
            id: "00000000000000ab".into(),
            part: CallPart::Source,
            began_millis: 3_600_007,
            from: "edge-1".into(),
            workload: Some("web".into()),
            to: "orders".into(),
            service: None,
            method: Some("DELETE".into()),
            path: Some("/v1/items".into()),
            status: Some(403),
            grpc_status: None,
            reason: Some("denied".into()),
            policy: PolicyVersion(7),
            decision: "denied: no rule allows it".into(),
            rule: None,
            source: None,
            near_misses: vec!["rule web-orders-read matches except the method".into()],
            tried: Vec::new(),
            choice: None,
            gave_up: None,
            queue_micros: 120,
            answer_micros: 0,
            connect_micros: None,
            tunnel_micros: None,
            server_queue_micros: None,
            first_byte_micros: None,
            body_micros: 0,
            request_bytes: 0,
            answer_bytes: 61,
        }
    }

    #[test]
    fn a_denial_tells_who_asked_for_what_and_what_nearly_allowed_it() {
        let output = Output::new(false, Color::Never);
        assert_eq!(
            text(&denied(), &output),
            "\
00000000000000ab DELETE /v1/items to orders, as its source
  began     1970-01-01T01:00:00.007 UTC
  caller    workload web on edge-1
  policy    denied: no rule allows it, version 7
            rule web-orders-read matches except the method
  endpoint  none was asked
  answer    403, by the mesh: denied
  time      0.1 ms: queue 0.1
  bytes     0 B from the caller, 61 B to it"
        );
    }

    #[test]
    fn a_dial_tells_the_host_and_which_service_is_there() {
        let dialled = CallExplained {
            to: "app-1:8080".into(),
            service: Some("orders".into()),
            ..denied()
        };
        let said = "00000000000000ab DELETE /v1/items to app-1:8080, where service orders is, as its source";
        assert_eq!(headline(&dialled), said);
    }

    #[test]
    fn a_call_that_failed_tells_whom_it_was_sent_to_and_why_not_once_more() {
        let output = Output::new(false, Color::Never);
        let call = CallExplained {
            decision: "allowed by rule web-orders (policy.yaml:9)".into(),
            near_misses: Vec::new(),
            tried: vec!["app-1".into(), "app-2".into()],
            choice: Some("it had the least to do, of 2 that were ready".into()),
            gave_up: Some("attempts_used".into()),
            ..denied()
        };
        let text = text(&call, &output);
        let endpoint = "app-2: it had the least to do, of 2 that were ready; tried before: app-1";
        assert!(text.contains(endpoint), "{text}");
        assert!(
            text.contains("not sent once more: it was sent as often"),
            "{text}"
        );
    }
    #[test]
    fn the_time_of_a_call_is_told_by_what_it_was_at() {
        let call = CallExplained {
            answer_micros: 20_300,
            connect_micros: Some(0),
            tunnel_micros: Some(1_200),
            server_queue_micros: Some(100),
            first_byte_micros: Some(19_000),
            body_micros: 2_000,
            ..denied()
        };
        assert_eq!(
            times(&call),
            "22.4 ms: queue 0.1, connect 0.0, tunnel 1.2, server queue 0.1, first byte 19.0, body 2.0"
        );
        let silent = CallExplained {
            tunnel_micros: None,
            server_queue_micros: None,
            first_byte_micros: None,
            ..call
        };
        let said = "22.4 ms: queue 0.1, connect 0.0, to the answer's head 20.3, body 2.0";
        assert_eq!(times(&silent), said);
    }
}
