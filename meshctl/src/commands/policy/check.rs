//! `meshctl policy check` and `test`.

use std::path::Path;

use model::admin::{AppliedPolicy, ApplyPolicy, ErrorBody, PolicyFile};
use policy::{Checked, Diagnostic, TestOutcome, TestVerdict};
use runtime::api_client::ApiError;
use schemars::JsonSchema;
use serde::Serialize;

use super::directory::read_bundle;
use super::{count, size};
use crate::arguments::Targets;
use crate::connect;
use crate::failure::Failure;
use crate::output::{Output, Tone};

pub(super) fn check(directory: &Path, output: &Output) -> Result<(), Failure> {
    let files = read_bundle(directory)?;
    let checked = load(&files, output)?;
    size::check(&files, &checked.bundle)?;
    let outcomes = policy::run_tests(&checked, None);
    show_check(&checked, &outcomes, output);
    failing(&outcomes)
}

/// Runs the tests: here, by the bundle alone; and by the coordinator, against the fleet's own hosts,
/// which can make a difference. Says whose verdicts are shown.
pub(super) async fn test(
    directory: &Path,
    targets: &Targets,
    output: &Output,
) -> Result<(), Failure> {
    let files = read_bundle(directory)?;
    let checked = load(&files, output)?;
    let outcomes = policy::run_tests(&checked, None);
    let is_failed = |it: &TestOutcome| it.verdict == TestVerdict::Failed;
    let fleet = match outcomes.iter().any(is_failed) {
        true => Err("not asked: tests fail without it already".to_owned()),
        false => ask_fleet(&files, targets).await,
    };
    let report = TestRun {
        report: check_report(&checked, &outcomes),
        against_fleet: fleet.as_ref().ok().map(|it| it.as_ref().err().is_none()),
        against_fleet_why: fleet.as_ref().err().cloned(),
    };
    output.show("PolicyTest", &report, |output| {
        let mut lines: Vec<String> = outcomes
            .iter()
            .map(|outcome| test_text(outcome, output))
            .collect();
        lines.push(verdicts_text(&outcomes, &fleet));
        lines.join("\n")
    });
    failing(&outcomes)?;
    match fleet {
        Ok(Err(error)) => Err(refused(error, &files)),
        _ => Ok(()),
    }
}

/// Asks the coordinator to test a bundle; an error text when there is none that could.
async fn ask_fleet(
    files: &[PolicyFile],
    targets: &Targets,
) -> Result<Result<AppliedPolicy, ApiError>, String> {
    let client = connect::coordinator(targets).map_err(|failure| failure.to_string())?;
    let client = client.with_patience(connect::WORK_PATIENCE);
    let request = ApplyPolicy {
        files: files.to_vec(),
        base: None,
        message: String::new(),
        dry_run: true,
    };
    match client.query("/v1/policy", &request).await {
        Err(ApiError::Unreachable(why)) => Err(why),
        answer => Ok(answer),
    }
}

/// Whose verdicts these are.
fn verdicts_text(
    outcomes: &[TestOutcome],
    fleet: &Result<Result<AppliedPolicy, ApiError>, String>,
) -> String {
    if outcomes.is_empty() {
        return "the policy has no tests".to_owned();
    }
    let own = "the verdicts above are by this bundle alone";
    match fleet {
        Ok(Ok(applied)) => format!(
            "{own}; against the hosts of the fleet, by its coordinator: {} passed",
            count(applied.tests_passed, "test")
        ),
        Ok(Err(_)) => format!("{own}; the coordinator of the fleet refuses it:"),
        Err(why) => format!("{own}; the hosts of the fleet may make a difference ({why})"),
    }
}

/// What the tests found, for `--json`.
#[derive(Serialize, JsonSchema)]
pub(crate) struct TestRun {
    #[serde(flatten)]
    report: CheckReport,
    /// Whether they pass against the fleet's hosts too; `null`: no coordinator was asked.
    against_fleet: Option<bool>,
    /// Why none was.
    against_fleet_why: Option<String>,
}

/// What a check found, for `--json`.
#[derive(Serialize, JsonSchema)]
pub(crate) struct CheckReport {
    fleet: Option<String>,
    services: usize,
    allow: usize,
    deny: usize,
    diagnostics: Vec<model::admin::DiagnosticView>,
    tests: Vec<TestReport>,
}

