//! Calls of a service, of which any of its endpoints may get one.

use model::question::Verdict;
use model::record::HostRecord;
use model::rule::{Bundle, ip_protocol};

use super::{Answer, Asked, why};
use crate::explain::some_of;

/// Endpoints that are asked about, of however many.
const ENDPOINTS_MAX: usize = 32;

/// Says whether calls may pass that go to one of the endpoints, of which there is at least one, and which
/// of them they may go to first. A call of a service is brought to another endpoint where one may not
/// be called; datagrams go where the name resolves to.
///
/// # Panics
/// When there is no endpoint.
pub fn why_at_any<'h>(
    bundle: &Bundle,
    asked: &Asked<'_>,
    endpoints: &[&'h HostRecord],
) -> (&'h HostRecord, Answer) {
    let to_each = endpoints.iter().take(ENDPOINTS_MAX).map(|to| {
        let answer = why(bundle, &Asked { to, ..*asked });
        (*to, answer)
    });
    let mut answers: Vec<(&HostRecord, Answer)> = to_each.collect();
    // The first of those with the best verdict.
    let best = answers.iter().map(|(_, answer)| answer.verdict).max();
    let is_best = |(_, answer): &(&HostRecord, Answer)| Some(answer.verdict) == best;
    let first = answers.iter().position(is_best);
    let (to, mut answer) =
        answers.remove(first.expect("a service that is asked about has an endpoint"));
    let differing = answers.iter().filter(|(_, other)| {
        (other.verdict, &other.rule, &other.depends_on)
            != (answer.verdict, &answer.rule, &answer.depends_on)
    });
    let differing: Vec<String> = differing.map(|(host, other)| said(host, other)).collect();
    if !differing.is_empty() {
        let is_up_to_it = asked.ip_protocol != ip_protocol::TCP
            && answers
                .iter()
                .any(|(_, other)| other.verdict != answer.verdict);
        if is_up_to_it {
            answer.notes.insert(0, said(to, &answer));
            answer.verdict = Verdict::Depends;
            answer.rule = None;
            answer.depends_on.insert(0, "the endpoint".to_owned());
        }
        answer.notes.push(some_of(differing, "; "));
    }
    if endpoints.len() > ENDPOINTS_MAX {
        let all = endpoints.len();
        answer
            .notes
            .push(format!("this is of {ENDPOINTS_MAX} of its {all} endpoints"));
    }
    (to, answer)
}

fn said(host: &HostRecord, answer: &Answer) -> String {
    let by = answer
        .rule
        .as_ref()
        .map(|rule| format!(" by rule `{}` ({})", rule.id, rule.source));
    let said = match answer.verdict {
        Verdict::Allowed => format!("allowed{}", by.unwrap_or_default()),
        Verdict::Denied => format!(
            "denied{}",
            by.unwrap_or_else(|| ", no rule allows it".to_owned())
        ),
        Verdict::Depends => format!("depends on {}", answer.depends_on.join(", ")),
    };
    format!("to {}: {said}", host.name)
}
