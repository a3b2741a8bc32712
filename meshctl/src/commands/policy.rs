//! `meshctl policy`.

use std::path::Path;
use std::time::Duration;

use model::admin::{
    AppliedPolicy, ApplyPolicy, ErrorBody, PolicyContent, PolicyFile, PolicyVersionView,
    RollbackPolicy, Rollout,
};
use model::ids::PolicyVersion;
use model::limits::Limits;
use policy::{Checked, Diagnostic, TestOutcome, TestVerdict};
use runtime::api_client::{ApiClient, ApiError};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::arguments::{self, Policy, Targets};
use crate::connect;
use crate::failure::Failure;
use crate::output::{Output, Table, Tone, time};

/// How often the rollout is asked for while waiting.
const ROLLOUT_INTERVAL: Duration = Duration::from_millis(100);

/// Runs a verb of `meshctl policy`.
///
/// # Errors
/// The bundle is wrong (exit code 5), or the coordinator does not answer or refuses.
pub async fn run(verb: Policy, targets: &Targets, output: &Output) -> Result<(), Failure> {
    match verb {
        Policy::Check { directory } => check(&directory, output),
        Policy::Test { directory } => test(&directory, targets, output).await,
        Policy::Apply(apply) => put_in_force(apply, targets, output).await,
        Policy::History => history(targets, output).await,
        Policy::Show { version } => show(version, targets, output).await,
        Policy::Rollback { version } => rollback(version, targets, output).await,
        Policy::Status => status(targets, output).await,
    }
}