/// One test of a bundle, for `--json`.
#[derive(Serialize, JsonSchema)]
pub(crate) struct TestReport {
    test: String,
    verdict: &'static str,
    message: String,
    source: String,
}

impl From<&TestOutcome> for TestReport {
    fn from(outcome: &TestOutcome) -> Self {
        Self {
            test: outcome.test.clone(),
            verdict: match outcome.verdict {
                TestVerdict::Passed => "passed",
                TestVerdict::Failed => "failed",
                TestVerdict::NeedsFleet => "needs_fleet",
            },
            message: outcome.message.clone(),
            source: outcome.source.to_string(),
        }
    }
}

fn check_report(checked: &Checked, outcomes: &[TestOutcome]) -> CheckReport {
    CheckReport {
        fleet: Some(checked.fleet.to_string()),
        services: checked.bundle.services.len(),
        allow: checked.bundle.allow.len(),
        deny: checked.bundle.deny.len(),
        diagnostics: checked.warnings.iter().map(Into::into).collect(),
        tests: outcomes.iter().map(TestReport::from).collect(),
    }
}

/// Parses and checks; shows what is wrong when something is.
pub(super) fn load(files: &[PolicyFile], output: &Output) -> Result<Checked, Failure> {
    policy::load(files).map_err(|diagnostics| {
        let report = CheckReport {
            fleet: None,
            services: 0,
            allow: 0,
            deny: 0,
            diagnostics: diagnostics.iter().map(Into::into).collect(),
            tests: Vec::new(),
        };
        output.show("PolicyCheck", &report, |_| rendered(&diagnostics));
        Failure::Wanting(format!(
            "the policy has {}; nothing was changed",
            count(diagnostics.len(), "problem")
        ))
    })
}

pub(super) fn rendered(diagnostics: &[Diagnostic]) -> String {
    diagnostics
        .iter()
        .map(Diagnostic::render)
        .collect::<Vec<_>>()
        .join("\n")
}

pub(super) fn show_check(checked: &Checked, outcomes: &[TestOutcome], output: &Output) {
    output.show("PolicyCheck", &check_report(checked, outcomes), |output| {
        let mut lines: Vec<String> = checked.warnings.iter().map(Diagnostic::render).collect();
        lines.extend(
            outcomes
                .iter()
                .filter(|outcome| outcome.verdict != TestVerdict::Passed)
                .map(|outcome| test_text(outcome, output)),
        );
        let passed = outcomes
            .iter()
            .filter(|outcome| outcome.verdict == TestVerdict::Passed)
            .count();
        lines.push(format!(
            "{}, {}, {}; {passed} of {} passed",
            count(checked.bundle.services.len(), "service"),
            count(checked.bundle.allow.len(), "allow rule"),
            count(checked.bundle.deny.len(), "deny rule"),
            count(outcomes.len(), "test"),
        ));
        lines.join("\n")
    });
}

fn test_text(outcome: &TestOutcome, output: &Output) -> String {
    let mark = match outcome.verdict {
        TestVerdict::Passed => output.paint(Tone::Good, "✓"),
        TestVerdict::Failed => output.paint(Tone::Bad, "✗"),
        TestVerdict::NeedsFleet => output.paint(Tone::Doubtful, "?"),
    };
    format!(
        "{mark} {} ({})\n    {}",
        outcome.test,
        outcome.source,
        outcome.message.replace('\n', "\n    ")
    )
}

pub(super) fn failing(outcomes: &[TestOutcome]) -> Result<(), Failure> {
    let failed = outcomes
        .iter()
        .filter(|outcome| outcome.verdict == TestVerdict::Failed)
        .count();
    if failed == 0 {
        return Ok(());
    }
    Err(Failure::Wanting(format!(
        "{} of the policy failed",
        count(failed, "test")
    )))
}

/// Shows the coordinator's diagnostics with the lines that they are about.
pub(super) fn refused(error: ApiError, files: &[PolicyFile]) -> Failure {
    match error {
        ApiError::Refused {
            body:
                ErrorBody {
                    diagnostics,
                    message,
                    ..
                },
            ..
        } if !diagnostics.is_empty() => {
            let views = diagnostics.iter();
            let shown: Vec<Diagnostic> = views
                .map(|view| Diagnostic::from_view(view, files))
                .collect();
            Failure::Faulty {
                lines: rendered(&shown),
                message,
                diagnostics,
            }
        }
        error => error.into(),
    }
}
