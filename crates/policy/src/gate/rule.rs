//! One rule of a gate.

use model::time::UnixTime;

use super::WorkloadIndex;
use crate::call::RequestFacts;
use crate::reference::Effect;
use crate::request_match::RequestPattern;
use crate::table::RuleInfo;
use crate::table::peer_set::SetId;
use crate::window::Window;

#[derive(Debug)]
pub(super) struct GateRule {
    pub(super) info: RuleInfo,
    /// The hosts that match whoever on them calls.
    pub(super) from_hosts: Option<SetId>,
    /// The workloads that match.
    pub(super) from_workloads: Box<[WorkloadIndex]>,
    /// The hosts that may run one of them.
    pub(super) from_workload_hosts: Option<SetId>,
    pub(super) names_workload: bool,
    /// Any of these; none: any request, and any bytes.
    pub(super) http: Box<[RequestPattern]>,
    pub(super) when: Option<Window>,
}

impl GateRule {
    pub(super) fn needs_workload(&self) -> bool {
        self.names_workload
    }

    pub(super) fn needs_request(&self) -> bool {
        !self.http.is_empty()
    }

    pub(super) fn needs_path(&self) -> bool {
        self.http.iter().any(RequestPattern::reads_path)
    }

    pub(super) fn needs_headers(&self) -> bool {
        self.http.iter().any(RequestPattern::reads_headers)
    }

    pub(super) fn matches_when(&self, at: UnixTime, effect: Effect) -> bool {
        self.when
            .as_ref()
            .is_none_or(|window| window.is_open(at, effect))
    }

    /// See `reference` for what is no request.
    pub(super) fn matches_request(
        &self,
        request: Option<&RequestFacts<'_>>,
        effect: Effect,
    ) -> bool {
        if self.http.is_empty() {
            return true;
        }
        match request {
            None => effect == Effect::Deny,
            Some(request) => {
                let mut patterns = self.http.iter();
                patterns.any(|pattern| pattern.matches(request, effect))
            }
        }
    }
}
