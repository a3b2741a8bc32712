//! The process that has a socket, found below /proc: for machines whose kernel or hierarchy of control
//! groups does not tell a socket's group. Slow, so that what was found before is looked at first.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Descriptors that are looked at for one socket.
const DESCRIPTORS_MAX: usize = 200_000;
/// Processes that had a socket lately: nearly always one of them has the next.
const RECENT_MAX: usize = 16;

/// Looks below /proc.
#[derive(Debug)]
pub(crate) struct Processes {
    proc: PathBuf,
    recent: Mutex<VecDeque<u32>>,
}

impl Default for Processes {
    fn default() -> Self {
        Self {
            proc: "/proc".into(),
            recent: Mutex::default(),
        }
    }
}

impl Processes {
    /// Returns what /proc/PID/cgroup says of a process that has the socket of this number. `None`: no
    /// process has it any more, or this program may not see whose it is.
    pub(crate) fn cgroup_of(&self, inode: u32) -> Option<String> {
        let name = PathBuf::from(format!("socket:[{inode}]"));
        let mut left = DESCRIPTORS_MAX;
        let recent: Vec<u32> = self.lock().iter().copied().collect();
        let listed = self.listed().filter(|it| !recent.contains(it));
        let mut candidates = recent.iter().copied().chain(listed);
        candidates.find_map(|process| {
            let found = self.look(process, &name, &mut left)?;
            self.remember(process);
            Some(found)
        })
    }

    fn listed(&self) -> impl Iterator<Item = u32> + use<> {
        let entries = fs::read_dir(&self.proc).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
    }

    fn look(&self, process: u32, socket: &Path, left: &mut usize) -> Option<String> {
        let own = self.proc.join(process.to_string());
        let descriptors = fs::read_dir(own.join("fd")).ok()?;
        for descriptor in descriptors.flatten() {
            *left = left.checked_sub(1)?;
            let has_it = || is_link_to(&descriptor.path(), socket).unwrap_or_default();
            if !has_it() {
                continue;
            }
            let cgroup = fs::read_to_string(own.join("cgroup")).ok()?;
            // The number may be another process's by now: then this is not its socket.
            return has_it().then_some(cgroup);
        }
        None
    }

    fn remember(&self, process: u32) {
        let mut recent = self.lock();
        recent.retain(|it| *it != process);
        recent.push_front(process);
        recent.truncate(RECENT_MAX);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<u32>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_link_to(link: &Path, target: &Path) -> io::Result<bool> {
    Ok(fs::read_link(link)? == target)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn the_process_that_has_a_socket_is_found_and_remembered() {
        let processes = Processes::default();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let inode = rustix::fs::fstat(socket.as_fd()).unwrap().st_ino;
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let inode = u32::try_from(inode).unwrap();
        assert_eq!(processes.cgroup_of(inode), Some(own.clone()));
        assert_eq!(*processes.lock(), [std::process::id()]);
        assert_eq!(processes.cgroup_of(inode), Some(own));
        drop(socket);
        assert_eq!(processes.cgroup_of(inode), None);
    }

    #[test]
    fn a_machine_with_too_many_descriptors_is_not_searched_to_its_end() {
        let root = tempfile::tempdir().unwrap();
        let descriptors = root.path().join("7/fd");
        fs::create_dir_all(&descriptors).unwrap();
        fs::write(root.path().join("7/cgroup"), "0::/\n").unwrap();
        std::os::unix::fs::symlink("socket:[1]", descriptors.join("3")).unwrap();
        let processes = Processes {
            proc: root.path().to_owned(),
            recent: Mutex::default(),
        };
        let look = |left: &mut usize| processes.look(7, Path::new("socket:[1]"), left);
        assert_eq!(look(&mut 0), None);
        assert_eq!(look(&mut 1).as_deref(), Some("0::/\n"));
        assert_eq!(processes.cgroup_of(2), None);
    }
}
