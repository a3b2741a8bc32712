//! Calls of a service, of which any of its endpoints may get one.

use model::question::Verdict;
use model::record::HostRecord;
use model::rule::{Bundle, ip_protocol};

use super::steps::Steps;
use super::{Answer, Asked, Detail, why_within};
use crate::explain::some_of;
use crate::reference::service_named;

/// Endpoints that are asked about, of however many.
const ENDPOINTS_MAX: usize = 32;

/// Says whether calls may pass that go to one of the endpoints, of which there is at least one, and which
/// of them they may go to first. A call of a service is brought to another endpoint where one may not
/// be called, and to none that data of the service may not go to; datagrams go where the name resolves
/// to.
///
/// # Panics
/// When there is no endpoint.
pub fn why_at_any<'h>(
    bundle: &Bundle,
    asked: &Asked<'_>,
    endpoints: &[&'h HostRecord],
) -> (&'h HostRecord, Answer) {
    let (endpoints, non_residents) = residents(bundle, asked, endpoints);
    let looked_at = endpoints.len().min(ENDPOINTS_MAX);
    let answer_of = |to, detail| {
        let steps = Steps::share(looked_at);
        why_within(bundle, &Asked { to, ..*asked }, steps, detail)
    };
    let to_each = endpoints[..looked_at]
        .iter()
        .map(|to| (*to, answer_of(to, Detail::Decision)));
    let mut answers: Vec<(&HostRecord, Answer)> = to_each.collect();
    // The first of those with the best verdict.
    let best = answers.iter().map(|(_, answer)| answer.verdict).max();
    let is_best = |(_, answer): &(&HostRecord, Answer)| Some(answer.verdict) == best;
    let first = answers.iter().position(is_best);
    let (to, _) = answers.remove(first.expect("a service that is asked about has an endpoint"));
    let mut answer = answer_of(to, Detail::All);
    let differing = answers.iter().filter(|(_, other)| {
        (other.verdict, &other.rule, &other.depends_on)
            != (answer.verdict, &answer.rule, &answer.depends_on)
    });
    let differing: Vec<String> = differing.map(|(host, other)| said(host, other)).collect();
    // One call may go to any of them, and one datagram to a single one.
    let is_one_enough = asked.ip_protocol == ip_protocol::TCP;
    let is_some_left_out = endpoints.len() > looked_at;
    let is_up_to_it = match is_some_left_out {
        true => !is_one_enough || answer.verdict == Verdict::Denied,
        false => {
            let mut others = answers.iter();
            !is_one_enough && others.any(|(_, other)| other.verdict != answer.verdict)
        }
    };
    if is_up_to_it {
        answer.notes.insert(0, said(to, &answer));
        answer.verdict = Verdict::Depends;
        answer.rule = None;
        answer.depends_on.insert(0, "the endpoint".to_owned());
    }
    answer
        .notes
        .extend((!differing.is_empty()).then(|| some_of(differing, "; ")));
    if is_some_left_out {
        let all = endpoints.len();
        answer
            .notes
            .push(format!("this is of {looked_at} of its {all} endpoints"));
    }
    answer.notes.extend(non_residents);
    (to, answer)
}

/// Returns the endpoints that data of the service may go to, and what is to be said of the others. If
/// there are only others, all: what the policy says of them is still the question.
fn residents<'h>(
    bundle: &Bundle,
    asked: &Asked<'_>,
    endpoints: &[&'h HostRecord],
) -> (Vec<&'h HostRecord>, Option<String>) {
    let called = asked.facts.service.as_ref();
    let service = called
        .filter(|_| asked.ip_protocol == ip_protocol::TCP)
        .and_then(|name| service_named(bundle, name, ip_protocol::TCP));
    let residency = service.map_or(&[][..], |service| &service.settings.residency);
    let is_resident = |host: &&&HostRecord| {
        let mut labels = residency.iter();
        labels.all(|label| host.labels.get(&label.key) == Some(&label.value))
    };
    let (residents, others): (Vec<_>, Vec<_>) = endpoints.iter().partition(is_resident);
    if others.is_empty() {
        return (residents, None);
    }
    let names = others.iter().map(|host| host.name.to_string()).collect();
    let labels: Vec<String> = residency.iter().map(ToString::to_string).collect();
    let note = format!(
        "no call goes to {}: its residency is {}",
        some_of(names, ", "),
        labels.join(" and ")
    );
    match residents.is_empty() {
        true => (others, Some(note)),
        false => (residents, Some(note)),
    }
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
