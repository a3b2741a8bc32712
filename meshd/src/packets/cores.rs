//! Which core a packet thread runs on: one of those that the daemon may use, and always the same.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Puts the calling thread on a core of its own, when there is one for each of `count` threads.
/// Without, the kernel's scheduler does better.
pub(super) fn pin(number: u16, count: u16) {
    let Ok(allowed) = sched_getaffinity(None) else {
        return;
    };
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|core| allowed.is_set(*core))
        .collect();
    let Some(core) = core_of(number, count, &cores) else {
        return;
    };
    let mut own = CpuSet::new();
    own.set(core);
    if let Err(error) = sched_setaffinity(None, &own) {
        tracing::debug!(%error, core, "a packet thread stays where the scheduler puts it");
    }
}

/// Spreads the threads evenly, so that neighbours share as little as can be.
fn core_of(number: u16, count: u16, cores: &[usize]) -> Option<usize> {
    let (number, count) = (usize::from(number), usize::from(count));
    if count < 2 || cores.len() < count {
        return None;
    }
    cores.get(number * cores.len() / count).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_has_a_core_of_its_own_or_none() {
        let cores = [1, 3, 5, 7];
        let pinned =
            |count| -> Vec<_> { (0..count).map(|it| core_of(it, count, &cores)).collect() };
        assert_eq!(pinned(1), [None]);
        assert_eq!(pinned(2), [Some(1), Some(5)]);
        assert_eq!(pinned(4), [Some(1), Some(3), Some(5), Some(7)]);
        assert_eq!(pinned(8), [None; 8]);
    }
}
