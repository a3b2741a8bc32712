//! `cargo xtask figures`: what it costs to install, start, keep and upgrade the daemons, measured with
//! the packages on whole machines under a real systemd, and printed as a Markdown table.

mod probe;
mod upgrades;

use std::time::{Duration, Instant};

use lab::{Lab, LabError};
use machines::{Machine, Member, Packages, Release, Site};

use crate::failure::Failure;

/// Machines that are installed from nothing, and boots, of which the median is told.
const ROUNDS: usize = 5;
/// How long a daemon has nothing to do before its memory is looked at.
const IDLE: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_secs(30);
/// Probes by UDP, and pings.
const POLICY: &str = "mkdir -p /root/policy; cat > /root/policy/policy.yaml <<'END'
fleet: main
allow:
  - { id: all, from: any, to: any, icmp: true, udp: [9] }
END
meshctl policy apply /root/policy";

/// What is measured.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Measuring {
    /// How often a host is upgraded.
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// The packages that tests install, which are not optimised.
    #[arg(long)]
    dev: bool,
}

/// Measures with packages that `cargo xtask package` has made.
pub(crate) fn run(what: Measuring) -> Result<(), Failure> {
    measure(what).map_err(|error| Failure::new(error.to_string()))
}

fn measure(what: Measuring) -> Result<(), LabError> {
    let packages = match what.dev {
        true => Packages::find()?,
        false => Packages::find_released()?,
    };
    let lab = Lab::new()?;
    let site = Site::start_with(&lab, packages)?;
    site.coordinator.run(POLICY)?;
    println!("| | |\n|---|---|");
    tell_sizes(&site)?;
    tell_confinement(&site)?;
    let beta = site.member("beta")?;
    tell_installing(&site, &beta)?;
    if !what.dev {
        tell_oldest(&site, &beta)?;
    }
    let mut alpha = site.member("alpha")?;
    tell_booting(&mut alpha)?;
    alpha.wait_reaches(&beta)?;
    tell_memory(&site, &alpha)?;
    upgrades::tell(&site, &alpha, &beta, what.rounds)
}

fn row(what: &str, figure: &str) {
    println!("| {what} | {figure} |");
}

