//! On what machine and with which programs was measured: numbers without it mean nothing.

use std::fs;
use std::thread;

use lab::LabError;

use crate::contender::Contender;
use crate::rounds::Plan;

/// Returns what a reader must know of the machine, the run and the programs.
pub(crate) fn describe(plan: &Plan, contenders: &[Box<dyn Contender>]) -> Result<String, LabError> {
    let mut versions = Vec::new();
    for contender in contenders {
        if let Some(version) = contender.version()?
            && !versions.contains(&version)
        {
            versions.push(version);
        }
    }
    let system = rustix::system::uname();
    let cores = thread::available_parallelism().map_or(0, usize::from);
    Ok(format!(
        "{}, {cores} cores shared by both ends and what measures, Linux {}. Medians of {} rounds; TCP (reno) for \
         {} s; less than 1 % of UDP datagrams lost; in parentheses the ratio to ours. {}.",
        processor(),
        system.release().to_string_lossy(),
        plan.rounds,
        plan.seconds,
        versions.join("; "),
    ))
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let name = named.and_then(|rest| rest.split_once(':'));
    name.map_or_else(
        || "unknown processor".into(),
        |(_, name)| name.trim().into(),
    )
}
