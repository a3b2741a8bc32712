//! Whether a daemon runs, although it may not answer: who listens at its socket, and in which state
//! the kernel has that process.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tokio::net::UnixStream;
use tokio::time::timeout;

use super::super::facts::{Known, Process};
use super::PATIENCE;

/// Characters of a program's name that the kernel keeps (proc_pid_comm(5)).
const NAME_CHARACTERS_MAX: usize = 15;

/// Looks who listens at a socket. The kernel lets in whom nobody answers, and says who opened it; a
/// daemon may have got it from another one since, which is gone. So it is the youngest process of that
/// name that has the socket open, or else who opened it, when that is still one of that name.
pub(super) async fn listening(socket: &Path, name: &str) -> Process {
    let Ok(Ok(stream)) = timeout(PATIENCE, UnixStream::connect(socket)).await else {
        return Process::None;
    };
    let opener = stream.peer_cred().ok().and_then(|it| it.pid());
    let opener = opener.and_then(|pid| u32::try_from(pid).ok());
    let opener = opener.filter(|pid| is_called(*pid, name));
    runs(holder(socket, name).or(opener))
}

/// Puts together who listens and what systemd says of the unit: it knows its main process also after
/// another one has taken over, and while nobody listens. `is_of_unit`: the socket is the unit's.
pub(super) fn settled(
    listening: Process,
    unit: &Known<BTreeMap<String, String>>,
    is_of_unit: bool,
) -> Process {
    let unit = unit.as_ref().ok();
    let main = unit.and_then(|it| it.get("MainPID")?.parse().ok());
    match (listening, main.filter(|pid| *pid != 0)) {
        (listening, None) => listening,
        (Process::Runs { .. }, Some(_)) if !is_of_unit => listening,
        (_, main) => runs(main),
    }
}

/// Returns the capabilities that this process may have and that one may not. What a container
/// withholds from all is none of them.
pub(super) fn withheld(process: Process) -> u64 {
    let bounding = |pid| status(pid).and_then(|it| bounding_set(&it));
    let pair = match process {
        Process::Runs { pid: Some(pid), .. } => bounding(std::process::id()).zip(bounding(pid)),
        Process::Runs { pid: None, .. } | Process::None => None,
    };
    pair.map_or(0, |(own, theirs)| own & !theirs)
}

/// Returns what a daemon was started with as `--mtu`, if it was: flags win over files.
pub(super) fn mtu_flag(process: Process) -> Option<String> {
    let Process::Runs { pid: Some(pid), .. } = process else {
        return None;
    };
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    flag(&String::from_utf8_lossy(&line), "--mtu")
}

/// Finds a flag's value in a command line as the kernel tells it (proc_pid_cmdline(5)): a zero
/// follows each word.
fn flag(line: &str, name: &str) -> Option<String> {
    let mut words = line.split('\0');
    let value = words.find_map(|word| match word.strip_prefix(name)? {
        "" => Some(None),
        rest => rest.strip_prefix('=').map(Some),
    })?;
    value.or_else(|| words.next()).map(str::to_owned)
}

/// A process by its number.
fn runs(pid: Option<u32>) -> Process {
    let status = pid.and_then(status);
    Process::Runs {
        pid,
        is_stopped: status.is_some_and(|status| is_stopped(&status)),
    }
}

fn status(pid: u32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/status")).ok()
}

/// T: stopped by a signal; t: by a debugger (proc_pid_status(5)).
fn is_stopped(status: &str) -> bool {
    let state = status.lines().find_map(|it| it.strip_prefix("State:"));
    state.is_some_and(|it| it.trim_start().starts_with(['T', 't']))
}

fn bounding_set(status: &str) -> Option<u64> {
    let set = status.lines().find_map(|it| it.strip_prefix("CapBnd:"))?;
    u64::from_str_radix(set.trim(), 16).ok()
}

fn is_called(pid: u32, name: &str) -> bool {
    let kept = name.get(..NAME_CHARACTERS_MAX).unwrap_or(name);
    let told = fs::read_to_string(format!("/proc/{pid}/comm"));
    told.is_ok_and(|it| it.trim_end() == kept)
}

