//! Control groups: the path of one by its number, and the systemd unit that a path names. The number
//! of a group (version 2) is that of its directory, and no other group ever has it, so that a path
//! that is known stays right.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Groups that are known at once; a machine with more has them looked for again.
const GROUPS_MAX: usize = 1 << 16;
/// Numbers of groups that are gone.
const GONE_MAX: usize = 4096;
/// Levels below the root that are looked at.
const DEPTH_MAX: usize = 32;
/// Where the mounts of this process are told.
const MOUNTS: &str = "/proc/self/mountinfo";

/// The slices whose units are not the machine's own: of people who logged in, of containers and of
/// virtual machines.
const FOREIGN_SLICES: [&str; 2] = ["user.slice", "machine.slice"];
/// What ends the name of a unit that processes run in (systemd.unit(5)).
const UNIT_KINDS: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];

/// How this machine keeps its processes apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchies {
    /// Where the hierarchy of version 2 is mounted.
    pub(crate) version_2: Option<PathBuf>,
    /// Whether systemd has one of version 1, as its only one or beside the other.
    pub(crate) has_version_1: bool,
}

impl Hierarchies {
    /// Looks at what is mounted.
    ///
    /// # Errors
    /// There is no /proc.
    pub(crate) fn look() -> io::Result<Self> {
        Ok(Self::read(&fs::read_to_string(MOUNTS)?))
    }

    /// Reads proc_pid_mountinfo(5): `ID PARENT DEVICE ROOT PLACE OPTIONS… - KIND SOURCE OPTIONS`.
    fn read(mounts: &str) -> Self {
        let mut hierarchies = Self {
            version_2: None,
            has_version_1: false,
        };
        for mount in mounts.lines() {
            let Some((place, rest)) = mount.split_once(" - ") else {
                continue;
            };
            let mut place = place.split(' ').skip(3);
            let (root, place) = (place.next(), place.next());
            let mut rest = rest.split(' ');
            match rest.next() {
                // A part of it shows no whole paths.
                Some("cgroup2") if root == Some("/") && hierarchies.version_2.is_none() => {
                    hierarchies.version_2 = place.map(PathBuf::from);
                }
                Some("cgroup") => {
                    let mut options = rest.flat_map(|it| it.split(','));
                    hierarchies.has_version_1 |= options.any(|it| it == "name=systemd");
                }
                _ => {}
            }
        }
        hierarchies
    }
}

/// The groups of version 2 that were seen.
#[derive(Debug)]
pub(crate) struct Cgroups {
    root: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    paths: BTreeMap<u64, Arc<str>>,
    gone: BTreeSet<u64>,
}

impl Cgroups {
    /// Takes where the hierarchy is mounted.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self {
            root,
            seen: Mutex::default(),
        }
    }

    /// Returns the path of a group, from `/`. `None`: the group is gone, or never was below the root
    /// that this process sees. Only the first question about a group looks at the disk.
    pub(crate) fn path_of(&self, number: u64) -> Option<Arc<str>> {
        let mut seen = self.lock();
        if let Some(path) = seen.paths.get(&number) {
            return Some(Arc::clone(path));
        }
        if seen.gone.contains(&number) {
            return None;
        }
        // The number was read before, so that its group is listed now unless it is gone.
        let mut paths = BTreeMap::new();
        list(&self.root, &mut paths);
        seen.paths = paths;
        if let Some(path) = seen.paths.get(&number) {
            return Some(Arc::clone(path));
        }
        if seen.gone.len() >= GONE_MAX {
            seen.gone.clear();
        }
        seen.gone.insert(number);
        None
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lists groups with their paths. One that cannot be read is gone.
fn list(root: &Path, paths: &mut BTreeMap<u64, Arc<str>>) {
    if let Ok(status) = fs::metadata(root) {
        paths.insert(status.ino(), "/".into());
    }
    let mut open = vec![(root.to_owned(), String::new(), 0)];
    while let Some((directory, path, depth)) = open.pop() {
        let Ok(entries) = fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries.flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) || paths.len() >= GROUPS_MAX {
                continue;
            }
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                continue;
            };
            let path = format!("{path}/{name}");
            paths.insert(entry.ino(), path.as_str().into());
            if depth + 1 < DEPTH_MAX {
                open.push((entry.path(), path, depth + 1));
            }
        }
    }
}

/// Returns the system unit that a path names: what comes first after the slices, which only the
/// system's own service manager makes. What a unit makes below itself is the unit's, whatever it is
/// called, so that no container and no user's own service manager has a unit of that name.
pub(crate) fn unit_of(path: &str) -> Option<&str> {
    let mut parts = path.strip_prefix('/')?.split('/');
    let top = parts.next()?;
    if FOREIGN_SLICES.contains(&top) {
        return None;
    }
    let unit = match top.ends_with(".slice") {
        true => parts.find(|part| !part.ends_with(".slice"))?,
        false => top,
    };
    UNIT_KINDS
        .iter()
        .any(|kind| unit.len() > kind.len() && unit.ends_with(kind))
        .then_some(unit)
}

