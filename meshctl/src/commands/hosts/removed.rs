//! `meshctl hosts revoke` and `removed`: hosts that are gone, and who knows of it.

use std::time::Duration;

use model::admin::{HostView, RemovedHost, RemovedHostView};
use model::ids::HostId;
use runtime::api_client::ApiClient;
use tokio::time::{Instant, sleep};

use crate::failure::Failure;
use crate::output::{Output, Table, Tone, time};

/// How often it is asked who knows of it, while waiting.
const ARRIVAL_INTERVAL: Duration = Duration::from_millis(100);

pub(super) async fn revoke(
    client: &ApiClient,
    host: &str,
    wait_secs: u64,
    output: &Output,
) -> Result<(), Failure> {
    let path = format!("/v1/hosts/{host}/revoke");
    let revoked: HostView = client.post(&path, &serde_json::json!({})).await?;
    let deadline = Instant::now() + Duration::from_secs(wait_secs);
    output.progress(&format!("{host} is revoked; waiting for the hosts …"));
    let told = loop {
        let told = client.get::<RemovedHost>(&path_of(revoked.id)).await;
        let told = told.map_err(|error| {
            Failure::from(error).after(&format!(
                "{host} is revoked; who has cut it off is not known (`meshctl hosts removed {host}` tells)"
            ))
        })?;
        if told.pending.is_empty() || Instant::now() >= deadline {
            break told;
        }
        sleep(ARRIVAL_INTERVAL).await;
    };
    output.show("RemovedHost", &told, |output| description(&told, output));
    Ok(())
}

pub(super) async fn show(
    client: &ApiClient,
    host: Option<&str>,
    output: &Output,
) -> Result<(), Failure> {
    let Some(host) = host else {
        let removed: Vec<RemovedHostView> = client.get("/v1/removed").await?;
        output.show("RemovedHostList", &removed, |_| table(&removed));
        return Ok(());
    };
    let id = match host.parse() {
        Ok(id) => id,
        Err(_) => named(client, host).await?,
    };
    let told: RemovedHost = client.get(&path_of(id)).await?;
    output.show("RemovedHost", &told, |output| description(&told, output));
    Ok(())
}

/// Returns the host that had a name last of all that are gone.
async fn named(client: &ApiClient, name: &str) -> Result<HostId, Failure> {
    let removed: Vec<RemovedHostView> = client.get("/v1/removed").await?;
    let found = removed.iter().find(|view| view.name.as_str() == name);
    found.map(|view| view.id).ok_or_else(|| {
        Failure::Failed(format!(
            "no host called {name} was removed; `meshctl hosts removed` shows which were"
        ))
    })
}

fn path_of(id: HostId) -> String {
    format!("/v1/removed/{id}")
}

fn table(removed: &[RemovedHostView]) -> String {
    let mut table = Table::new(&["NAME", "ID", "WHEN", "WHY"]);
    for view in removed {
        table.row([
            view.name.to_string(),
            view.id.to_string(),
            time(view.removed_secs),
            view.reason.clone(),
        ]);
    }
    table.text("no host was removed")
}

fn description(told: &RemovedHost, output: &Output) -> String {
    let RemovedHost {
        view,
        concerned,
        arrived,
        pending,
        offline,
    } = told;
    let mut lines = vec![
        format!("{}  ({})", view.name, view.id),
        format!(
            "  {:<10} {}, {}",
            "gone",
            time(view.removed_secs),
            view.reason
        ),
    ];
    let all = arrived == concerned;
    let text = format!("{arrived} of {concerned} hosts that knew it have cut it off");
    let tone = if all { Tone::Good } else { Tone::Doubtful };
    lines.push(format!("  {:<10} {}", "arrived", output.paint(tone, &text)));
    for (what, names) in [("pending", pending), ("offline", offline)] {
        if !names.is_empty() {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            lines.push(format!("  {what:<10} {}", names.join(" ")));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Color;

    #[test]
    fn people_read_who_has_not_heard_of_it() {
        let told = RemovedHost {
            view: RemovedHostView {
                id: HostId::from_bytes([7; 16]),
                name: "vm-9".parse().unwrap(),
                reason: "revoked by ops: stolen".into(),
                removed_by: "ops".into(),
                removed_secs: 0,
                revoked: true,
            },
            concerned: 3,
            arrived: 2,
            pending: Vec::new(),
            offline: vec!["vm-17".parse().unwrap()],
        };
        let text = description(&told, &Output::new(false, Color::Never));
        assert!(text.contains("revoked by ops: stolen"), "{text}");
        assert!(
            text.contains("2 of 3 hosts that knew it have cut it off"),
            "{text}"
        );
        assert!(text.ends_with("offline    vm-17"), "{text}");
    }
}
