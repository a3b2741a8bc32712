//! A systemd unit as far as the kernel knows of one: its control group.

use std::fs;
use std::path::PathBuf;

use crate::{Lab, LabError, Launch, Namespace};

/// The group of a unit in a slice of its lab; gone with it.
pub struct Unit(PathBuf);

impl Unit {
    /// Makes the group, in the hierarchy of version 2.
    ///
    /// # Errors
    /// That is not mounted, or no groups can be made in it.
    pub fn new(lab: &Lab, name: &str) -> Result<Self, LabError> {
        let failed = |error| LabError::new(format!("cannot make a control group: {error}"));
        let mounts = fs::read_to_string("/proc/self/mounts").map_err(failed)?;
        let mut mounts = mounts.lines().map(|line| line.split(' '));
        let root = mounts.find_map(|mut mount| {
            let (_, place, kind) = (mount.next()?, mount.next()?, mount.next()?);
            (kind == "cgroup2").then_some(place)
        });
        let root = root.ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
        let group = PathBuf::from(root)
            .join(format!("{}.slice", lab.id()))
            .join(name);
        fs::create_dir_all(&group).map_err(failed)?;
        Ok(Self(group))
    }

    /// A program of the unit.
    pub fn launch(&self, namespace: &Namespace, program: &str) -> Launch {
        let enter = format!("echo $$ > {}/cgroup.procs\nexec \"$@\"", self.0.display());
        namespace.launch("sh").args(["-ec", &enter, "sh", program])
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        // The kernel keeps a group that still has a process: the lab ends those.
        let _ = fs::remove_dir(&self.0);
        let _ = self.0.parent().map(fs::remove_dir);
    }
}
