//! Which core a packet thread runs on: one of those that the daemon may use, and always the same. All
//! of them are near the network cards where one node of memory has enough: what one thread hands to
//! another, and what a card has written, does not cross the machine then. A thread's memory is its
//! node's by itself, because nobody else touches it first.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

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
    let machine = Path::new("/sys");
    let cores = of_one_node(
        cores,
        usize::from(count),
        &nodes(machine),
        card_node(machine),
    );
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

/// Returns those cores that are near the cards, or else the most that are near each other, when these
/// are enough; all of them when they are not.
fn of_one_node(
    cores: Vec<usize>,
    count: usize,
    nodes: &[(usize, Vec<usize>)],
    card_node: Option<usize>,
) -> Vec<usize> {
    let near = nodes.iter().map(|(node, of_node)| {
        let both = cores.iter().filter(|core| of_node.contains(core));
        (Some(*node), both.copied().collect::<Vec<usize>>())
    });
    let enough = near.filter(|(_, cores)| cores.len() >= count);
    let best =
        enough.max_by_key(|(node, cores)| (card_node.is_some() && *node == card_node, cores.len()));
    best.map_or(cores, |(_, near)| near)
}

/// The cores of each node of memory (`/sys/devices/system/node/node0/cpulist`: `0-3,8-11`).
fn nodes(sys: &Path) -> Vec<(usize, Vec<usize>)> {
    let node = |entry: fs::DirEntry| {
        let number = entry.file_name().to_str()?.strip_prefix("node")?.parse();
        let list = fs::read_to_string(entry.path().join("cpulist")).ok()?;
        Some((number.ok()?, numbers(list.trim())?))
    };
    let mut nodes: Vec<_> = entries(&sys.join("devices/system/node"))
        .filter_map(node)
        .collect();
    nodes.sort_unstable();
    nodes
}

/// The node that all network cards are near, when they are near one.
fn card_node(sys: &Path) -> Option<usize> {
    let node = |entry: fs::DirEntry| {
        // -1 where there is only one; interfaces that are no cards have none.
        let node = fs::read_to_string(entry.path().join("device/numa_node"));
        node.ok()?.trim().parse().ok()
    };
    let nodes: BTreeSet<usize> = entries(&sys.join("class/net")).filter_map(node).collect();
    nodes.first().copied().filter(|_| nodes.len() == 1)
}

fn entries(directory: &Path) -> impl Iterator<Item = fs::DirEntry> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(Result::ok)
}

fn numbers(list: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for part in list.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        numbers.extend(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?);
    }
    Some(numbers)
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

    #[test]
    fn threads_stay_on_one_node_and_on_that_of_the_cards_where_it_has_room() {
        let nodes = [(0, vec![0, 2, 4, 6]), (1, vec![1, 3, 5, 7, 9])];
        let all: Vec<usize> = (0..10).collect();
        let of_one =
            |cores: &[usize], count, card| of_one_node(cores.to_vec(), count, &nodes, card);
        assert_eq!(of_one(&all, 4, Some(0)), [0, 2, 4, 6]);
        assert_eq!(of_one(&all, 4, Some(1)), [1, 3, 5, 7, 9]);
        assert_eq!(of_one(&all, 4, None), [1, 3, 5, 7, 9], "the larger one");
        assert_eq!(of_one(&all, 5, Some(0)), [1, 3, 5, 7, 9], "no room there");
        assert_eq!(of_one(&all, 8, Some(0)), all, "nor on any");
        assert_eq!(of_one(&[0, 1, 3], 2, Some(0)), [1, 3], "allowed ones only");
        assert_eq!(of_one_node(all.clone(), 4, &[], Some(0)), all);
    }

    #[test]
    fn what_the_kernel_tells_of_nodes_and_cards_is_read() {
        let sys = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = sys.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!((nodes(sys.path()), card_node(sys.path())), (vec![], None));
        write("devices/system/node/node1/cpulist", "2-3,6\n");
        write("devices/system/node/node0/cpulist", "0-1,4\n");
        write("devices/system/node/node2/cpulist", "\n");
        write("devices/system/node/possible", "0-2\n");
        let expected = [(0, vec![0, 1, 4]), (1, vec![2, 3, 6]), (2, vec![])];
        assert_eq!(nodes(sys.path()), expected);
        write("class/net/lo/mtu", "65536\n");
        write("class/net/eth0/device/numa_node", "1\n");
        write("class/net/eth1/device/numa_node", "1\n");
        assert_eq!(card_node(sys.path()), Some(1));
        write("class/net/eth2/device/numa_node", "-1\n");
        assert_eq!(card_node(sys.path()), Some(1), "it says nothing");
        write("class/net/eth3/device/numa_node", "0\n");
        assert_eq!(card_node(sys.path()), None);
    }
}
