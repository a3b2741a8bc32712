//! `meshctl version`: of this program, of the daemon, of the coordinator, and whether they fit.

use std::time::Duration;

use model::admin::CoordinatorVersion;
use model::local::HostStatus;
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::Targets;
use crate::connect;
use crate::failure::Failure;
use crate::output::{Output, Tone};

/// How long each may take to tell its version.
const PATIENCE: Duration = Duration::from_secs(3);

/// What `--json` shows.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Versions {
    meshctl: String,
    /// `null`: no daemon answers.
    meshd: Option<String>,
    /// `null`: no coordinator can be reached from here.
    coordinator: Option<String>,
    /// What deserves a look.
    warnings: Vec<String>,
}

/// Shows the versions. Those that cannot be asked are said to be so, and are no failure.
///
/// # Errors
/// None.
pub async fn version(targets: &Targets, output: &Output) -> Result<(), Failure> {
    let daemon = connect::daemon(targets)
        .with_patience(PATIENCE)
        .get::<HostStatus>("/v1/status")
        .await;
    let coordinator = match connect::coordinator(targets) {
        Ok(client) => {
            let client = client.with_patience(PATIENCE).with_persistence(None);
            client.get::<CoordinatorVersion>("/v1/status").await.ok()
        }
        Err(_) => None,
    };
    let versions = Versions::new(
        env!("CARGO_PKG_VERSION"),
        daemon.ok().map(|status| status.version),
        coordinator.map(|status| status.version),
    );
    output.show("Versions", &versions, |output| text(&versions, output));
    Ok(())
}

impl Versions {
    fn new(own: &str, meshd: Option<String>, coordinator: Option<String>) -> Self {
        let others = [("meshd", &meshd), ("mesh-coordinator", &coordinator)];
        let warnings = others
            .into_iter()
            .filter_map(|(name, version)| Some((name, version.as_ref()?)))
            .filter(|(_, version)| !fit(own, version))
            .map(|(name, version)| {
                format!("meshctl {own} and {name} {version} are more than one minor version apart")
            })
            .collect();
        Self {
            meshctl: own.to_owned(),
            meshd,
            coordinator,
            warnings,
        }
    }
}

/// Programs one minor version apart work together.
fn fit(one: &str, other: &str) -> bool {
    let parts = |version: &str| -> Option<(u64, u64)> {
        let mut parts = version.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    match (parts(one), parts(other)) {
        (Some(one), Some(other)) => one.0 == other.0 && one.1.abs_diff(other.1) <= 1,
        _ => false,
    }
}

fn text(versions: &Versions, output: &Output) -> String {
    let shown = |version: &Option<String>| match version {
        Some(version) => version.clone(),
        None => output.paint(Tone::Faint, "not reachable from here"),
    };
    let mut text = format!(
        "meshctl           {}\nmeshd             {}\nmesh-coordinator  {}",
        versions.meshctl,
        shown(&versions.meshd),
        shown(&versions.coordinator)
    );
    for warning in &versions.warnings {
        text += &format!("\n{}", output.paint(Tone::Doubtful, warning));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Color;

    #[test]
    fn versions_that_do_not_fit_are_told() {
        let versions = Versions::new("0.3.1", Some("0.1.0".into()), Some("0.2.9".into()));
        assert_eq!(
            text(&versions, &Output::new(false, Color::Never)),
            "\
meshctl           0.3.1
meshd             0.1.0
mesh-coordinator  0.2.9
meshctl 0.3.1 and meshd 0.1.0 are more than one minor version apart"
        );
        for (one, other, fits) in [("1.0.0", "0.9.0", false), ("1.0.0", "?", false)] {
            assert_eq!(fit(one, other), fits);
        }
    }

    #[test]
    fn who_cannot_be_asked_is_no_failure() {
        let versions = Versions::new("0.1.0", None, None);
        let text = text(&versions, &Output::new(false, Color::Never));
        assert_eq!(text.matches("not reachable from here").count(), 2);
    }
}
