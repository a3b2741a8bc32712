//! What goes into a report: what the daemon says, what the machine says of its network, settings and
//! recent logs. Each part is bounded, and one that cannot be had says why in its place.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::local::{HostStatus, MetricsText};
use runtime::api_client::ApiClient;
use serde_json::Value;

use crate::arguments::Targets;
use crate::commands::doctor::{self, said_by};
use crate::connect;
use crate::output::{Color, Output, now_secs, time};

/// Bytes of one part; what is more is cut off at its beginning, since the end is the newest.
const PART_BYTES_MAX: usize = 2 << 20;
/// Lines of each log.
const LOG_LINES: &str = "5000";
const PATIENCE: Duration = Duration::from_secs(5);
const CONFIG: &str = "/etc/mesh/meshd.toml";

type Part = (&'static str, String);

/// Collects every part.
pub(super) async fn collect(targets: &Targets, config: Option<PathBuf>) -> Vec<Part> {
    let (daemon, examination, machine) = tokio::join!(
        of_daemon(targets),
        doctor::examine(targets, config.clone()),
        of_machine(),
    );
    let config = config.unwrap_or_else(|| CONFIG.into());
    let mut parts = vec![
        (
            "doctor.txt",
            examination.text(true, &Output::new(false, Color::Never)),
        ),
        ("doctor.json", pretty(&examination)),
    ];
    parts.push(("state-directory.txt", state_directory(&daemon)));
    parts.extend(daemon.parts);
    parts.extend(machine);
    parts.push(("settings.txt", settings(&config)));
    parts.push(("resolv.conf", file(Path::new("/etc/resolv.conf"))));
    parts.push(("nsswitch.conf", file(Path::new("/etc/nsswitch.conf"))));
    parts.push(("os-release", file(Path::new("/etc/os-release"))));
    parts.sort_by_key(|(name, _)| *name);
    let bounded = parts.into_iter().map(|(name, text)| (name, newest(text)));
    let mut all = vec![("report.txt", summary())];
    all.extend(bounded);
    all
}

/// What the daemon tells, and where its state is.
struct Daemon {
    parts: Vec<Part>,
    state_dir: PathBuf,
}

async fn of_daemon(targets: &Targets) -> Daemon {
    let client = connect::daemon(targets).with_patience(PATIENCE);
    let ask = async |path: &str| match client.get::<Value>(path).await {
        Ok(answer) => pretty(&answer),
        Err(error) => format!("{{\"error\": {:?}}}\n", error.to_string()),
    };
    let page = async |client: ApiClient| match client.get::<MetricsText>("/v1/metrics").await {
        Ok(page) => page.text,
        Err(error) => format!("({error})\n"),
    };
    let coordinator = targets.coordinator_socket.as_deref();
    let coordinator = coordinator.unwrap_or(Path::new(connect::COORDINATOR_SOCKET));
    let coordinator = ApiClient::unix(coordinator).with_patience(PATIENCE);
    let (status, peers, drops, dns, services, metrics, of_coordinator) = tokio::join!(
        ask("/v1/status"),
        ask("/v1/peers"),
        ask("/v1/drops"),
        ask("/v1/dns"),
        ask("/v1/services"),
        page(client.clone()),
        page(coordinator),
    );
    let known: Option<HostStatus> = serde_json::from_str(&status).ok();
    let state_dir = known.and_then(|it| it.detail?.state_dir);
    Daemon {
        state_dir: state_dir
            .unwrap_or_else(|| "/var/lib/mesh/meshd".into())
            .into(),
        parts: vec![
            ("status.json", status),
            ("peers.json", peers),
            ("drops.json", drops),
            ("dns.json", dns),
            ("services.json", services),
            ("metrics.txt", metrics),
            ("mesh-coordinator-metrics.txt", of_coordinator),
        ],
    }
}

/// What other programs tell of the machine.
async fn of_machine() -> Vec<Part> {
    let [of_meshd, of_coordinator] = ["meshd", "mesh-coordinator"].map(|unit| {
        [
            "-u",
            unit,
            "-n",
            LOG_LINES,
            "--no-pager",
            "-o",
            "short-iso-precise",
        ]
    });
    let (network, firewall, logs, versions) = tokio::join!(
        async {
            tokio::join!(
                said("ip", &["-s", "address"]),
                said("ip", &["-4", "route", "show", "table", "all"]),
                said("ip", &["-6", "route", "show", "table", "all"]),
                said("ip", &["rule"]),
                said("ss", &["-lntu"]),
            )
        },
        async {
            tokio::join!(
                said("nft", &["list", "table", "inet", "mesh"]),
                said("nft", &["list", "tables"]),
                said("resolvectl", &["status", "--no-pager"]),
            )
        },
        async {
            tokio::join!(
                said("journalctl", &of_meshd),
                said("journalctl", &of_coordinator),
                said("systemctl", &["status", "meshd", "--no-pager", "-n", "0"]),
                said("systemctl", &["show", "meshd"]),
            )
        },
        async {
            tokio::join!(
                said("meshd", &["--version"]),
                said("mesh-coordinator", &["--version"]),
                said("uname", &["-a"]),
                said("meshd", &["--plan"]),
            )
        },
    );
    let (addresses, v4, v6, rules, sockets) = network;
    let (table, tables, resolvectl) = firewall;
    let (meshd, coordinator, status, unit) = logs;
    let (meshd_version, coordinator_version, uname, plan) = versions;
    let own = format!("meshctl {}\n", env!("CARGO_PKG_VERSION"));
    vec![
        ("addresses.txt", addresses),
        ("routes.txt", [v4, v6, rules].join("\n")),
        ("sockets.txt", sockets),
        ("nftables.txt", [table, tables].join("\n")),
        ("resolvectl.txt", resolvectl),
        ("meshd.log", meshd),
        ("mesh-coordinator.log", coordinator),
        ("unit.txt", [status, unit].join("\n")),
        (
            "versions.txt",
            [own, meshd_version, coordinator_version, uname].concat(),
        ),
        ("plan.txt", plan),
    ]
}

async fn said(program: &str, arguments: &[&str]) -> String {
    match said_by(program, arguments).await {
        Ok(text) => text,
        Err(why) => format!("({why})\n"),
    }
}

fn summary() -> String {
    format!(
        "A report of `meshctl bugreport` about this host, made at {}. Secrets are taken out by shape: keys,\n\
         tokens, credentials. Begin with doctor.txt.\n",
        time(now_secs())
    )
}

fn pretty(value: &impl serde::Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("answers are JSON");
    text.push('\n');
    text
}

fn file(path: &Path) -> String {
    match fs::read(path) {
        Ok(text) => String::from_utf8_lossy(&text).into_owned(),
        Err(error) => format!("({}: {error})\n", path.display()),
    }
}

/// The daemon's settings file and those beside it.
fn settings(config: &Path) -> String {
    let mut text = format!("# {}\n{}", config.display(), file(config));
    let mut beside: Vec<PathBuf> = fs::read_dir(config.with_extension("conf.d"))
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|it| it == "toml"))
        .collect();
    beside.sort();
    for path in beside {
        let _ = write!(text, "\n# {}\n{}", path.display(), file(&path));
    }
    text
}

