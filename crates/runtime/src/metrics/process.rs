//! What the kernel tells of this process, under the names that dashboards know from other programs.

use std::fs;
use std::time::Duration;

use model::time::UnixTime;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::page::Page;

crate::catalogue! {
    /// Processor time of this process, of all its threads.
    CPU: Counter = "process_cpu_seconds_total";
    /// Memory of this process that is in RAM.
    RESIDENT: Gauge = "process_resident_memory_bytes";
    /// Addresses that this process has mapped.
    VIRTUAL: Gauge = "process_virtual_memory_bytes";
    /// Its threads.
    THREADS: Gauge = "process_threads";
    /// Its open descriptors.
    OPEN_FDS: Gauge = "process_open_fds";
    /// How many it may have.
    MAX_FDS: Gauge = "process_max_fds";
    /// When it was started, in Unix time.
    START: Gauge = "process_start_time_seconds";
}

/// Writes what the kernel tells now. `started` is when the daemon was.
pub fn write(page: &mut Page, started: UnixTime) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = |key| number(&status, key).map(|kilobytes| kilobytes * 1024);
    let cpu = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime));
    page.perhaps(CPU, cpu.ok().map(|time| time.as_secs_f64()));
    page.perhaps(RESIDENT, kilobytes("VmRSS:"));
    page.perhaps(VIRTUAL, kilobytes("VmSize:"));
    page.perhaps(THREADS, number(&status, "Threads:"));
    page.perhaps(OPEN_FDS, open_descriptors());
    page.perhaps(MAX_FDS, getrlimit(Resource::Nofile).current);
    page.one(START, started.as_secs());
}

/// The number behind a key (proc_pid_status(5)).
fn number(status: &str, key: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

fn open_descriptors() -> Option<u64> {
    let listed = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    // One of them is the list's own.
    Some(listed.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::super::page::Format;
    use super::*;

    #[test]
    fn the_kernel_tells_of_this_process() {
        let mut page = Page::new(Format::Prometheus);
        write(&mut page, UnixTime::from_secs(1_000_000));
        let text = page.finish();
        for metric in ALL {
            let name = format!("\n{} ", metric.name);
            let value = text.split_once(&name).map(|(_, rest)| rest);
            let value = value.and_then(|rest| rest.lines().next()?.parse::<f64>().ok());
            assert!(value.is_some_and(|value| value > 0.0), "{name} in {text}");
        }
    }
}
