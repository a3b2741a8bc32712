//! Why a connection or a request is allowed or denied: the rule that decided, and those that match
//! except for one thing, which is named.

use model::rule::{Bundle, Rule};

use super::near_misses::{allowing, near_misses};
use super::{called, described};
use crate::call::{Ruling, Target};
use crate::partly_known::{Caller, Carries, KnownRequest, Moment, PartlyKnown};
use crate::reference::call::KnownCall;
use crate::reference::{Call, decide_call};
use crate::table::RuleInfo;

/// A decision about a call with what surrounds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestExplained {
    /// Whether the call may pass.
    pub allowed: bool,
    /// The rule that decided, if one did.
    pub rule: Option<RuleInfo>,
    /// What was decided and by what, as a sentence: "denied by rule `no-admin` (policy.yaml:12)".
    pub decision: String,
    /// One sentence each, the most useful first; at most as many as for packets.
    pub near_misses: Vec<String>,
}

impl RequestExplained {
    /// Returns what is said of hosts that this one knows nothing of.
    pub(crate) fn of_strangers() -> Self {
        Self {
            allowed: false,
            rule: None,
            decision: "denied: no rule allows it".to_owned(),
            near_misses: vec!["one of the two hosts is not known here".to_owned()],
        }
    }
}

/// Decides as [`decide_call`], and says which rules nearly decided otherwise.
pub fn explain_call(bundle: &Bundle, call: &Call<'_>) -> RequestExplained {
    let ruling = decide_call(bundle, call);
    let decision = match ruling {
        Ruling::Allow(rule) => format!("allowed by rule {}", called(rule)),
        Ruling::DenyByRule(rule) => format!("denied by rule {}", called(rule)),
        Ruling::DenyByDefault => "denied: no rule allows it".to_owned(),
        Ruling::DenyUnknownWorkload(rule) => format!(
            "denied: who on {} calls is not known, and rule {} has to know",
            call.from.name,
            called(rule)
        ),
    };
    let mut near_misses = match KnownCall::of(bundle, call) {
        None => vec![not_offered(call)],
        Some(known) => beside(&partly(call, &known), ruling),
    };
    near_misses.truncate(super::Explained::NEAR_MISSES_MAX);
    RequestExplained {
        allowed: ruling.is_allowed(),
        rule: ruling.rule().map(RuleInfo::of),
        decision,
        near_misses,
    }
}

/// Says which rules come close to allowing a call that was denied, of which not everything was kept;
/// `is_by_rule`: a deny took it. Nothing is said where what it was denied for is not known any more.
pub(crate) fn near_misses_of_denied(
    bundle: &Bundle,
    call: &Call<'_>,
    is_by_rule: bool,
) -> Vec<String> {
    let Some(known) = KnownCall::of(bundle, call) else {
        return vec![not_offered(call)];
    };
    let partly = partly(call, &known);
    if !is_by_rule && allowing(&partly).next().is_some() {
        return Vec::new();
    }
    near_misses(&partly, is_by_rule)
}

/// A call of which what is not known was not kept.
fn partly<'q>(call: &Call<'q>, known: &KnownCall<'q>) -> PartlyKnown<'q> {
    PartlyKnown {
        flow: known.flow,
        caller: match (known.workload, call.workload) {
            (Some(workload), _) => Caller::Workload(workload),
            (None, Some(claimed)) => Caller::Pretender(claimed),
            (None, None) => Caller::Nobody,
        },
        carries: match &call.request {
            None => Carries::Bytes,
            Some(request) => Carries::Request(KnownRequest::of(request)),
        },
        moment: call.at.map_or(Moment::NotAsked, Moment::At),
        forgets: true,
    }
}

fn not_offered(call: &Call<'_>) -> String {
    match call.target {
        Target::Service(name) => {
            format!(
                "{} is not an endpoint of service {name}",
                described(call.to)
            )
        }
        Target::Port(port) => format!("{} has no tcp {port}", call.to.name),
    }
}

/// Returns what is told of other rules beside a decision about a call.
fn beside(call: &PartlyKnown<'_>, ruling: Ruling<&Rule>) -> Vec<String> {
    match ruling {
        Ruling::Allow(decided) => allowing(call)
            .filter(|rule| *rule != decided)
            .map(|rule| format!("rule {} allows it too", called(rule)))
            .collect(),
        Ruling::DenyByRule(_) => near_misses(call, true),
        Ruling::DenyUnknownWorkload(_) | Ruling::DenyByDefault => near_misses(call, false),
    }
}
