//! Upgrades and downgrades of one host, again and again, while probes pass both ways.

use std::time::Duration;

use lab::LabError;
use machines::{Machine, Member, Site, repack};

use super::probe::{Passed, probe_during};
use super::{median, row};

/// For how long probes pass while nothing is done, to compare with.
const QUIET: Duration = Duration::from_secs(5);

/// Tells what upgrades cost a host that is upgraded so often, and its peer.
pub(super) fn tell(
    site: &Site,
    host: &Member,
    peer: &Member,
    rounds: usize,
) -> Result<(), LabError> {
    let machine = &host.machine;
    let package = &site.packages().meshd;
    let newer = repack(machine, package, "99.0.0", "true")?;
    let older = repack(machine, package, "0.0.1", "true")?;
    host.wait_reaches(peer)?;
    let (lost, pauses) = probe_rounds((host, peer), 1, |_| {
        std::thread::sleep(QUIET);
        Ok(())
    })?;
    row(
        "no upgrade: packets lost, longest pause",
        &shown(&lost, &pauses),
    );
    let mut waited = Vec::new();
    let (lost, pauses) = probe_rounds((host, peer), rounds, |round| {
        let before = main_process(machine)?;
        machine.install_own([&newer, &older][round % 2])?;
        if main_process(machine)? == before {
            return Err(LabError::new("the daemon was not handed over"));
        }
        waited.push(waited_micros(machine)?);
        Ok(())
    })?;
    let what = format!("{rounds} upgrades by `apt install`");
    row(
        &format!("{what}: packets lost, longest pause, each the median (worst)"),
        &shown(&lost, &pauses),
    );
    row(
        &format!("{what}: packets waited for the new daemon"),
        &format!(
            "{:.1} ms ({:.1} ms)",
            median(&waited) as f64 / 1e3,
            *waited.iter().max().unwrap_or(&0) as f64 / 1e3
        ),
    );
    Ok(())
}

/// Probes during each round; returns for each the packets lost both ways, and the longer pause.
fn probe_rounds(
    hosts: (&Member, &Member),
    rounds: usize,
    mut work: impl FnMut(usize) -> Result<(), LabError> + Send,
) -> Result<(Vec<u64>, Vec<Duration>), LabError> {
    let (mut lost, mut pauses) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        hosts.0.wait_reaches(hosts.1)?;
        let ((), passed) = probe_during(hosts, || work(round))?;
        let [there, back]: [Passed; 2] = passed;
        for (way, passed) in [("there", there), ("back", back)] {
            let Passed {
                lost,
                refused,
                longest,
            } = passed;
            eprintln!("round {round}, {way}: {lost} lost, {refused} of them refused; {longest:?}");
        }
        lost.push(there.lost + back.lost);
        pauses.push(there.longest.max(back.longest));
    }
    Ok((lost, pauses))
}

fn shown(lost: &[u64], pauses: &[Duration]) -> String {
    let worst_lost = lost.iter().max().unwrap_or(&0);
    let worst_pause = pauses.iter().max().copied().unwrap_or_default();
    format!(
        "{} ({worst_lost}), {:.0} ms ({:.0} ms)",
        median(lost),
        median(pauses).as_secs_f64() * 1e3,
        worst_pause.as_secs_f64() * 1e3
    )
}

fn main_process(machine: &Machine) -> Result<String, LabError> {
    machine.run("systemctl show -P MainPID meshd")
}

/// What the daemon that left says of it.
fn waited_micros(machine: &Machine) -> Result<u64, LabError> {
    let said = machine.run(
        "journalctl --sync
         journalctl -u meshd -o cat | grep 'handed over' | tail -1 |
             sed 's/.*pause_micros=\\([0-9]*\\).*/\\1/'",
    )?;
    let parsed = said.trim().parse();
    parsed.map_err(|_| LabError::new(format!("no pause in what the daemon says: {said:?}")))
}
