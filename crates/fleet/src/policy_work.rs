//! Work on a policy that would keep the brain too long: reading it, its tests, a plan. It is handed out
//! with a copy of what is known, done by another thread, and looked at again when it comes back:
//! only then is it known whether it is still to be applied.

use model::admin::{DiagnosticView, PlannedPolicy, PolicyFile};
use model::control::{Refusal, RefusalCode};
use model::ids::PolicyVersion;
use model::name::Name;
use model::record::HostRecord;
use model::rule::Bundle;
use model::store::StoreRevision;
use model::time::Now;
use policy::{Checked, Diagnostic, FormerNames, TestOutcome, TestVerdict};

use crate::config::FleetLimits;
use crate::fleet::Fleet;
use crate::former_names::also_by_former_names;
use crate::output::{Output, Rejection};
use crate::requests::BUSY_RETRY_AFTER;
use crate::work::Job;

/// How often a policy is read anew because hosts changed meanwhile. Hosts that join all the time
/// must not keep one from being applied; what it names is bound as it was the last time.
const READ_ANEW_MAX: u32 = 3;

/// Names work that was handed out; chosen by the fleet, rising.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkId(pub u64);

/// Work that was handed out. Needs nothing but what it holds.
#[derive(Debug)]
pub struct PolicyWork {
    files: Vec<PolicyFile>,
    fleet_name: Name,
    hosts: Vec<HostRecord>,
    hosts_changed: StoreRevision,
    former: FormerNames,
    task: Task,
}

/// What is to be found out.
#[derive(Debug)]
pub(crate) enum Task {
    /// May it come into force?
    Version,
    /// What would it change?
    Plan {
        base: PolicyVersion,
        in_force: Bundle,
    },
}

/// What came of it.
#[derive(Debug)]
pub struct PolicyDone {
    hosts_changed: StoreRevision,
    outcome: Result<Worked, Rejection>,
}

/// What was found out.
#[derive(Debug)]
pub(crate) enum Worked {
    /// It may come into force.
    Version(Compiled),
    /// It would change this; and the bundle that would.
    Plan(Box<PlannedPolicy>, Bundle),
}

/// A bundle that may come into force.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) bundle: Bundle,
    pub(crate) warnings: Vec<DiagnosticView>,
    pub(crate) tests_passed: usize,
}

impl PolicyWork {
    /// Does the work, unless it is late: asked between its parts, and all the time while tests run.
    pub fn run(self, is_late: &dyn Fn() -> bool) -> PolicyDone {
        PolicyDone {
            hosts_changed: self.hosts_changed,
            outcome: self.find_out(is_late),
        }
    }

    fn find_out(self, is_late: &dyn Fn() -> bool) -> Result<Worked, Rejection> {
        let in_time = || if is_late() { Err(late()) } else { Ok(()) };
        in_time()?;
        let (checked, bundle, renamed) =
            bind(&self.files, &self.fleet_name, &self.hosts, &self.former)?;
        in_time()?;
        let warnings = checked.warnings.iter().chain(&renamed);
        let mut warnings: Vec<DiagnosticView> = warnings.map(DiagnosticView::from).collect();
        match self.task {
            Task::Version => {
                let again = also_by_former_names(&self.hosts, &self.former);
                let hosts = again.as_deref().unwrap_or(&self.hosts);
                let (tests_passed, failed) = run_tests(&checked, hosts, is_late)?;
                match self.former.are_bound {
                    // What was in force once comes back, whatever became of the hosts since.
                    true => warnings.extend(failed.into_iter().map(as_warning)),
                    false => refuse_failed(failed, tests_passed)?,
                }
                in_time()?;
                Ok(Worked::Version(Compiled {
                    bundle,
                    warnings,
                    tests_passed,
                }))
            }
            Task::Plan { base, in_force } => {
                let planned = PlannedPolicy {
                    base,
                    plan: policy::plan(&in_force, &bundle, &self.hosts),
                    diagnostics: warnings,
                };
                Ok(Worked::Plan(Box::new(planned), bundle))
            }
        }
    }
}

impl PolicyDone {
    /// The work was given up, for this reason.
    pub fn given_up(why: &str) -> Self {
        let text = format!("the policy was not looked at: {why}");
        Self {
            hosts_changed: StoreRevision::ZERO,
            outcome: Err(Rejection::new(RefusalCode::Unavailable, text)),
        }
    }

    /// The work took too long.
    pub fn late() -> Self {
        Self {
            hosts_changed: StoreRevision::ZERO,
            outcome: Err(late()),
        }
    }
}

fn late() -> Rejection {
    let text = "the coordinator has given up on this policy, which takes too long to be looked at; \
                make it smaller, above all its tests, or try again when the machine has less to do";
    Rejection::new(RefusalCode::Exhausted, text)
}

