//! What rules could let through at most, by hosts and ports alone: whatever the request, the hour or
//! the process. Whoever could be let through somewhere has to find its name and its host; what is
//! let through is decided by `policy`.

use model::rule::{Bundle, Rule, Selector};

/// Returns the bundle of the widest packet rules; `None`: those of the bundle are all of that kind.
pub(crate) fn widest(bundle: &Bundle) -> Option<Bundle> {
    let mut rules = bundle.allow.iter().chain(&bundle.deny);
    if !rules.any(Rule::needs_more_than_packets) {
        return None;
    }
    let denies = bundle.deny.iter();
    Some(Bundle {
        allow: bundle
            .allow
            .iter()
            .filter_map(|it| opened(it, bundle))
            .collect(),
        // One that needs to know more may match nothing of a host.
        deny: denies
            .filter(|it| !it.needs_more_than_packets())
            .cloned()
            .collect(),
        ..bundle.clone()
    })
}

/// Returns an allow without what packets cannot show; `None`: nobody is in its `from`.
fn opened(rule: &Rule, bundle: &Bundle) -> Option<Rule> {
    let from: Vec<Selector> = rule
        .from
        .iter()
        .flat_map(|selector| match selector {
            Selector::Workload(name) => bundle
                .workload(name)
                .map_or_else(Vec::new, |workload| workload.hosts.clone()),
            other => vec![other.clone()],
        })
        .collect();
    (!from.is_empty()).then(|| Rule {
        from,
        http: Vec::new(),
        when: None,
        ..rule.clone()
    })
}
