//! The files of both packages as they will lie on a machine, all of the commit's time.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::cargo::passes;
use crate::failure::{Doing, Failure};
use crate::workspace;

/// What is copied as it is: from the workspace, to the package.
const MESHD: &[(&str, &str)] = &[
    ("systemd/meshd.service", "usr/lib/systemd/system"),
    ("systemd/meshd-join.service", "usr/lib/systemd/system"),
    ("systemd/meshd-join.path", "usr/lib/systemd/system"),
    ("systemd/meshd-online.service", "usr/lib/systemd/system"),
    ("systemd/mesh-online.target", "usr/lib/systemd/system"),
    ("packaging/meshd/meshd.toml", "etc/mesh"),
    // cargo-deb has its own ways with these two; the rpm takes them from here.
    ("packaging/changelog", "usr/share/doc/meshd"),
    ("LICENSE", "usr/share/licenses/meshd"),
];
const COORDINATOR: &[(&str, &str)] = &[
    ("systemd/mesh-coordinator.service", "usr/lib/systemd/system"),
    ("packaging/mesh-coordinator/coordinator.toml", "etc/mesh"),
    ("packaging/changelog", "usr/share/doc/mesh-coordinator"),
    ("LICENSE", "usr/share/licenses/mesh-coordinator"),
    (
        "packaging/mesh-coordinator/privileged-port.conf",
        "usr/share/doc/mesh-coordinator/examples",
    ),
];
/// Where each shell looks for what completes a command line, and under which name.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/meshctl"),
    ("zsh", "usr/share/zsh/vendor-completions/_meshctl"),
    ("fish", "usr/share/fish/vendor_completions.d/meshctl.fish"),
];

/// Lays out both packages anew.
pub(super) fn lay_out(programs: &Path, stage: &Path, epoch: &str) -> Result<(), Failure> {
    let _ = fs::remove_dir_all(stage);
    let root = workspace::root();
    let meshd = Tree::new(stage.join("meshd"));
    meshd.copy_all(&root, MESHD)?;
    meshd.programs(programs, &["meshd", "meshctl"])?;
    meshd.settings(&root, "meshd")?;
    meshd.pages(&root, |page| page == "meshd.8" || page.ends_with(".1"))?;
    meshd.completions(&programs.join("meshctl"))?;
    let coordinator = Tree::new(stage.join("mesh-coordinator"));
    coordinator.copy_all(&root, COORDINATOR)?;
    coordinator.programs(programs, &["mesh-coordinator"])?;
    coordinator.settings(&root, "mesh-coordinator")?;
    coordinator.pages(&root, |page| page == "mesh-coordinator.8")?;
    let secs = epoch.parse().doing("read the commit's time")?;
    date(stage, SystemTime::UNIX_EPOCH + Duration::from_secs(secs))
}

/// One package's files.
struct Tree(PathBuf);

impl Tree {
    fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    fn place(&self, path: &str) -> Result<PathBuf, Failure> {
        let place = self.0.join(path);
        let parent = place.parent().expect("a file lies in a directory");
        fs::create_dir_all(parent).doing(format_args!("make {}", parent.display()))?;
        Ok(place)
    }

    fn copy(&self, from: &Path, to: &str) -> Result<(), Failure> {
        fs::copy(from, self.place(to)?)
            .doing(format_args!("copy {}", from.display()))
            .map(drop)
    }

    fn copy_all(&self, root: &Path, files: &[(&str, &str)]) -> Result<(), Failure> {
        for (from, to) in files {
            let name = from.rsplit('/').next().unwrap_or(from);
            self.copy(&root.join(from), &format!("{to}/{name}"))?;
        }
        Ok(())
    }

    /// Without what only a debugger reads.
    fn programs(&self, built: &Path, names: &[&str]) -> Result<(), Failure> {
        for name in names {
            let mut strip = Command::new("strip");
            strip
                .arg("-o")
                .arg(self.place(&format!("usr/bin/{name}"))?)
                .arg(built.join(name));
            passes(strip)?;
        }
        Ok(())
    }

    fn settings(&self, root: &Path, package: &str) -> Result<(), Failure> {
        let own = root.join("packaging").join(package);
        for kind in ["sysusers", "tmpfiles"] {
            let to = format!("usr/lib/{kind}.d/{package}.conf");
            self.copy(&own.join(format!("{kind}.conf")), &to)?;
        }
        Ok(())
    }

    /// The committed manual pages that the package wants.
    fn pages(&self, root: &Path, wants: impl Fn(&str) -> bool) -> Result<(), Failure> {
        for entry in fs::read_dir(root.join("docs/man")).doing("list the manual pages")? {
            let path = entry.doing("list the manual pages")?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if wants(&name) {
                let section = name.rsplit('.').next().unwrap_or("1");
                self.copy(&path, &format!("usr/share/man/man{section}/{name}"))?;
            }
        }
        Ok(())
    }

    fn completions(&self, meshctl: &Path) -> Result<(), Failure> {
        for (shell, to) in COMPLETIONS {
            let output = Command::new(meshctl)
                .args(["completion", shell])
                .output()
                .doing(format_args!("run {}", meshctl.display()))?;
            fs::write(self.place(to)?, &output.stdout).doing("write what completes")?;
        }
        Ok(())
    }
}

/// Gives every file of a tree one time.
fn date(tree: &Path, time: SystemTime) -> Result<(), Failure> {
    for entry in fs::read_dir(tree).doing("list what is packed")? {
        let path = entry.doing("list what is packed")?.path();
        if path.is_dir() {
            date(&path, time)?;
            continue;
        }
        File::options()
            .append(true)
            .open(&path)
            .and_then(|file| file.set_modified(time))
            .doing(format_args!("date {}", path.display()))?;
    }
    Ok(())
}
