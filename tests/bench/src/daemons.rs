//! What the daemons took of the machine, as `/proc` tells: each with all processes that it started.

use std::fs;
use std::time::Duration;

use lab::LabError;

/// The unit of processor times in `/proc`, the same on every Linux (proc(5), `USER_HZ`).
const TICKS_PER_SEC: u32 = 100;

/// Returns the processor time that the groups have used together, in user and kernel mode.
pub(crate) fn processor_time(groups: &[u32]) -> Result<Duration, LabError> {
    let all = stats()?;
    let of_all = groups.iter().map(|group| {
        Ok(members(&all, *group)?
            .map(|stat| stat.processor_time)
            .sum::<Duration>())
    });
    of_all.sum()
}

/// Returns the resident memory of the group that has most.
pub(crate) fn largest_resident_bytes(groups: &[u32]) -> Result<u64, LabError> {
    let all = stats()?;
    let mut largest = 0;
    for group in groups {
        let resident = members(&all, *group)?.map(|stat| resident_bytes(stat.process));
        largest = largest.max(resident.sum());
    }
    Ok(largest)
}

/// Returns the memory of the group that has most, pages that its processes share counted once.
pub(crate) fn largest_proportional_bytes(groups: &[u32]) -> Result<u64, LabError> {
    let all = stats()?;
    let mut largest = 0;
    for group in groups {
        let own = members(&all, *group)?.map(|stat| proportional_bytes(stat.process));
        largest = largest.max(own.sum());
    }
    Ok(largest)
}

/// What `/proc/PROCESS/stat` tells of a process.
#[derive(Debug, PartialEq)]
struct Stat {
    process: u32,
    group: u32,
    processor_time: Duration,
}

impl Stat {
    /// The second field is a name that may hold anything but ends at the last parenthesis; from there
    /// on the group is number 3, and the times in user and kernel mode are 12 and 13.
    fn parse(text: &str) -> Option<Self> {
        let (before, after) = text.rsplit_once(')')?;
        let process = before.split_once(' ')?.0.parse().ok()?;
        let fields: Vec<&str> = after.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at)?.parse::<u32>().ok();
        Some(Self {
            process,
            group: fields.get(2)?.parse().ok()?,
            processor_time: Duration::from_secs(1) * (ticks(11)? + ticks(12)?) / TICKS_PER_SEC,
        })
    }
}

/// The processes of a group, of which there must be one: a daemon that has ended has used nothing.
fn members(all: &[Stat], group: u32) -> Result<impl Iterator<Item = &Stat>, LabError> {
    let members = all.iter().filter(move |stat| stat.group == group);
    if members.clone().next().is_none() {
        return Err(LabError::new(format!(
            "the daemon with the process id {group} has ended"
        )));
    }
    Ok(members)
}

/// All processes; those that end meanwhile are left out.
fn stats() -> Result<Vec<Stat>, LabError> {
    let entries = fs::read_dir("/proc")
        .map_err(|error| LabError::new(format!("cannot list /proc: {error}")))?;
    let processes = entries.flatten().filter(|entry| {
        let name = entry.file_name();
        name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
    });
    let texts = processes.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    Ok(texts.filter_map(|text| Stat::parse(&text)).collect())
}

fn resident_bytes(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    read_resident_bytes(&status).unwrap_or(0)
}

fn read_resident_bytes(status: &str) -> Option<u64> {
    read_kibibytes(status, "VmRSS:")
}

fn proportional_bytes(process: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
    read_kibibytes(&rollup, "Pss:").unwrap_or(0)
}

fn read_kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = "9 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 9 9 20 0 4 0 100 0 0";
        let expected = Stat {
            process: 9,
            group: 7,
            processor_time: Duration::from_secs(3),
        };
        assert_eq!(Stat::parse(text), Some(expected));
    }

    #[test]
    fn resident_memory_is_given_in_kibibytes() {
        let status = "Name:\tmeshd\nVmHWM:\t    9000 kB\nVmRSS:\t    8192 kB\n";
        assert_eq!(read_resident_bytes(status), Some(8 << 20));
        let rollup = "7f00-7fff ---p 00000000 00:00 0 [rollup]\nRss: 12 kB\nPss:  4 kB\n";
        assert_eq!(read_kibibytes(rollup, "Pss:"), Some(4096));
    }

    #[test]
    fn the_group_of_this_process_uses_memory_and_one_that_is_gone_does_not_count_as_idle() {
        let own = stats().unwrap();
        let own = own
            .iter()
            .find(|stat| stat.process == std::process::id())
            .unwrap();
        assert!(largest_resident_bytes(&[own.group]).unwrap() > 0);
        assert!(largest_proportional_bytes(&[own.group]).unwrap() > 0);
        assert!(processor_time(&[u32::MAX]).is_err());
    }
}
