//! `meshctl hosts`.

use model::admin::{HostView, RenameHost, SetLabels};
use model::name::{Label, Labels, Name};
use runtime::api_client::{ApiClient, ApiError};

use crate::arguments::{Hosts, Targets};
use crate::connect;
use crate::failure::Failure;
use crate::output::{Output, Table, Tone, time};

mod removed;

/// Runs a verb of `meshctl hosts`.
///
/// # Errors
/// The coordinator does not answer or refuses.
pub async fn run(verb: Hosts, targets: &Targets, output: &Output) -> Result<(), Failure> {
    let client = connect::coordinator(targets)?;
    match verb {
        Hosts::List => {
            let hosts: Vec<HostView> = client.get("/v1/hosts").await?;
            output.show("HostList", &hosts, |output| table(&hosts, output));
        }
        Hosts::Show { host } => {
            let host: HostView = client
                .get(&format!("/v1/hosts/{}", segment(&host)?))
                .await?;
            output.show("Host", &host, |output| description(&host, output));
        }
        Hosts::Label { host, changes } => {
            let after = label(&client, &segment(&host)?, &changes).await?;
            output.show("Host", &after, |output| description(&after, output));
        }
        Hosts::Rename { host, name } => {
            let path = format!("/v1/hosts/{}/name", segment(&host)?);
            let name = name_of(&name)?;
            let after: HostView = client.put(&path, &RenameHost { name }).await?;
            output.show("Host", &after, |output| description(&after, output));
        }
        Hosts::RotateKey { host } => {
            let path = format!("/v1/hosts/{}/rotate-key", segment(&host)?);
            let before: HostView = client.post(&path, &serde_json::json!({})).await?;
            output.show("Host", &before, |output| {
                format!(
                    "{} {} was asked to change its key from {}; `meshctl hosts show {}` tells the \
                     new one",
                    output.paint(Tone::Good, "✓"),
                    before.name,
                    before.wireguard_key,
                    before.name
                )
            });
        }
        Hosts::Revoke { host, wait } => {
            return removed::revoke(&client, &segment(&host)?, wait, output).await;
        }
        Hosts::Removed { host } => return removed::show(&client, host.as_deref(), output).await,
        Hosts::Remove { host } => {
            let removed: HostView = client
                .delete(&format!("/v1/hosts/{}", segment(&host)?))
                .await?;
            output.show("Host", &removed, |output| {
                format!(
                    "{} {} is no longer a member of the fleet",
                    output.paint(Tone::Good, "✓"),
                    removed.name
                )
            });
        }
    }
    Ok(())
}

/// Changes some labels and leaves the others as they are. When somebody else changes them at the same
/// time, both get what they want.
async fn label(client: &ApiClient, host: &str, changes: &[String]) -> Result<HostView, Failure> {
    let path = format!("/v1/hosts/{host}");
    let mut is_again = false;
    loop {
        let before: HostView = client.get(&path).await?;
        let set = SetLabels {
            labels: changed(before.labels.clone(), changes)?,
            base: Some(before.labels),
        };
        match client.put(&format!("{path}/labels"), &set).await {
            Err(ApiError::Refused { status: 409, .. }) if !is_again => is_again = true,
            outcome => return Ok(outcome?),
        }
    }
}

/// A host's name as a part of a path.
fn segment(host: &str) -> Result<String, Failure> {
    name_of(host).map(String::from)
}

fn name_of(text: &str) -> Result<Name, Failure> {
    text.parse()
        .map_err(|error: model::name::InvalidName| Failure::Usage(error.to_string()))
}

fn changed(mut labels: Labels, changes: &[String]) -> Result<Labels, Failure> {
    for change in changes {
        match change.strip_suffix('-').filter(|_| !change.contains('=')) {
            Some(key) => {
                let key = key
                    .parse()
                    .map_err(|error: model::name::InvalidName| Failure::Usage(error.to_string()))?;
                labels.remove(&key);
            }
            None => {
                let label: Label = change.parse().map_err(|error: model::name::InvalidName| {
                    Failure::Usage(format!("{error}; KEY=VALUE sets a label, KEY- removes it"))
                })?;
                labels.insert(label.key, label.value);
            }
        }
    }
    Ok(labels)
}

