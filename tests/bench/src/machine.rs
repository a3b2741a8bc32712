//! On what machine and with which programs was measured: numbers without it mean nothing.

use std::fs;
use std::thread;

/// Returns what a reader must know of the machine, the run and the programs; `how` says in a sentence or
/// two what else of the run matters.
pub(crate) fn describe(rounds: u32, how: &str, versions: Vec<String>) -> String {
    let mut programs: Vec<String> = Vec::new();
    for version in versions {
        if !programs.contains(&version) {
            programs.push(version);
        }
    }
    let system = rustix::system::uname();
    let cores = thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{}, {cores} cores shared by both ends and what measures, Linux {}. Medians of {rounds} rounds; {how}; \
         in parentheses the ratio to ours. {}.",
        processor(),
        system.release().to_string_lossy(),
        programs.join("; "),
    )
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
