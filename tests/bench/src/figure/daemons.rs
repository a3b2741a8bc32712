//! What the daemons took of the machine, as `/proc` tells.

use std::fs;
use std::time::Duration;

use lab::LabError;

/// The unit of processor times in `/proc`, the same on every Linux (proc(5), `USER_HZ`).
const TICKS_PER_SEC: u32 = 100;

/// Returns the processor time that the processes have used together, in user and kernel mode.
pub(super) fn processor_time(processes: &[u32]) -> Result<Duration, LabError> {
    sum(processes, "stat", read_processor_time)
}

/// Returns the resident memory of the process that has most.
pub(super) fn largest_resident_bytes(processes: &[u32]) -> Result<u64, LabError> {
    let all = read_each(processes, "status", read_resident_bytes)?;
    Ok(all.into_iter().max().unwrap_or(0))
}

fn sum<T: std::iter::Sum>(
    processes: &[u32],
    file: &str,
    read: fn(&str) -> Option<T>,
) -> Result<T, LabError> {
    Ok(read_each(processes, file, read)?.into_iter().sum())
}

fn read_each<T>(
    processes: &[u32],
    file: &str,
    read: fn(&str) -> Option<T>,
) -> Result<Vec<T>, LabError> {
    let read_one = |process: &u32| {
        let path = format!("/proc/{process}/{file}");
        let text = fs::read_to_string(&path)
            .map_err(|error| LabError::new(format!("cannot read {path}: {error}")))?;
        read(&text).ok_or_else(|| LabError::new(format!("cannot understand {path}: {text}")))
    };
    processes.iter().map(read_one).collect()
}

/// Fields 14 and 15 of `stat`; the second field is a name that may hold anything but ends at the
/// last parenthesis.
fn read_processor_time(stat: &str) -> Option<Duration> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    Some(Duration::from_secs(1) * (ticks()? + ticks()?) / TICKS_PER_SEC)
}

fn read_resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 9 9 20 0 4 0 100 0 0";
        assert_eq!(read_processor_time(stat), Some(Duration::from_secs(3)));
    }

    #[test]
    fn resident_memory_is_given_in_kibibytes() {
        let status = "Name:\tmeshd\nVmHWM:\t    9000 kB\nVmRSS:\t    8192 kB\n";
        assert_eq!(read_resident_bytes(status), Some(8 << 20));
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(largest_resident_bytes(&[std::process::id()]).unwrap() > 0);
    }
}