/// Only root can see it, and the daemon's own user.
fn holder(socket: &Path, name: &str) -> Option<u32> {
    let table = fs::read_to_string("/proc/net/unix").ok()?;
    let link = PathBuf::from(format!("socket:[{}]", listener_in(&table, socket)?));
    let entries = fs::read_dir("/proc").ok()?.flatten();
    let pids = entries.filter_map(|it| it.file_name().to_str()?.parse().ok());
    let holders = pids.filter(|pid| is_called(*pid, name) && has_open(*pid, &link));
    holders.max_by_key(|pid| started(*pid))
}

/// Finds the inode of the socket that is bound to a path and listens (proc_net_unix(5)): its flag is
/// `__SO_ACCEPTCON`.
fn listener_in<'table>(table: &'table str, socket: &Path) -> Option<&'table str> {
    let socket = socket.to_str()?;
    table.lines().find_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, _, _, flags, _, _, inode, path] = words[..] else {
            return None;
        };
        (flags == "00010000" && path == socket).then_some(inode)
    })
}

fn has_open(pid: u32, link: &Path) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    let mut targets = files.flatten().map(|it| fs::read_link(it.path()));
    targets.any(|target| target.is_ok_and(|it| it == link))
}

/// In ticks since the machine's start: the 20th field behind the name (proc_pid_stat(5)).
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_name() -> String {
        let told = fs::read_to_string("/proc/self/comm").unwrap();
        told.trim_end().to_owned()
    }

    #[test]
    fn a_process_that_is_held_is_known_by_its_state() {
        assert!(is_stopped("Name:\tmeshd\nState:\tT (stopped)\n"));
        assert!(is_stopped("State:\tt (tracing stop)\n"));
        assert!(!is_stopped("State:\tS (sleeping)\n"));
    }

    #[tokio::test]
    async fn who_listens_is_known_without_an_answer() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("silent.sock");
        let name = own_name();
        assert_eq!(listening(&socket, &name).await, Process::None);
        let silent = tokio::net::UnixListener::bind(&socket).unwrap();
        let own = std::process::id();
        assert_eq!(listening(&socket, &name).await, runs(Some(own)));
        assert_eq!(holder(&socket, &name), Some(own));
        // A stranger that has the number of who opened it is not taken for the daemon.
        assert_eq!(listening(&socket, "meshd").await, runs(None));
        drop(silent);
        assert_eq!(holder(&socket, &name), None);
    }

    #[test]
    fn what_a_process_may_have_is_read_as_the_kernel_writes_it() {
        let status = "CapAmb:\t0000000000000000\nCapBnd:\t0000000000003400\n";
        assert_eq!(bounding_set(status), Some(1 << 10 | 1 << 12 | 1 << 13));
        assert_eq!(withheld(runs(Some(std::process::id()))), 0);
    }

    #[test]
    fn a_flag_is_found_in_either_form() {
        let found = |line: &str| flag(line, "--mtu");
        assert_eq!(found("meshd\0--mtu\x001300\0").as_deref(), Some("1300"));
        assert_eq!(found("meshd\0--mtu=auto\0").as_deref(), Some("auto"));
        assert_eq!(found("meshd\0--mtus\x001300\0"), None);
        assert_eq!(found("meshd\0--config\0/a\0"), None);
        assert_eq!(mtu_flag(runs(Some(std::process::id()))), None);
    }

    #[test]
    fn the_unit_knows_who_took_over() {
        let own = std::process::id();
        let unit = |pid: u32| Ok([("MainPID".to_owned(), pid.to_string())].into());
        let opener = runs(None);
        assert_eq!(settled(opener, &unit(own), true), runs(Some(own)));
        assert_eq!(settled(opener, &unit(own), false), opener);
        assert_eq!(settled(Process::None, &unit(own), false), runs(Some(own)));
        assert_eq!(settled(opener, &unit(0), true), opener);
        let unknown = Err("no systemd".to_owned());
        assert_eq!(settled(Process::None, &unknown, true), Process::None);
    }
}
