//! What a policy would change, bound to the hosts as it would be when it is applied: names mean ids
//! in both, what is in force and what is proposed. The plan itself is work for another thread.

use model::admin::{DiagnosticView, PlanRequest, PlannedPolicy};
use model::control::RefusalCode;
use model::ids::PolicyVersion;
use model::record::HostRecord;
use model::rule::Bundle;

use crate::fleet::Fleet;
use crate::output::{Rejection, Reply};

/// Everything that a plan is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanBasis {
    base: PolicyVersion,
    in_force: Bundle,
    proposed: Bundle,
    hosts: Vec<HostRecord>,
    diagnostics: Vec<DiagnosticView>,
}

impl PlanBasis {
    /// Makes the plan. Takes a while for large fleets; bounded by `policy::plan`.
    pub fn plan(&self) -> PlannedPolicy {
        PlannedPolicy {
            base: self.base,
            plan: policy::plan(&self.in_force, &self.proposed, &self.hosts),
            diagnostics: self.diagnostics.clone(),
        }
    }
}

impl Fleet {
    pub(crate) fn plan_basis(&self, request: &PlanRequest) -> Result<Reply, Rejection> {
        let files = match (request.version, request.files.is_empty()) {
            (Some(version), true) => &self.version(version)?.files,
            (None, false) => &request.files,
            _ => {
                let text = "a plan is made of files or of a version, and not of both";
                return Err(Rejection::new(RefusalCode::Invalid, text));
            }
        };
        let hosts = self.state.inventory();
        let (checked, proposed) = self.bind(files, &hosts)?;
        let mut diagnostics: Vec<DiagnosticView> =
            checked.warnings.iter().map(DiagnosticView::from).collect();
        match self.check_enforceable(&proposed) {
            Ok(warnings) => diagnostics.extend(warnings),
            // It would be refused: the plan says so, and shows the rest.
            Err(refused) => diagnostics.push(DiagnosticView {
                severity: "error".to_owned(),
                file: String::new(),
                line: 0,
                column: 0,
                message: refused.refusal.message,
                help: None,
            }),
        }
        Ok(Reply::PolicyToPlan(Box::new(PlanBasis {
            base: self.state.policy.version,
            in_force: self.state.policy.bundle.clone(),
            proposed,
            hosts,
            diagnostics,
        })))
    }
}
