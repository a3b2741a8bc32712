//! What the coordinator of this machine tells, and how it looks from outside.

use std::path::{Path, PathBuf};

use model::admin::CoordinatorStatus;
use runtime::tls::{self, pinned_client};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

use super::super::facts::{OwnCoordinator, Shown, Verdict};
use super::{PATIENCE, files, process, programs};
use crate::arguments::Targets;
use crate::connect::{COORDINATOR_SOCKET, coordinator_at};

const COORDINATOR: &str = "mesh-coordinator";
const CONFIG: &str = "/etc/mesh/coordinator.toml";
const STATE_DIR: &str = "/var/lib/mesh/coordinator";

#[derive(Deserialize)]
struct Keys {
    state_dir: Option<PathBuf>,
}

/// Looks at the coordinator of this machine; `None`: there is none.
pub(super) async fn own(targets: &Targets) -> Option<OwnCoordinator> {
    let socket = targets.coordinator_socket.as_deref();
    let socket = socket.unwrap_or(Path::new(COORDINATOR_SOCKET));
    let client = coordinator_at(socket)
        .with_patience(PATIENCE)
        .with_persistence(None);
    let (verdict, unit, listening, told) = tokio::join!(
        programs::verdict(COORDINATOR, None),
        programs::unit("mesh-coordinator.service"),
        process::listening(socket, COORDINATOR),
        client.get::<Value>("/v1/status"),
    );
    let is_loaded = unit
        .as_ref()
        .is_ok_and(|it| it.get("LoadState").is_some_and(|it| it == "loaded"));
    if !is_loaded && socket.symlink_metadata().is_err() {
        return None;
    }
    let told = told.map_err(|error| error.to_string());
    let status: Option<CoordinatorStatus> = told
        .as_ref()
        .ok()
        .and_then(|it| serde_json::from_value(it.clone()).ok());
    let shown = match &status {
        Some(status) => shown(status).await,
        None => Vec::new(),
    };
    Some(OwnCoordinator {
        verdict: seen_by_root(verdict),
        process: process::settled(listening, &unit, socket == Path::new(COORDINATOR_SOCKET)),
        version: told.map(|it| it["version"].as_str().unwrap_or("of old").to_owned()),
        status,
        unit,
        state_dir: files::state_dir(&state_dir()),
        shown,
    })
}

/// Its settings are the service's own: that another user cannot read them says nothing of them.
fn seen_by_root(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Refused(why) if !rustix::process::geteuid().is_root() => {
            Verdict::Unknown(format!("{why}; try as root"))
        }
        other => other,
    }
}

fn state_dir() -> PathBuf {
    let loaded: Result<(Keys, _), _> = runtime::config::load(Path::new(CONFIG), true);
    let set = loaded.ok().and_then(|(keys, _)| keys.state_dir);
    set.unwrap_or_else(|| STATE_DIR.into())
}

/// Connects to each address as hosts do, by the root that they were given.
async fn shown(status: &CoordinatorStatus) -> Vec<(String, Shown)> {
    let Ok(pin) = status.root_pin.parse() else {
        return Vec::new();
    };
    let mut under_way = tokio::task::JoinSet::new();
    for (number, address) in status.addresses.iter().cloned().enumerate() {
        under_way.spawn(async move {
            let only = [address.clone()];
            let connecting = tls::connect(&only, pinned_client(pin));
            let shown = match timeout(PATIENCE, connecting).await {
                Ok(Ok(_)) => Shown::Believed,
                Ok(Err(error)) if error.untrusted || error.clock => Shown::Refused(error.message),
                Ok(Err(error)) => Shown::NotReached(error.message),
                Err(_) => Shown::NotReached("no answer".to_owned()),
            };
            (number, (address, shown))
        });
    }
    let mut done = under_way.join_all().await;
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, shown)| shown).collect()
}
