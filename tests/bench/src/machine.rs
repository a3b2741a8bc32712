//! On what was measured: numbers without it mean nothing.

use std::fs;
use std::thread;

use crate::rounds::Plan;

/// Returns a sentence about the machine and the run.
pub(crate) fn describe(plan: Plan) -> String {
    let system = rustix::system::uname();
    let cores = thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{}, {cores} cores shared by both ends, Linux {}; medians of {} rounds, TCP (reno) for {} s; in \
         parentheses the ratio to ours.",
        processor(),
        system.release().to_string_lossy(),
        plan.rounds,
        plan.seconds,
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