/// The middle one, or the higher of the two in the middle.
fn median<T: Copy + Ord>(values: &[T]) -> T {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

fn tell_sizes(site: &Site) -> Result<(), LabError> {
    let packages = site.packages();
    for path in [
        &packages.meshd,
        &packages.coordinator,
        &packages.meshd_rpm,
        &packages.coordinator_rpm,
    ] {
        let bytes = std::fs::metadata(path).map_or(0, |file| file.len());
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        row(&name, &format!("{:.2} MB", bytes as f64 / 1e6));
    }
    for package in ["meshd", "mesh-coordinator"] {
        let ask = format!("dpkg-query -W -f '${{Installed-Size}}' {package}");
        let kibibytes: f64 = site.coordinator.run(&ask)?.parse().unwrap_or(f64::NAN);
        let figure = format!("{:.1} MB", kibibytes * 1024.0 / 1e6);
        row(&format!("{package}, installed"), &figure);
    }
    Ok(())
}

fn tell_confinement(site: &Site) -> Result<(), LabError> {
    for unit in ["meshd", "mesh-coordinator"] {
        let ask = format!("systemd-analyze security --no-pager {unit}.service | tail -1");
        let said = site.coordinator.run(&ask)?;
        let score = said.split(".service:").nth(1).unwrap_or_default();
        let score = score.split_whitespace().next().unwrap_or_default();
        row(&format!("`systemd-analyze security {unit}`"), score);
    }
    Ok(())
}

/// From the first command on a machine that has nothing of ours, to an answer through the tunnel.
fn tell_installing(site: &Site, other: &Member) -> Result<(), LabError> {
    let token = site.token()?;
    let mut took = Vec::new();
    for round in 0..ROUNDS {
        let machine = site.plan(&format!("new-{round}"))?.boot()?;
        let began = Instant::now();
        machine.install(&site.packages().meshd)?;
        machine.run(&format!(
            "meshctl join {token}
             until ping -q -c 1 -W 0.2 {} > /dev/null; do :; done",
            other.overlay_v4
        ))?;
        took.push(began.elapsed());
    }
    let what = "`apt install`, `meshctl join`, first answer through the tunnel";
    row(what, &format!("{:.1} s", median(&took).as_secs_f64()));
    Ok(())
}

/// Whether the oldest distribution takes the packages, and a reload there hands over.
fn tell_oldest(site: &Site, other: &Member) -> Result<(), LabError> {
    let plan = site.plan("oldest")?.with_release(Release::Bullseye)?;
    let machine = plan.boot()?;
    let glibc = machine.run("ldd --version | head -1")?;
    let systemd = machine.run("systemctl --version | head -1")?;
    machine.install(&site.packages().meshd)?;
    machine.install(&site.packages().coordinator)?;
    machine.run(&format!("meshctl join {}", site.token()?))?;
    let oldest = Member::of(machine)?;
    oldest.wait_reaches(other)?;
    other.wait_reaches(&oldest)?;
    oldest
        .machine
        .run("meshctl reload --hand-over && systemctl is-active meshd mesh-coordinator")?;
    oldest.wait_reaches(other)?;
    oldest
        .machine
        .run("apt-get purge -q -y meshd 2>&1 && ! ip link show mesh0")?;
    let [glibc, systemd] = [&glibc, &systemd].map(|it| it.split_whitespace().last());
    let shown = |it: Option<&str>| it.unwrap_or("unknown").trim_matches(['(', ')']).to_owned();
    let figure = format!(
        "installs, joins, hands over, purges (glibc {}, systemd {})",
        shown(glibc),
        shown(systemd)
    );
    row("Debian 11", &figure);
    Ok(())
}

fn tell_booting(host: &mut Member) -> Result<(), LabError> {
    let [mut after_boot, mut after_start, mut up] = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        host.machine.reboot()?;
        let machine = &host.machine;
        machine.run("meshctl wait-online --timeout 30")?;
        let booted = micros(machine, "systemctl show -P UserspaceTimestampMonotonic")?;
        let unit = |name: &str| micros(machine, &format!("systemctl show -P {name} meshd"));
        let started = unit("ExecMainStartTimestampMonotonic")?;
        let ready = unit("ActiveEnterTimestampMonotonic")?;
        after_boot.push(ready - booted);
        after_start.push(ready - started);
        machine.wait_for("the overlay's interface", SOON, "ip link show mesh0")?;
        let told = "journalctl -b -u meshd -o json | grep 'the overlay is up' |
             sed 's/.*\"__MONOTONIC_TIMESTAMP\":\"\\([0-9]*\\)\".*/\\1/' | tail -1";
        up.push(micros(machine, told)? - booted);
    }
    let millis = |micros: &[i64]| format!("{} ms", median(micros) / 1000);
    row("systemd starts, `meshd` is ready", &millis(&after_boot));
    row("systemd starts, the overlay is up", &millis(&up));
    row("`meshd` starts, is ready", &millis(&after_start));
    Ok(())
}

fn micros(machine: &Machine, ask: &str) -> Result<i64, LabError> {
    let said = machine.run(ask)?;
    let parsed = said.trim().parse();
    parsed.map_err(|_| LabError::new(format!("{ask}: no number of microseconds: {said:?}")))
}

fn tell_memory(site: &Site, host: &Member) -> Result<(), LabError> {
    std::thread::sleep(IDLE);
    let hosts = ROUNDS + 2;
    for (machine, unit) in [
        (&host.machine, "meshd"),
        (&site.coordinator, "mesh-coordinator"),
    ] {
        let said = machine.run(&format!(
            "awk '/^VmRSS|^RssAnon/ {{print $2}}' /proc/$(systemctl show -P MainPID {unit})/status"
        ))?;
        let mut sizes = said.lines().filter_map(|line| line.parse::<f64>().ok());
        let mut megabytes = || sizes.next().unwrap_or(f64::NAN) * 1024.0 / 1e6;
        let (resident, own) = (megabytes(), megabytes());
        row(
            &format!("memory of `{unit}` at rest, {hosts} hosts"),
            &format!("{resident:.1} MB resident, {own:.1} MB without what its file has"),
        );
    }
    Ok(())
}
