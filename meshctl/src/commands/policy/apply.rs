//! `meshctl policy apply`, `rollback` and `status`.

use std::time::Duration;

use model::admin::{AppliedPolicy, ApplyPolicy, RollbackPolicy, Rollout};
use model::ids::PolicyVersion;
use runtime::api_client::ApiClient;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::check::{failing, load, refused, show_check};
use super::directory::read_bundle;
use super::{count, plan, shortened};
use crate::arguments::{self, Targets};
use crate::connect;
use crate::failure::Failure;
use crate::output::{Output, Tone};

/// How often the rollout is asked for while waiting.
const ROLLOUT_INTERVAL: Duration = Duration::from_millis(100);

pub(super) async fn put_in_force(
    apply: arguments::ApplyPolicy,
    targets: &Targets,
    output: &Output,
) -> Result<(), Failure> {
    let files = read_bundle(&apply.directory)?;
    let checked = load(&files, output)?;
    failing(&policy::run_tests(&checked, None)).inspect_err(|_| {
        show_check(&checked, &policy::run_tests(&checked, None), output);
    })?;
    let client = connect::awake(connect::coordinator(targets)?).await?;
    let unknown = plan::warn(&client, &plan::of_files(files.clone()), output).await;
    let request = ApplyPolicy {
        files: files.clone(),
        base: apply.base.map(PolicyVersion),
        message: apply.message,
        dry_run: apply.dry_run,
    };
    let applied = match request.dry_run {
        true => client.query("/v1/policy", &request).await,
        false => client.post("/v1/policy", &request).await,
    };
    let applied: AppliedPolicy = applied.map_err(|error| refused(error, &files))?;
    unknown.inspect(|why| plan::say_that_nothing_is_known(why, output));
    finish(&client, &applied, (apply.wait, apply.dry_run), output).await
}

pub(super) async fn rollback(
    back: arguments::RollbackPolicy,
    targets: &Targets,
    output: &Output,
) -> Result<(), Failure> {
    let client = connect::awake(connect::coordinator(targets)?).await?;
    let to = PolicyVersion(back.version);
    let unknown = plan::warn(&client, &plan::of_version(to), output).await;
    let request = RollbackPolicy {
        to,
        base: back.base.map(PolicyVersion),
        message: back.message,
        dry_run: back.dry_run,
    };
    let applied: AppliedPolicy = client.post("/v1/policy/rollback", &request).await?;
    unknown.inspect(|why| plan::say_that_nothing_is_known(why, output));
    finish(&client, &applied, (back.wait, back.dry_run), output).await
}

/// Waits for the hosts, and shows what became of it.
async fn finish(
    client: &ApiClient,
    applied: &AppliedPolicy,
    (wait_secs, dry_run): (u64, bool),
    output: &Output,
) -> Result<(), Failure> {
    let rollout = if applied.changed {
        wait_for(client, applied.version, wait_secs, output).await?
    } else {
        None
    };
    show_applied(applied, rollout.as_ref(), dry_run, output);
    failed_hosts(rollout.as_ref())
}

pub(super) async fn status(targets: &Targets, output: &Output) -> Result<(), Failure> {
    let rollout: Rollout = connect::coordinator(targets)?
        .get("/v1/policy/rollout")
        .await?;
    output.show("Rollout", &rollout, |output| rollout_text(&rollout, output));
    failed_hosts(Some(&rollout))
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
    let mut said = None;
    loop {
        let rollout = client.get::<Rollout>("/v1/policy/rollout").await;
        let rollout = rollout.map_err(|error| {
            Failure::from(error).after(&format!(
                "version {version} is stored; how far it got is not known (`meshctl policy status` tells)"
            ))
        })?;
        let superseded = rollout.version != version;
        if rollout.pending.is_empty() || superseded || Instant::now() >= deadline {
            return Ok(Some(rollout));
        }
        if said.replace(rollout.in_force) != Some(rollout.in_force) {
            let so_far = rollout_text(&rollout, output);
            output.progress(&format!("{so_far}; waiting …"));
        }
        sleep(ROLLOUT_INTERVAL).await;
    }
}

/// What `apply` and `rollback` show with `--json`.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PolicyOutcome")]
pub(crate) struct Outcome<'a> {
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

fn failed_hosts(rollout: Option<&Rollout>) -> Result<(), Failure> {
    match rollout {
        Some(rollout) if !rollout.failed.is_empty() => Err(Failure::Wanting(String::new())),
        _ => Ok(()),
    }
}
