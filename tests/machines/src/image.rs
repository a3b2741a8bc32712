//! The root of a Debian machine, made once and shared by all machines as the lower, read-only layer
//! of their disks.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::LabError;

/// A release of Debian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Release {
    /// 11, with glibc 2.31 and systemd 247: the oldest that the packages are made for.
    Bullseye,
    /// 12, which tests run on.
    #[default]
    Bookworm,
}

/// What a usual server has, and `rpm`, for packages of the other family; nothing of ours.
const PACKAGES: &str = "systemd,systemd-sysv,libnss-resolve,libnss-systemd,dbus,udev,\
procps,iproute2,iputils-ping,nftables,curl,ca-certificates,iperf3,openssh-server,rpm";
/// A package of its own since Bookworm.
const RESOLVED: &str = "systemd-resolved";
/// Where apt is told to look; the machine's own mirrors, without what third parties added.
const SOURCES: [&str; 2] = [
    "/etc/apt/sources.list.d/debian.sources",
    "/etc/apt/sources.list",
];

/// A root file system that is complete and is not written to any more.
#[derive(Debug, Clone)]
pub struct Image {
    root: PathBuf,
}

impl Image {
    /// Finds the root, or makes it, which takes about a minute and a mirror of Debian.
    ///
    /// # Errors
    ///
    /// `mmdebstrap` is missing or fails, or the cache cannot be written.
    pub fn find_or_make(release: Release) -> Result<Self, LabError> {
        let cache = target_directory()?.join("machines");
        fs::create_dir_all(&cache).map_err(|error| failed("make", &cache, error))?;
        let lock_path = cache.join(".lock");
        let lock = File::create(&lock_path).map_err(|error| failed("make", &lock_path, error))?;
        lock.lock()
            .map_err(|error| failed("lock", &lock_path, error))?;
        let packages = release.packages();
        let suite = release.suite();
        let root = cache.join(format!("{suite}-{:08x}", checksum(&packages)));
        if !root.is_dir() {
            let unfinished = root.with_extension("unfinished");
            let _ = fs::remove_dir_all(&unfinished);
            make(&unfinished, release)?;
            fs::rename(&unfinished, &root).map_err(|error| failed("rename", &unfinished, error))?;
        }
        Ok(Self { root })
    }

    /// Returns the directory.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Release {
    const fn suite(self) -> &'static str {
        match self {
            Self::Bullseye => "bullseye",
            Self::Bookworm => "bookworm",
        }
    }

    fn packages(self) -> String {
        match self {
            Self::Bullseye => PACKAGES.to_owned(),
            Self::Bookworm => format!("{PACKAGES},{RESOLVED}"),
        }
    }

    /// As `mmdebstrap` takes it: a file, or a mirror's line.
    fn source(self) -> Result<&'static str, LabError> {
        let own = SOURCES.iter().find(|path| Path::new(path).exists());
        let own = own.ok_or_else(|| {
            LabError::new("this machine has no apt sources: the machines of the tests are Debian's")
        })?;
        match self {
            Self::Bullseye => Ok("deb http://deb.debian.org/debian bullseye main"),
            Self::Bookworm => Ok(own),
        }
    }
}

fn make(root: &Path, release: Release) -> Result<(), LabError> {
    let mut command = Command::new("mmdebstrap");
    command
        .arg("--quiet")
        .arg("--variant=minbase")
        .arg(format!("--include={}", release.packages()))
        .arg(release.suite())
        .args([root.as_os_str(), release.source()?.as_ref()]);
    let output = command.output().map_err(|error| {
        LabError::new(format!(
            "cannot run mmdebstrap: {error}; install the Debian packages mmdebstrap and systemd-container"
        ))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(LabError::new(format!(
        "mmdebstrap could not make the root of the machines: {}",
        said.trim()
    )))
}

/// `target` of the test that runs, which is `target/PROFILE/deps/TEST`.
pub(crate) fn target_directory() -> Result<PathBuf, LabError> {
    let executable = env::current_exe()
        .map_err(|error| LabError::new(format!("cannot find this program's own file: {error}")))?;
    let target = executable
        .ancestors()
        .find(|directory| directory.join("CACHEDIR.TAG").is_file());
    target.map(Path::to_path_buf).ok_or_else(|| {
        LabError::new(format!(
            "{} is in no target directory of cargo",
            executable.display()
        ))
    })
}

/// FNV-1a, so that a root made of other packages has another name.
fn checksum(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |sum, byte| {
        (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

fn failed(what: &str, path: &Path, error: std::io::Error) -> LabError {
    LabError::new(format!("cannot {what} {}: {error}", path.display()))
}