fn labels_text(labels: &Labels) -> String {
    labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(",")
}

fn table(hosts: &[HostView], output: &Output) -> String {
    let mut table = Table::new(&["NAME", "ADDRESS", "STATE", "POLICY", "VERSION", "LABELS"]);
    for host in hosts {
        table.row([
            host.name.to_string(),
            host.addresses.v4.to_string(),
            state(host, output),
            host.applied_policy
                .map_or_else(|| "-".into(), |version| version.to_string()),
            host.software_version.clone().unwrap_or_else(|| "-".into()),
            labels_text(&host.labels),
        ]);
    }
    table.text("the fleet has no hosts yet; `meshctl tokens create` makes a token to join with")
}

/// What a host is doing. One that is online and not in the overlay says so before it is offline.
fn state(host: &HostView, output: &Output) -> String {
    match (host.online, &host.trouble) {
        (true, Some(_)) => output.paint(Tone::Bad, "no overlay"),
        (true, None) => output.paint(Tone::Good, "online"),
        (false, _) => output.paint(Tone::Faint, "offline"),
    }
}

fn description(host: &HostView, output: &Output) -> String {
    let mut lines = vec![format!("{}  ({})", host.name, host.id)];
    let mut line = |key: &str, value: String| lines.push(format!("  {key:<10} {value}"));
    line("state", state(host, output));
    line(
        "addresses",
        format!("{} {}", host.addresses.v4, host.addresses.v6),
    );
    line("labels", labels_text(&host.labels));
    line("key", host.wireguard_key.to_string());
    line("joined", time(host.joined_secs));
    if let Some(seen) = host.last_seen_secs {
        line("seen", time(seen));
    }
    let endpoints: Vec<String> = host.endpoints.iter().map(ToString::to_string).collect();
    line("endpoints", endpoints.join(" "));
    if let Some(version) = &host.software_version {
        line("meshd", version.clone());
    }
    if let Some(policy) = host.applied_policy {
        line("policy", format!("version {policy}"));
    }
    if let Some(error) = &host.apply_error {
        line("error", output.paint(Tone::Bad, error));
    }
    if let Some(trouble) = &host.trouble {
        line("trouble", output.paint(Tone::Bad, trouble));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_set_and_removed() {
        let before: Labels = [
            ("a".parse().unwrap(), "1".parse().unwrap()),
            ("b".parse().unwrap(), "2".parse().unwrap()),
        ]
        .into();
        let after = changed(before, &["a-".into(), "c=3".into(), "b=4".into()]).unwrap();
        assert_eq!(labels_text(&after), "b=4,c=3");
    }

    #[test]
    fn a_host_that_is_online_without_its_overlay_is_not_just_online() {
        let output = Output::new(false, crate::output::Color::Never);
        let mut host: HostView = serde_json::from_value(serde_json::json!({
            "id": "01010101010101010101010101010101", "name": "a", "labels": {},
            "v4": "100.64.0.16", "v6": "fd00::10", "online": true, "joined_secs": 0,
            "wireguard_key": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "last_seen_secs": null, "software_version": null, "endpoints": [],
            "applied_policy": null, "apply_error": null,
        }))
        .unwrap();
        assert_eq!(state(&host, &output), "online");
        host.trouble = Some("there is no /dev/net/tun".into());
        assert_eq!(state(&host, &output), "no overlay");
        assert!(description(&host, &output).contains("no /dev/net/tun"));
        host.online = false;
        assert_eq!(state(&host, &output), "offline");
    }

    #[test]
    fn a_change_that_is_neither_says_what_is() {
        assert!(
            changed(Labels::new(), &["x".into()])
                .unwrap_err()
                .to_string()
                .contains("KEY-")
        );
    }
}