impl Fleet {
    /// Returns work on files, with what is known now.
    pub(crate) fn work_on(
        &self,
        files: Vec<PolicyFile>,
        former: FormerNames,
        task: Task,
    ) -> Box<PolicyWork> {
        Box::new(PolicyWork {
            files,
            fleet_name: self.state.statement.fleet_name.clone(),
            hosts: self.state.inventory(),
            hosts_changed: self.state.members_changed,
            former,
            task,
        })
    }

    /// Hands work out, and keeps the request until it comes back.
    pub(crate) fn hand_out(&mut self, mut job: Job, work: PolicyWork, now: Now) {
        if self.works.len() >= FleetLimits::POLICY_WORKS_MAX {
            return self.answer(&job, Err(Rejection::busy(BUSY_RETRY_AFTER)), now);
        }
        job.handed_out += 1;
        self.last_work += 1;
        let id = WorkId(self.last_work);
        self.works.insert(id, job);
        self.output(Output::Work { id, work });
    }

    /// Work that was handed out came back.
    pub fn handle_policy_done(&mut self, id: WorkId, done: PolicyDone, now: Now) {
        if let Some(mut job) = self.works.remove(&id) {
            job.done = Some(done);
            self.attempt(job, now);
        }
    }

    /// Returns what was found out, unless names may mean other hosts by now.
    pub(crate) fn still_true(
        &self,
        done: Option<PolicyDone>,
        handed_out: u32,
    ) -> Result<Option<Worked>, Rejection> {
        let Some(done) = done else {
            return Ok(None);
        };
        let worked = done.outcome?;
        let is_true = done.hosts_changed == self.state.members_changed;
        Ok((is_true || handed_out >= READ_ANEW_MAX).then_some(worked))
    }
}

/// Parses and checks a bundle, and binds it to the fleet's hosts.
fn bind(
    files: &[PolicyFile],
    fleet_name: &Name,
    hosts: &[HostRecord],
    former: &FormerNames,
) -> Result<(Checked, Bundle, Vec<Diagnostic>), Rejection> {
    let checked = policy::load(files).map_err(|wrong| faulty(&wrong))?;
    if checked.fleet != *fleet_name {
        let text = format!(
            "this policy is for fleet {}, and this is {fleet_name}",
            checked.fleet
        );
        return Err(Rejection::new(RefusalCode::Invalid, text));
    }
    let (bundle, renamed) =
        policy::resolve_with_former(&checked, hosts, former).map_err(|wrong| faulty(&wrong))?;
    Ok((checked, bundle, renamed))
}

/// Runs the tests of a bundle against the fleet's hosts; returns how many passed, and the others.
fn run_tests(
    checked: &Checked,
    hosts: &[HostRecord],
    is_late: &dyn Fn() -> bool,
) -> Result<(usize, Vec<DiagnosticView>), Rejection> {
    let outcomes = policy::run_tests_in_time(checked, Some(hosts), is_late).ok_or_else(late)?;
    let failed: Vec<_> = outcomes
        .iter()
        .filter(|outcome| outcome.verdict != TestVerdict::Passed)
        .map(failed_test)
        .collect();
    Ok((outcomes.len() - failed.len(), failed))
}

fn refuse_failed(failed: Vec<DiagnosticView>, passed: usize) -> Result<(), Rejection> {
    if failed.is_empty() {
        return Ok(());
    }
    let (failed_count, count) = (failed.len(), failed.len() + passed);
    let text = format!("{failed_count} of {count} tests of the policy failed");
    Err(Rejection {
        diagnostics: failed,
        ..Refusal::new(RefusalCode::Invalid, text).into()
    })
}

fn as_warning(error: DiagnosticView) -> DiagnosticView {
    DiagnosticView {
        severity: "warning".to_owned(),
        ..error
    }
}

fn faulty(diagnostics: &[Diagnostic]) -> Rejection {
    let views: Vec<_> = diagnostics.iter().map(DiagnosticView::from).collect();
    let errors = views.iter().filter(|view| view.severity == "error").count();
    let text = match errors {
        1 => "the policy has an error".to_owned(),
        _ => format!("the policy has {errors} errors"),
    };
    Rejection {
        diagnostics: views,
        ..Rejection::new(RefusalCode::Invalid, text)
    }
}

fn failed_test(outcome: &TestOutcome) -> DiagnosticView {
    DiagnosticView {
        severity: "error".to_owned(),
        file: outcome.source.file.clone(),
        line: outcome.source.line,
        column: 0,
        message: format!("test failed: {}: {}", outcome.test, outcome.message),
        help: None,
    }
}
