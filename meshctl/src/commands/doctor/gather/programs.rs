//! What other programs of the machine tell when they are asked: systemd, meshd itself, firewalls.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::Command;

use super::super::facts::{Known, Obstacle, Verdict};
use super::PATIENCE;

/// Runs a program, and returns what it prints; an error when it is missing, refuses or hangs.
pub(crate) async fn said_by(program: &str, arguments: &[&str]) -> Known<String> {
    let running = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .env("PATH", search_path(std::env::var("PATH").ok()))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = match tokio::time::timeout(PATIENCE, running).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("cannot run {program}: {error}")),
        Err(_) => return Err(format!("{program} does not answer")),
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program}: {}", said.trim()))
}

/// Where programs of administrators are, which users that are not root often do not search.
const ADMINISTRATION: &str = "/usr/local/sbin:/usr/sbin:/sbin";

fn search_path(own: Option<String>) -> String {
    match own.filter(|own| !own.is_empty()) {
        Some(own) => format!("{own}:{ADMINISTRATION}"),
        None => format!("/usr/local/bin:/usr/bin:/bin:{ADMINISTRATION}"),
    }
}

/// The properties that a check looks at.
const PROPERTIES: &str = "LoadState,ActiveState,MainPID,Result,NRestarts,PrivateNetwork,PrivateDevices,DevicePolicy,DeviceAllow,CapabilityBoundingSet,RestrictAddressFamilies,DropInPaths";

pub(super) async fn unit(name: &str) -> Known<BTreeMap<String, String>> {
    let said = said_by("systemctl", &["show", name, "-p", PROPERTIES]).await?;
    let pairs = said.lines().filter_map(|line| line.split_once('='));
    Ok(pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

pub(super) async fn clock_is_kept() -> Known<bool> {
    let said = said_by("timedatectl", &["show", "-p", "NTPSynchronized", "--value"]).await?;
    Ok(said.trim() == "yes")
}

pub(super) async fn installed_version() -> Known<String> {
    let said = said_by("meshd", &["--version"]).await?;
    let version = said.split_whitespace().nth(1);
    version
        .map(str::to_owned)
        .ok_or_else(|| "meshd tells no version".to_owned())
}

/// Asks the daemon's own program what is in its way.
pub(super) async fn obstacles(config: Option<PathBuf>) -> Result<Vec<String>, Obstacle> {
    if !rustix::process::geteuid().is_root() {
        let why = "only root may ask `meshd --plan`";
        return Err(Obstacle::NotAsked(why.into()));
    }
    match asked_of("meshd", "--plan", config).await {
        Ok(plan) => Ok(obstacles_in(&plan)),
        Err(why) if could_not_be_asked(&why) => Err(Obstacle::NotAsked(why)),
        Err(why) => Err(Obstacle::Refused(why)),
    }
}

/// Asks a daemon's own program whether it takes its settings.
pub(super) async fn verdict(daemon: &str, config: Option<PathBuf>) -> Verdict {
    match asked_of(daemon, "--check", config).await {
        Ok(_) => Verdict::Good,
        Err(why) if could_not_be_asked(&why) => Verdict::Unknown(why),
        // Its name stands before what it says, and before that.
        Err(why) => Verdict::Refused(why.trim_start_matches(&*format!("{daemon}: ")).to_owned()),
    }
}

async fn asked_of(daemon: &str, what: &str, config: Option<PathBuf>) -> Known<String> {
    let config = config.map(|path| path.to_string_lossy().into_owned());
    let mut arguments = vec![what];
    arguments.extend(config.iter().flat_map(|path| ["--config", path]));
    said_by(daemon, &arguments).await
}

/// There is no such program, it hangs, or it is of a version that does not know the question.
fn could_not_be_asked(why: &str) -> bool {
    why.starts_with("cannot run ")
        || why.ends_with(" does not answer")
        || why.contains("unexpected argument")
}

fn obstacles_in(plan: &str) -> Vec<String> {
    let found = plan
        .lines()
        .filter_map(|line| line.strip_prefix("In the way: "));
    // Its own interface, while it runs.
    let found = found.filter(|line| !line.contains("that is fine when meshd runs"));
    found.map(str::to_owned).collect()
}

/// Asks the programs that keep firewalls, where they run, whether they open a port.
pub(super) async fn firewalls(port: u16) -> Vec<(&'static str, Known<bool>)> {
    let query = format!("--query-port={port}/udp");
    let query = [query.as_str()];
    let (firewalld, opens, ufw) = tokio::join!(
        said_by("firewall-cmd", &["--state"]),
        said_by("firewall-cmd", &query),
        said_by("ufw", &["status"]),
    );
    let mut found = Vec::new();
    if firewalld.is_ok() {
        found.push(("firewalld", Ok(opens.is_ok())));
    }
    match ufw {
        Ok(status) if status.starts_with("Status: active") => {
            found.push(("ufw", Ok(ufw_opens(&status, port))));
        }
        Err(why) if why.contains("need to be root") => found.push(("ufw", Err(why))),
        _ => {}
    }
    found
}

fn ufw_opens(status: &str, port: u16) -> bool {
    let targets = [format!("{port}/udp"), port.to_string()];
    let mut lines = status
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.any(|words| {
        let names = words
            .first()
            .is_some_and(|it| targets.iter().any(|port| it == port));
        names && words.contains(&"ALLOW")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_s_obstacles_are_those_that_keep_meshd_from_starting() {
        let plan = "\
meshd owns on this host, and takes back when it stops:
  route      100.64.0.0/16 dev mesh0
In the way: an interface mesh0 exists already; that is fine when meshd runs
In the way: the overlay's prefix overlaps
";
        assert_eq!(obstacles_in(plan), ["the overlay's prefix overlaps"]);
    }

    #[test]
    fn ufw_opens_what_it_says() {
        let status = "Status: active\n\nTo      Action  From\n--      ------  ----\n51820/udp   ALLOW   Anywhere\n22/tcp  DENY  Anywhere\n";
        assert!(ufw_opens(status, 51820));
        assert!(!ufw_opens(status, 22) && !ufw_opens(status, 53));
    }

    #[test]
    fn programs_of_administrators_are_found_by_everybody() {
        let path = search_path(Some("/opt/bin:/usr/bin".into()));
        assert!(path.starts_with("/opt/bin:/usr/bin:") && path.contains(":/usr/sbin"));
        assert!(search_path(None).starts_with("/usr/local/bin:"));
    }

    #[tokio::test]
    async fn a_program_that_fails_says_why() {
        assert_eq!(said_by("echo", &["hello"]).await.as_deref(), Ok("hello\n"));
        assert!(
            said_by("/nonexistent", &[])
                .await
                .unwrap_err()
                .contains("cannot run")
        );
        assert!(said_by("false", &[]).await.is_err());
    }
}
