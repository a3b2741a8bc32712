//! Whether a daemon runs, although it may not answer: who listens at its socket, and in which state
//! the kernel has that process.

use std::fs;
use std::path::Path;

use tokio::net::UnixStream;
use tokio::time::timeout;

use super::super::facts::Process;
use super::PATIENCE;

/// Looks who listens at a socket. The kernel lets in whom nobody answers, and says who would.
pub(super) async fn listening(socket: &Path) -> Process {
    let Ok(Ok(stream)) = timeout(PATIENCE, UnixStream::connect(socket)).await else {
        return Process::None;
    };
    let pid = stream.peer_cred().ok().and_then(|it| it.pid());
    // It may be the one that opened the socket, and has handed it over since.
    let pid = pid.and_then(|pid| u32::try_from(pid).ok());
    let pid = pid.filter(|pid| status(*pid).is_some());
    runs(pid)
}

/// A process by its number.
pub(super) fn runs(pid: Option<u32>) -> Process {
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

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(listening(&socket).await, Process::None);
        let _silent = tokio::net::UnixListener::bind(&socket).unwrap();
        let expected = Process::Runs {
            pid: Some(std::process::id()),
            is_stopped: false,
        };
        assert_eq!(listening(&socket).await, expected);
    }
}
