//! `meshctl wait-online`: until this host is in the overlay, for units and scripts that need it.

use std::path::Path;
use std::time::Duration;

use model::local::{HostDetail, HostState, HostStatus};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::arguments::{Targets, WaitOnline};
use crate::connect;
use crate::failure::Failure;
use crate::membership;
use crate::output::{Output, Tone};
use crate::waiting::while_working;

/// How often the daemon is asked.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// How long it may take to answer once; never longer than what is left of the time.
const PATIENCE: Duration = Duration::from_secs(5);
/// What it may take to be looked at once, also when there is no time at all.
const PATIENCE_MIN: Duration = Duration::from_millis(500);
/// Where the kernel lists interfaces.
const INTERFACES: &str = "/sys/class/net";

/// What `--json` shows.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Online {
    state: HostState,
}

/// Waits until the host has a map and its interface is there. A coordinator need not be reachable.
///
/// # Errors
/// The time has passed; says what was missing last, or that the daemon did not answer.
pub async fn wait_online(
    arguments: &WaitOnline,
    targets: &Targets,
    output: &Output,
) -> Result<(), Failure> {
    let end = Instant::now() + Duration::from_secs(arguments.timeout);
    let waiting = async {
        loop {
            match look(targets, end - Instant::now()).await {
                Ok(state) => return Ok(state),
                Err(why) if Instant::now() >= end => return Err(why),
                Err(_) => sleep(ASK_EVERY.min(end - Instant::now())).await,
            }
        }
    };
    let state = while_working(output, "waiting for the overlay", waiting)
        .await
        .map_err(not_up)?;
    output.show("Online", &Online { state }, |output| {
        format!("{} this host is in the mesh", output.paint(Tone::Good, "✓"))
    });
    Ok(())
}

/// A daemon that does not answer is told from one that says what is missing: scripts look for
/// another thing then.
fn not_up(why: Failure) -> Failure {
    let text = format!("the overlay is not up: {why}");
    match why {
        Failure::Unreachable(_) => Failure::Unreachable(text),
        _ => Failure::Wanting(text),
    }
}

async fn look(targets: &Targets, left: Duration) -> Result<HostState, Failure> {
    let patience = left.clamp(PATIENCE_MIN, PATIENCE);
    let client = connect::daemon(targets).with_patience(patience);
    let status = client.get::<HostStatus>("/v1/status").await?;
    missing(&status, |interface| {
        Path::new(INTERFACES).join(interface).exists()
    })
    .map_or(Ok(status.state), |what| {
        Err(Failure::Wanting(what.to_owned()))
    })
}

/// Returns what the overlay still lacks; nothing when it is up.
fn missing(status: &HostStatus, is_there: impl FnOnce(&str) -> bool) -> Option<&'static str> {
    let no_member = membership::lacks(status.state);
    no_member.or_else(|| match (&status.detail, status.up) {
        (Some(HostDetail { revision: None, .. }), _) => Some("it has no map yet"),
        (Some(detail), _) if !is_there(&detail.interface) => {
            Some("its interface is not there; see meshctl status")
        }
        (_, Some(false)) => {
            Some("there is no map yet, or packets do not pass; `sudo meshctl status` says which")
        }
        // A daemon that is too old to tell everybody.
        (None, None) => Some("only root and members of group mesh may see whether it is; try sudo"),
        (_, Some(true)) | (Some(_), None) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(state: HostState, revision: Option<u64>) -> HostStatus {
        let revision = revision.map(|counter| serde_json::json!({"epoch": 1, "counter": counter}));
        serde_json::from_value(serde_json::json!({
            "version": "1.0.0",
            "state": state,
            "detail": {
                "name": "web-1", "id": "01010101010101010101010101010101", "fleet": "prod",
                "dns_suffix": "mesh.internal", "interface": "mesh0", "addresses": [], "labels": {},
                "listen_port": 51820, "coordinators": [], "coordinator_error": null,
                "revision": revision, "policy": null, "peers": 0,
                "certificate_expires_secs": null, "alarms": [], "drops": [], "shards": 1,
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_host_with_a_map_and_an_interface_is_online_also_without_a_coordinator() {
        for state in [HostState::Online, HostState::Autonomous] {
            assert_eq!(
                missing(&member(state, Some(7)), |name| name == "mesh0"),
                None
            );
        }
    }

    #[test]
    fn a_stranger_sees_up_or_down_and_is_told_when_not() {
        let told = |up: Option<bool>| {
            let status = HostStatus {
                version: "1.0.0".to_owned(),
                state: HostState::Online,
                up,
                detail: None,
            };
            missing(&status, |_| unreachable!("no interface is known"))
        };
        assert_eq!(told(Some(true)), None);
        assert!(told(Some(false)).unwrap().contains("do not pass"));
        assert!(told(None).unwrap().contains("group mesh may see"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let online = HostState::Online;
        let what = missing(&member(online, None), |_| true).unwrap();
        assert!(what.contains("no map"), "{what}");
        let what = missing(&member(online, Some(7)), |_| false).unwrap();
        assert!(what.contains("interface"), "{what}");
        let mut without = member(online, Some(7));
        without.up = Some(false);
        let what = missing(&without, |_| true).unwrap();
        assert!(what.contains("meshctl status"), "{what}");
        let what = missing(&member(HostState::Unenrolled, None), |_| true).unwrap();
        assert!(what.contains("join TOKEN"), "{what}");
    }
}