/// Names, sizes and modes: what is in these files is secret.
fn state_directory(daemon: &Daemon) -> String {
    let path = &daemon.state_dir;
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => return format!("({}: {error})\n", path.display()),
    };
    let mut lines: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            let mode = metadata.permissions().mode() & 0o7777;
            let name = entry.file_name();
            Some(format!(
                "{mode:04o} {:>9} {}\n",
                metadata.len(),
                name.to_string_lossy()
            ))
        })
        .collect();
    lines.sort();
    format!("{}\n{}", path.display(), lines.concat())
}

fn newest(text: String) -> String {
    let surplus = text.len().saturating_sub(PART_BYTES_MAX);
    if surplus == 0 {
        return text;
    }
    let lines = text.as_bytes()[surplus..]
        .iter()
        .position(|it| *it == b'\n');
    let start = lines.map_or(text.len(), |line| surplus + line + 1);
    format!(
        "({start} bytes before this are left out)\n{}",
        &text[start..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_long_text_is_kept_from_a_line_s_beginning() {
        let line = format!("{}\n", "x".repeat(99));
        let long = line.repeat(PART_BYTES_MAX / 100 + 10);
        let kept = newest(long);
        assert!(kept.len() <= PART_BYTES_MAX + 100);
        assert!(kept.lines().nth(1).unwrap().len() == 99 && kept.ends_with('\n'));
        assert_eq!(newest("short\n".into()), "short\n");
    }

    #[test]
    fn settings_beside_the_file_are_in_it_and_other_files_are_not() {
        let root = tempfile::tempdir().unwrap();
        let config = root.path().join("meshd.toml");
        let beside = root.path().join("meshd.conf.d");
        fs::create_dir(&beside).unwrap();
        fs::write(&config, "mtu = 1300\n").unwrap();
        fs::write(beside.join("10.toml"), "log_level = 'debug'\n").unwrap();
        fs::write(beside.join("join-token"), "mesh1abc\n").unwrap();
        let text = settings(&config);
        assert!(text.contains("mtu = 1300") && text.contains("debug"));
        assert!(!text.contains("mesh1abc"));
    }
}