/// Reads the path that systemd gave a process out of its /proc/PID/cgroup: that of version 2, or of
/// the hierarchy that systemd has beside it where that one says nothing.
pub(crate) fn path_in(text: &str) -> Option<&str> {
    let of = |hierarchy: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| {
            let (_number, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            (controllers == hierarchy).then_some(path)
        })
    };
    let version_2 = of("");
    version_2
        .filter(|path| *path != "/")
        .or_else(|| of("name=systemd"))
        .or(version_2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_is_no_slice_is_the_unit() {
        for (path, unit) in [
            ("/system.slice/web.service", Some("web.service")),
            (
                "/system.slice/system-orders.slice/orders@1.service",
                Some("orders@1.service"),
            ),
            ("/system.slice/web.service/worker/3", Some("web.service")),
            ("/shop.slice/web.service", Some("web.service")),
            ("/init.scope", Some("init.scope")),
            ("/", None),
            ("", None),
            ("/system.slice", None),
            ("/system.slice/.service", None),
            ("/docker/0123abcd", None),
            ("relative.service", None),
        ] {
            assert_eq!(unit_of(path), unit, "{path}");
        }
    }

    #[test]
    fn nobody_poses_as_a_unit_of_the_system() {
        for path in [
            "/user.slice/user-1000.slice/user@1000.service/app.slice/web.service",
            "/user.slice/user-1000.slice/session-3.scope",
            "/machine.slice/machine-box.scope/system.slice/web.service",
            "/docker/0123abcd/system.slice/web.service",
            "/lxc.payload.box/system.slice/web.service",
            "/kubepods/burstable/pod1/web.service",
        ] {
            assert_eq!(unit_of(path), None, "{path}");
        }
        let delegated = "/system.slice/box.service/system.slice/web.service";
        assert_eq!(unit_of(delegated), Some("box.service"));
        let container = "/system.slice/docker-0123.scope/system.slice/web.service";
        assert_eq!(unit_of(container), Some("docker-0123.scope"));
    }

    #[test]
    fn each_kind_of_machine_tells_the_path_of_a_process() {
        let unified = "0::/system.slice/web.service\n";
        assert_eq!(path_in(unified), Some("/system.slice/web.service"));
        let hybrid =
            "4:memory:/a\n1:name=systemd:/system.slice/web.service\n0::/system.slice/web.service\n";
        assert_eq!(path_in(hybrid), Some("/system.slice/web.service"));
        let old = "4:memory:/user.slice\n1:name=systemd:/system.slice/web.service\n";
        assert_eq!(path_in(old), Some("/system.slice/web.service"));
        assert_eq!(
            path_in("1:name=systemd:/x.service\n0::/\n"),
            Some("/x.service")
        );
        assert_eq!(path_in("0::/\n"), Some("/"));
        assert_eq!(path_in("4:memory:/a\n"), None);
        assert_eq!(path_in("1:name=systemd"), None);
    }

    #[test]
    fn mounts_tell_which_hierarchies_there_are() {
        let unified = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        let hybrid = "32 31 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                      33 31 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n";
        let part = "32 31 0:29 /box /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        for (mounts, version_2, has_version_1) in [
            (unified, Some("/sys/fs/cgroup"), false),
            (hybrid, Some("/sys/fs/cgroup/unified"), true),
            (part, None, false),
            ("nonsense\n", None, false),
        ] {
            let expected = Hierarchies {
                version_2: version_2.map(PathBuf::from),
                has_version_1,
            };
            assert_eq!(Hierarchies::read(mounts), expected);
        }
    }

    #[test]
    fn groups_are_found_by_their_number_until_they_are_gone() {
        let root = tempfile::tempdir().unwrap();
        let number = |path: &str| fs::metadata(root.path().join(path)).unwrap().ino();
        fs::create_dir_all(root.path().join("system.slice/web.service")).unwrap();
        let cgroups = Cgroups::new(root.path().to_owned());
        let web = number("system.slice/web.service");
        assert_eq!(&*cgroups.path_of(web).unwrap(), "/system.slice/web.service");
        assert_eq!(&*cgroups.path_of(number("")).unwrap(), "/");
        fs::create_dir(root.path().join("system.slice/new.service")).unwrap();
        let new = number("system.slice/new.service");
        assert_eq!(&*cgroups.path_of(new).unwrap(), "/system.slice/new.service");
        assert_eq!(cgroups.path_of(u64::MAX), None);
        assert_eq!(cgroups.path_of(u64::MAX), None);
    }
}
