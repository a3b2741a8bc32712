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
/// Of these, those of which it is guessed where it is: what opens connections one after the other gets
/// descriptors one after the other, and may have many thousands of them.
const GUESSED_MAX: usize = 4;
/// Descriptors that are looked at to each side of the one that was found last.
const NEAR_MAX: u32 = 64;

/// A descriptor of a process, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    process: u32,
    descriptor: u32,
}

/// Looks below /proc.
#[derive(Debug)]
pub(crate) struct Processes {
    proc: PathBuf,
    recent: Mutex<VecDeque<Place>>,
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
        let recent: Vec<Place> = self.lock().iter().copied().collect();
        let mut near = recent.iter().take(GUESSED_MAX).flat_map(Place::near);
        let guessed = near.find_map(|place| Some((place, self.cgroup_at(place, &name)?)));
        let (place, cgroup) = guessed.or_else(|| self.search(&recent, &name))?;
        self.remember(place);
        Some(cgroup)
    }

    /// Looks at all descriptors, those of the recent processes first.
    fn search(&self, recent: &[Place], socket: &Path) -> Option<(Place, String)> {
        let mut left = DESCRIPTORS_MAX;
        let recent = recent.iter().map(|place| place.process);
        let others = self.listed();
        let others = others.filter(|process| recent.clone().all(|it| it != *process));
        let mut candidates = recent.clone().chain(others);
        candidates.find_map(|process| self.look(process, socket, &mut left))
    }

    fn listed(&self) -> impl Iterator<Item = u32> + use<> {
        let entries = fs::read_dir(&self.proc).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
    }

    fn look(&self, process: u32, socket: &Path, left: &mut usize) -> Option<(Place, String)> {
        let descriptors = fs::read_dir(self.proc.join(format!("{process}/fd"))).ok()?;
        for descriptor in descriptors.flatten() {
            *left = left.checked_sub(1)?;
            let number = descriptor.file_name().to_str()?.parse().ok()?;
            let place = Place {
                process,
                descriptor: number,
            };
            if let Some(cgroup) = self.cgroup_at(place, socket) {
                return Some((place, cgroup));
            }
        }
        None
    }

    /// Returns the group of a process, if it has the socket there.
    fn cgroup_at(&self, place: Place, socket: &Path) -> Option<String> {
        let own = self.proc.join(place.process.to_string());
        let link = own.join(format!("fd/{}", place.descriptor));
        let has_it = || is_link_to(&link, socket).unwrap_or_default();
        if !has_it() {
            return None;
        }
        let cgroup = fs::read_to_string(own.join("cgroup")).ok()?;
        // The number may be another process's by now: then this is not its socket.
        has_it().then_some(cgroup)
    }

    fn remember(&self, place: Place) {
        let mut recent = self.lock();
        recent.retain(|it| it.process != place.process);
        recent.push_front(place);
        recent.truncate(RECENT_MAX);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Place>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Returns it and its neighbours, the nearest first.
    fn near(&self) -> impl Iterator<Item = Self> + use<> {
        let Self {
            process,
            descriptor,
        } = *self;
        let above = (1..=NEAR_MAX).map(move |by| descriptor.checked_add(by));
        let below = (1..=NEAR_MAX).map(move |by| descriptor.checked_sub(by));
        let beside = above.zip(below).flat_map(|(above, below)| [above, below]);
        let all = [Some(descriptor)].into_iter().chain(beside);
        all.flatten().map(move |descriptor| Self {
            process,
            descriptor,
        })
    }
}

fn is_link_to(link: &Path, target: &Path) -> io::Result<bool> {
    Ok(fs::read_link(link)? == target)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::{AsFd, AsRawFd};

    use super::*;

    #[test]
    fn the_process_that_has_a_socket_is_found_and_remembered() {
        let processes = Processes::default();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let inode = rustix::fs::fstat(socket.as_fd()).unwrap().st_ino;
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let inode = u32::try_from(inode).unwrap();
        assert_eq!(processes.cgroup_of(inode), Some(own.clone()));
        let recent = processes.lock().front().copied().unwrap();
        let place = Place {
            process: std::process::id(),
            descriptor: u32::try_from(socket.as_raw_fd()).unwrap(),
        };
        assert_eq!(recent, place);
        assert_eq!(processes.cgroup_of(inode), Some(own));
        drop(socket);
        assert_eq!(processes.cgroup_of(inode), None);
    }

    #[test]
    fn what_is_near_is_guessed_and_looked_at() {
        let place = |descriptor| Place {
            process: 7,
            descriptor,
        };
        let near: Vec<u32> = place(2).near().map(|it| it.descriptor).collect();
        assert_eq!(near[..7], [2, 3, 1, 4, 0, 5, 6]);
        assert_eq!(near.len(), 1 + 64 + 2);
        let root = tempfile::tempdir().unwrap();
        let descriptors = root.path().join("7/fd");
        fs::create_dir_all(&descriptors).unwrap();
        fs::write(root.path().join("7/cgroup"), "0::/\n").unwrap();
        std::os::unix::fs::symlink("socket:[1]", descriptors.join("40")).unwrap();
        let processes = Processes {
            proc: root.path().to_owned(),
            recent: Mutex::new([place(30)].into()),
        };
        assert_eq!(processes.cgroup_of(1).as_deref(), Some("0::/\n"));
        assert_eq!(*processes.lock(), [place(40)]);
        assert_eq!(processes.cgroup_of(2), None);
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
        let place = Place {
            process: 7,
            descriptor: 3,
        };
        assert_eq!(look(&mut 1), Some((place, "0::/\n".to_owned())));
        assert_eq!(processes.cgroup_of(2), None);
    }
}
