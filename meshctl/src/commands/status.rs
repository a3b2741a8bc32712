//! `meshctl status`: this host's daemon, and the coordinator where it is reachable.

use std::time::Duration;

use model::admin::CoordinatorStatus;
use model::local::{HostDetail, HostState, HostStatus};
use schemars::JsonSchema;
use serde::Serialize;

use super::backup::disbelief;
use crate::arguments::Targets;
use crate::connect;
use crate::failure::Failure;
use crate::output::{Output, Tone, time};

/// How long a daemon may take to say how it is: it has that at hand.
const PATIENCE: Duration = Duration::from_secs(5);

/// What `--json` shows.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Status {
    daemon: Option<HostStatus>,
    coordinator: Option<CoordinatorStatus>,
    /// Why a coordinator that could be asked did not answer.
    coordinator_error: Option<String>,
}

/// What a coordinator tells: whom it does not know, only which version it is.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Told {
    All(Box<CoordinatorStatus>),
    Version { version: String },
}

/// Shows how this host is.
///
/// # Errors
/// Neither a daemon nor a coordinator answers; or the daemon that was asked for by `--socket`.
pub async fn status(targets: &Targets, output: &Output) -> Result<(), Failure> {
    let daemon = connect::daemon(targets)
        .with_patience(PATIENCE)
        .get::<HostStatus>("/v1/status")
        .await;
    let coordinator = match connect::coordinator(targets) {
        Ok(client) => {
            let client = client.with_patience(PATIENCE).with_persistence(None);
            let asked = client.get::<Told>("/v1/status").await;
            asked.map_err(|error| (Failure::from(error), true))
        }
        Err(failure) => Err((failure, false)),
    };
    let (coordinator, coordinator_error) = match coordinator {
        Ok(Told::All(status)) => (Some(*status), None),
        Ok(Told::Version { version }) => {
            let text = format!("{version} runs; only root and members of group mesh see more");
            (None, Some(text))
        }
        // Most hosts have no credential, and nothing is wrong with that.
        Err((Failure::Unreachable(_), false)) => (None, None),
        Err((failure, _)) => (None, Some(format!("it does not answer: {failure}"))),
    };
    let (daemon, missing) = match daemon {
        Ok(daemon) => (Some(daemon), None),
        Err(error) if targets.socket.is_none() && coordinator.is_some() => {
            let missing = format!("no meshd answers on this machine: {error}\n");
            (None, Some(missing))
        }
        Err(error) => return Err(error.into()),
    };
    let status = Status {
        daemon,
        coordinator,
        coordinator_error,
    };
    output.show("Status", &status, |output| {
        let parts = [
            status
                .daemon
                .as_ref()
                .map(|daemon| daemon_text(daemon, output))
                .or(missing.clone()),
            status
                .coordinator
                .as_ref()
                .map(|coordinator| coordinator_text(coordinator, output)),
            status.coordinator_error.as_ref().map(|why| {
                let text = format!("mesh-coordinator: {why}\n");
                output.paint(Tone::Doubtful, &text)
            }),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join("\n")
    });
    Ok(())
}

fn daemon_text(status: &HostStatus, output: &Output) -> String {
    let (tone, state) = match status.state {
        HostState::Unenrolled => (
            Tone::Doubtful,
            "not a member of a fleet; run meshctl join TOKEN",
        ),
        HostState::Joining => (Tone::Doubtful, "joining"),
        HostState::Online => (Tone::Good, "online"),
        HostState::Autonomous => (
            Tone::Doubtful,
            "autonomous: no coordinator reachable, working from what it knows",
        ),
        HostState::Cloned => (
            Tone::Bad,
            "cloned from another host; run meshctl join TOKEN to make it a host of its own",
        ),
        HostState::Removed => (
            Tone::Bad,
            "removed from its fleet; run meshctl join with a new token, or meshctl leave",
        ),
    };
    let mut text = format!("meshd {}  {}", status.version, output.paint(tone, state));
    match status.detail.as_ref().map_or(0, |it| it.alarms.len()) {
        0 => {}
        1 => text += &output.paint(Tone::Bad, ", with an alarm"),
        alarms => text += &output.paint(Tone::Bad, &format!(", with {alarms} alarms")),
    }
    text.push('\n');
    if let Some(detail) = &status.detail {
        text += &detail_text(detail, output);
    }
    text
}

fn detail_text(detail: &HostDetail, output: &Output) -> String {
    let mut lines = Vec::new();
    let mut line = |key: &str, value: String| lines.push(format!("  {key:<12} {value}"));
    let join = |items: Vec<String>| items.join(" ");
    line(
        "host",
        match &*detail.dns_suffix {
            "" => format!("{}  ({})", detail.name, detail.id),
            suffix => format!("{}.{suffix}  ({})", detail.name, detail.id),
        },
    );
    line("fleet", detail.fleet.to_string());
    line(
        "addresses",
        match &detail.addresses[..] {
            [] => "not known before the first map".to_owned(),
            addresses => join(addresses.iter().map(ToString::to_string).collect()),
        },
    );
    if !detail.labels.is_empty() {
        line(
            "labels",
            join(
                detail
                    .labels
                    .iter()
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect(),
            ),
        );
    }
    line(
        "interface",
        format!(
            "{}, tunnels on UDP port {}{}",
            detail.interface,
            detail.listen_port,
            match detail.shards {
                // A daemon that is too old to tell.
                0 => String::new(),
                1 => ", 1 packet thread".to_owned(),
                shards => format!(", {shards} packet threads"),
            }
        ),
    );
    line("coordinators", join(detail.coordinators.clone()));
    if let Some(error) = &detail.coordinator_error {
        line("", output.paint(Tone::Doubtful, error));
    }
    if let (Some(revision), Some(policy)) = (detail.revision, detail.policy) {
        line(
            "in force",
            format!(
                "policy version {policy}, revision {revision}, {} {}",
                detail.peers,
                if detail.peers == 1 { "peer" } else { "peers" },
            ),
        );
    }
    if let Some(expires) = detail.certificate_expires_secs {
        line("certificate", format!("until {}", time(expires)));
    }
    for alarm in &detail.alarms {
        line("alarm", output.paint(Tone::Bad, alarm));
    }
    for drop in &detail.drops {
        line(
            "dropped",
            format!("{} packets: {}", drop.packets, drop.reason),
        );
    }
    lines.join("\n") + "\n"
}

fn coordinator_text(status: &CoordinatorStatus, output: &Output) -> String {
    let text = format!(
        "coordinator {}  fleet {} ({})\n  hosts        {} of {} online\n  policy       version {}\n  overlay      {}  {}\n  root         sha256 {}\n",
        status.version,
        status.fleet_name,
        status.fleet,
        status.hosts_online,
        status.hosts,
        status.policy,
        status.overlay_v4,
        status.overlay_v6,
        status.root_pin,
    );
    let alarms = status.alarms.iter();
    let alarms = alarms.map(|it| format!("  alarm        {}", output.paint(Tone::Bad, it)));
    let more = disbelief(status.disbelieving, output).into_iter();
    let more: String = more.chain(alarms).map(|line| line + "\n").collect();
    text + &more
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Color;
    use model::ids::HostId;

    fn before_the_first_map(state: HostState) -> String {
        let status = HostStatus {
            version: "1.0.0".to_owned(),
            state,
            up: Some(false),
            detail: Some(HostDetail {
                name: "web-2".parse().unwrap(),
                id: HostId::from_bytes([1; 16]),
                fleet: "prod".parse().unwrap(),
                dns_suffix: String::new(),
                interface: "mesh0".to_owned(),
                addresses: Vec::new(),
                labels: Default::default(),
                listen_port: 51820,
                coordinators: Vec::new(),
                coordinator_error: None,
                revision: None,
                policy: None,
                peers: 0,
                certificate_expires_secs: None,
                alarms: Vec::new(),
                drops: Vec::new(),
                shards: 1,
                clock_ahead_secs: None,
                binary_replaced: false,
                state_dir: None,
                nft_table: None,
                mtu: None,
            }),
        };
        daemon_text(&status, &Output::new(false, Color::Never))
    }

    #[test]
    fn what_is_not_known_yet_is_said_and_not_left_out() {
        let text = before_the_first_map(HostState::Autonomous);
        assert!(!text.contains("web-2."), "{text}");
        assert!(text.contains("not known before the first map"), "{text}");
    }

    #[test]
    fn a_removed_host_needs_no_leave_before_it_joins() {
        let text = before_the_first_map(HostState::Removed);
        assert!(text.contains("run meshctl join with a new token"), "{text}");
    }
}