/// Reads every `*.yaml` and `*.yml` below a directory, in the order of their paths.
fn read_bundle(directory: &Path) -> Result<Vec<PolicyFile>, Failure> {
    let mut files = Vec::new();
    let mut bytes_left = Limits::BUNDLE_BYTES;
    collect(directory, directory, &mut files, &mut bytes_left)?;
    if files.is_empty() {
        return Err(Failure::Usage(format!(
            "there is no *.yaml file in {}",
            directory.display()
        )));
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn collect(
    root: &Path,
    directory: &Path,
    files: &mut Vec<PolicyFile>,
    bytes_left: &mut usize,
) -> Result<(), Failure> {
    let failed = |path: &Path, error: std::io::Error| {
        Failure::Usage(format!("cannot read {}: {error}", path.display()))
    };
    for entry in std::fs::read_dir(directory).map_err(|error| failed(directory, error))? {
        let path = entry.map_err(|error| failed(directory, error))?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let yaml = path
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml");
        if hidden {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, files, bytes_left)?;
        } else if yaml {
            let size = path.metadata().map_err(|error| failed(&path, error))?.len();
            *bytes_left = usize::try_from(size)
                .ok()
                .and_then(|size| bytes_left.checked_sub(size))
                .ok_or_else(|| {
                    Failure::Usage(format!(
                        "the bundle is larger than {} MiB; is {} the right directory?",
                        Limits::BUNDLE_BYTES >> 20,
                        root.display()
                    ))
                })?;
            let text = std::fs::read_to_string(&path).map_err(|error| failed(&path, error))?;
            let relative = path
                .strip_prefix(root)
                .expect("found below it")
                .display()
                .to_string();
            files.push(PolicyFile {
                path: relative,
                text,
            });
        }
    }
    Ok(())
}

/// What a check found, for `--json`.
#[derive(Serialize)]
struct CheckReport {
    fleet: Option<String>,
    services: usize,
    allow: usize,
    deny: usize,
    diagnostics: Vec<model::admin::DiagnosticView>,
    tests: Vec<TestReport>,
}

/// One test of a bundle, for `--json`.
#[derive(Serialize)]
struct TestReport {
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
fn load(files: &[PolicyFile], output: &Output) -> Result<Checked, Failure> {
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

fn rendered(diagnostics: &[Diagnostic]) -> String {
    diagnostics
        .iter()
        .map(Diagnostic::render)
        .collect::<Vec<_>>()
        .join("\n")
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 {
        format!("1 {noun}")
    } else {
        format!("{number} {noun}s")
    }
}

fn check(directory: &Path, output: &Output) -> Result<(), Failure> {
    let files = read_bundle(directory)?;
    let checked = load(&files, output)?;
    let outcomes = policy::run_tests(&checked, None);
    show_check(&checked, &outcomes, output);
    failing(&outcomes)
}

fn show_check(checked: &Checked, outcomes: &[TestOutcome], output: &Output) {
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
            count(checked.bundle.allow.len(), "allow"),
            count(checked.bundle.deny.len(), "deny"),
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

fn failing(outcomes: &[TestOutcome]) -> Result<(), Failure> {
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

async fn test(directory: &Path, targets: &Targets, output: &Output) -> Result<(), Failure> {
    let files = read_bundle(directory)?;
    let checked = load(&files, output)?;
    let outcomes = policy::run_tests(&checked, None);
    output.show("PolicyTest", &check_report(&checked, &outcomes), |output| {
        let lines: Vec<String> = outcomes
            .iter()
            .map(|outcome| test_text(outcome, output))
            .collect();
        if lines.is_empty() {
            "the policy has no tests".into()
        } else {
            lines.join("\n")
        }
    });
    failing(&outcomes)?;
    // The fleet's own hosts can make a difference: its coordinator tests against them.
    let Ok(client) = connect::coordinator(targets) else {
        return Ok(());
    };
    let request = ApplyPolicy {
        files: files.clone(),
        base: None,
        message: String::new(),
        dry_run: true,
    };
    let answer: Result<AppliedPolicy, ApiError> = client.post("/v1/policy", &request).await;
    match answer {
        Ok(_) => {
            output.progress("passed against the hosts of the fleet too");
            Ok(())
        }
        Err(error) => Err(refused(error, &files)),
    }
}

async fn put_in_force(
    apply: arguments::ApplyPolicy,
    targets: &Targets,
    output: &Output,
) -> Result<(), Failure> {
    let files = read_bundle(&apply.directory)?;
    let checked = load(&files, output)?;
    failing(&policy::run_tests(&checked, None)).inspect_err(|_| {
        show_check(&checked, &policy::run_tests(&checked, None), output);
    })?;
    let client = connect::coordinator(targets)?;
    let request = ApplyPolicy {
        files: files.clone(),
        base: apply.base.map(PolicyVersion),
        message: apply.message,
        dry_run: apply.dry_run,
    };
    let applied: AppliedPolicy = client
        .post("/v1/policy", &request)
        .await
        .map_err(|error| refused(error, &files))?;
    let rollout = if applied.changed {
        wait_for(&client, applied.version, apply.wait, output).await?
    } else {
        None
    };
    show_applied(&applied, rollout.as_ref(), apply.dry_run, output);
    failed_hosts(rollout.as_ref())
}

/// Shows the coordinator's diagnostics with the lines that they are about.
fn refused(error: ApiError, files: &[PolicyFile]) -> Failure {
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
            let diagnostics: Vec<Diagnostic> = diagnostics
                .iter()
                .map(|view| Diagnostic::from_view(view, files))
                .collect();
            Failure::Wanting(format!("{}\n{message}", rendered(&diagnostics)))
        }
        error => error.into(),
    }
}

/// Waits until every online host has said that it enforces the version, or that it cannot.
async fn wait_for(
    client: &ApiClient,
    version: PolicyVersion,
    secs: u64,
    output: &Output,
) -> Result<Option<Rollout>, Failure> {
    if secs == 0 {
        return Ok(None);
    }
    let deadline = Instant::now() + Duration::from_secs(secs);
    output.progress(&format!(
        "version {version} is stored; waiting for the hosts …"
    ));
    loop {
        let rollout: Rollout = client.get("/v1/policy/rollout").await?;
        let superseded = rollout.version != version;
        if rollout.pending.is_empty() || superseded || Instant::now() >= deadline {
            return Ok(Some(rollout));
        }
        sleep(ROLLOUT_INTERVAL).await;
    }
}

/// What `apply` and `rollback` show with `--json`.
#[derive(Serialize)]
struct Outcome<'a> {
    #[serde(flatten)]
    applied: &'a AppliedPolicy,
    rollout: Option<&'a Rollout>,
}

fn show_applied(
    applied: &AppliedPolicy,
    rollout: Option<&Rollout>,
    dry_run: bool,
    output: &Output,
) {
    output.show("AppliedPolicy", &Outcome { applied, rollout }, |output| {
        let mut lines: Vec<String> = applied
            .diagnostics
            .iter()
            .map(crate::output::diagnostic_line)
            .collect();
        lines.push(match (dry_run, applied.changed) {
            (true, _) => format!(
                "would be applied over version {}; nothing was changed",
                applied.version
            ),
            (false, false) => format!(
                "nothing to change: version {} has this content already",
                applied.version
            ),
            (false, true) => format!(
                "{} version {} is stored",
                output.paint(Tone::Good, "✓"),
                applied.version
            ),
        });
        lines.extend(rollout.map(|rollout| rollout_text(rollout, output)));
        lines.join("\n")
    });
}

fn rollout_text(rollout: &Rollout, output: &Output) -> String {
    let mut text = format!(
        "version {} in force on {} of {}",
        rollout.version,
        rollout.in_force,
        count(rollout.hosts, "host")
    );
    let mut list = |what: &str, names: Vec<String>| {
        if !names.is_empty() {
            text += &format!("; {} {what}: {}", names.len(), shortened(&names));
        }
    };
    list(
        "pending",
        rollout.pending.iter().map(ToString::to_string).collect(),
    );
    list(
        "offline",
        rollout.offline.iter().map(ToString::to_string).collect(),
    );
    for failure in &rollout.failed {
        text += &output.paint(
            Tone::Bad,
            &format!("\n  {} could not apply it: {}", failure.host, failure.error),
        );
    }
    text
}

fn shortened(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let mut text = names[..names.len().min(SHOWN)].join(", ");
    if names.len() > SHOWN {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    text
}

fn failed_hosts(rollout: Option<&Rollout>) -> Result<(), Failure> {
    match rollout {
        Some(rollout) if !rollout.failed.is_empty() => Err(Failure::Wanting(String::new())),
        _ => Ok(()),
    }
}

async fn history(targets: &Targets, output: &Output) -> Result<(), Failure> {
    let versions: Vec<PolicyVersionView> = connect::coordinator(targets)?
        .get("/v1/policy/versions")
        .await?;
    output.show("PolicyHistory", &versions, |output| {
        let mut table = Table::new(&["VERSION", "WHEN", "WHO", "CONTENT", "MESSAGE"]);
        for version in &versions {
            let number = version.version.to_string();
            table.row([
                if version.current {
                    output.paint(Tone::Good, &format!("{number} *"))
                } else {
                    number
                },
                time(version.created_secs),
                version.author.clone(),
                version.content_digest.chars().take(12).collect(),
                version.message.clone(),
            ]);
        }
        table.text("there is no policy yet")
    });
    Ok(())
}

async fn show(version: Option<u64>, targets: &Targets, output: &Output) -> Result<(), Failure> {
    let path = match version {
        Some(version) => format!("/v1/policy/versions/{version}"),
        None => "/v1/policy".into(),
    };
    let content: PolicyContent = connect::coordinator(targets)?.get(&path).await?;
    output.show("Policy", &content, |_| {
        let files: Vec<String> = content
            .files
            .iter()
            .map(|file| format!("# {}\n{}", file.path, file.text.trim_end()))
            .collect();
        format!(
            "# version {}, {}, by {}\n{}",
            content.view.version,
            time(content.view.created_secs),
            content.view.author,
            files.join("\n\n")
        )
    });
    Ok(())
}

async fn rollback(version: u64, targets: &Targets, output: &Output) -> Result<(), Failure> {
    let client = connect::coordinator(targets)?;
    let request = RollbackPolicy {
        to: PolicyVersion(version),
        base: None,
    };
    let applied: AppliedPolicy = client.post("/v1/policy/rollback", &request).await?;
    let rollout = if applied.changed {
        wait_for(&client, applied.version, 30, output).await?
    } else {
        None
    };
    show_applied(&applied, rollout.as_ref(), false, output);
    failed_hosts(rollout.as_ref())
}

async fn status(targets: &Targets, output: &Output) -> Result<(), Failure> {
    let rollout: Rollout = connect::coordinator(targets)?
        .get("/v1/policy/rollout")
        .await?;
    output.show("Rollout", &rollout, |output| rollout_text(&rollout, output));
    failed_hosts(Some(&rollout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_are_read_in_order_and_hidden_files_are_not() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("sub")).unwrap();
        for name in ["b.yaml", "a.yml", "sub/c.yaml", ".hidden.yaml", "notes.txt"] {
            std::fs::write(directory.path().join(name), "fleet: x\n").unwrap();
        }
        let paths: Vec<String> = read_bundle(directory.path())
            .unwrap()
            .into_iter()
            .map(|file| file.path)
            .collect();
        assert_eq!(paths, ["a.yml", "b.yaml", "sub/c.yaml"]);
    }

    #[test]
    fn an_empty_directory_is_a_usage_error() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(
            read_bundle(directory.path()),
            Err(Failure::Usage(_))
        ));
        assert!(matches!(
            read_bundle(&directory.path().join("none")),
            Err(Failure::Usage(_))
        ));
    }

    #[test]
    fn long_lists_are_shortened() {
        let names: Vec<String> = (0..12).map(|number| format!("vm-{number}")).collect();
        assert!(shortened(&names).ends_with("vm-9 and 2 more"));
    }
}
