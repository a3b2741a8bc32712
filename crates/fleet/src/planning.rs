//! What a policy would change, bound to the hosts as it would be when it is applied: names mean ids
//! in both, what is in force and what is proposed. The plan itself is work for another thread.

use model::admin::{DiagnosticView, PlanRequest};
use model::control::RefusalCode;

use crate::fleet::Fleet;
use crate::output::{Rejection, Reply};
use crate::policy_work::{Task, Worked};
use crate::service_addresses::without_addresses;
use crate::work::Plan;

impl Fleet {
    pub(crate) fn plan_changes(
        &self,
        request: &PlanRequest,
        worked: Option<Worked>,
    ) -> Result<Plan, Rejection> {
        let Some(Worked::Plan(mut planned, mut proposed)) = worked else {
            let (files, former) = match (request.version, request.files.is_empty()) {
                (Some(version), true) => {
                    (self.version_files(version)?, self.names_of_version(version))
                }
                (None, false) => (request.files.clone(), self.names_of_late()),
                _ => {
                    let text = "a plan is made of files or of a version, and not of both";
                    return Err(Rejection::new(RefusalCode::Invalid, text));
                }
            };
            let task = Task::Plan {
                base: self.state.policy.version,
                // Nobody wrote these.
                in_force: without_addresses(&self.state.policy.bundle),
            };
            return Ok(Plan::HandOut(self.work_on(files, former, task)));
        };
        // Where it would be refused the plan says so, and shows the rest.
        match self.give_addresses(&mut proposed, request.version) {
            Ok(withheld) => planned.diagnostics.extend(withheld),
            Err(refused) => planned.diagnostics.push(as_error(refused)),
        }
        match self.check_enforceable(&proposed) {
            Ok(warnings) => planned.diagnostics.extend(warnings),
            Err(refused) => planned.diagnostics.push(as_error(refused)),
        }
        Ok(Plan::Answer(Reply::PolicyPlanned(planned)))
    }
}

fn as_error(refused: Rejection) -> DiagnosticView {
    DiagnosticView {
        severity: "error".to_owned(),
        file: String::new(),
        line: 0,
        column: 0,
        message: refused.refusal.message,
        help: None,
    }
}
