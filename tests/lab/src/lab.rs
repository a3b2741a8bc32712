//! One run's namespaces and files, under a name of their own.
//!
//! Everything that a lab makes is a namespace called `ID-…` or a file in `/run/mesh-lab/ID`;
//! nothing of it is in the machine's own namespace. A lock that the kernel drops with its owner
//! tells a later run which labs are left over.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use crate::error::{Doing, LabError, something_failed};
use crate::guardian::Guardian;
use crate::namespace::Namespace;
use crate::network::{Network, Subnets};

const LABS: &str = "/run/mesh-lab";
const OWNER_LOCK: &str = "owner.lock";
const KEPT: &str = "kept";
/// Lines of each log that a failed test shows.
const LOG_LINES_SHOWN: usize = 40;

/// Labs that this process made, to tell their names apart.
static MADE: AtomicU32 = AtomicU32::new(0);

/// A place for namespaces, networks and processes that vanishes with the last handle to it.
#[derive(Debug, Clone)]
pub struct Lab {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    id: String,
    directory: PathBuf,
    guardian: Mutex<Option<Guardian>>,
    kept: AtomicBool,
    /// Held as long as the owner lives; the kernel lets go of it, whatever happens.
    _owner_lock: File,
}

impl Lab {
    /// Makes an empty lab, after removing what crashed runs left behind.
    ///
    /// # Errors
    ///
    /// When not run as root, or when `/run` cannot be written to.
    pub fn new() -> Result<Self, LabError> {
        if !rustix::process::geteuid().is_root() {
            return Err(LabError::new(
                "the lab makes network namespaces and needs root: run it with sudo",
            ));
        }
        fs::create_dir_all(LABS).doing(format_args!("create {LABS}"))?;
        let turn = lock_registry()?;
        remove_leftovers()?;
        let (id, directory) = claim_directory()?;
        let owner_lock = File::create(directory.join(OWNER_LOCK)).doing("create the lab's lock")?;
        owner_lock.lock().doing("take the lab's lock")?;
        drop(turn);
        let guardian = Guardian::start(&id, &directory)?;
        Ok(Self {
            inner: Arc::new(Inner {
                id,
                directory,
                guardian: Mutex::new(Some(guardian)),
                kept: AtomicBool::new(false),
                _owner_lock: owner_lock,
            }),
        })
    }

    /// The name that everything of this lab starts with.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// Where the lab's files are: state directories, sockets, logs.
    pub fn directory(&self) -> &Path {
        &self.inner.directory
    }

    /// Makes a namespace with only its loopback up.
    ///
    /// # Errors
    ///
    /// When the lab has a namespace of that name, or `ip` fails.
    pub fn namespace(&self, name: &str) -> Result<Namespace, LabError> {
        Namespace::create(self, name)
    }

    /// Makes a switch that namespaces can be attached to.
    ///
    /// # Errors
    ///
    /// When the lab has a namespace of that name, or `ip` fails.
    pub fn network(&self, name: &str, subnets: Subnets) -> Result<Network, LabError> {
        Network::create(self, name, subnets)
    }

    /// Makes the usual network between hosts: `10.77.0.0/24` and `fd77::/64`.
    ///
    /// # Errors
    ///
    /// As [`Lab::network`].
    pub fn underlay(&self) -> Result<Network, LabError> {
        self.network("underlay", Subnets::UNDERLAY)
    }

    /// Lets the namespaces, files and processes outlive this run; [`remove_lab`] ends them.
    ///
    /// # Errors
    ///
    /// When the mark that tells later runs cannot be written.
    pub fn keep(&self) -> Result<(), LabError> {
        fs::write(self.inner.directory.join(KEPT), "").doing("mark the lab as kept")?;
        let guardian = self.inner.take_guardian();
        if let Some(guardian) = guardian {
            guardian.keep()?;
        }
        self.inner.kept.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the lab stays when its last handle goes.
    pub(crate) fn is_kept(&self) -> bool {
        self.inner.kept.load(Ordering::Relaxed)
    }

    /// Where the output of a process of that name goes, without the ending.
    pub(crate) fn log_path(&self, process: &str, stream: &str) -> PathBuf {
        self.directory().join(format!("{process}.{stream}.log"))
    }
}

impl Inner {
    fn take_guardian(&self) -> Option<Guardian> {
        let mut guardian = match self.guardian.lock() {
            Ok(guardian) => guardian,
            Err(poisoned) => poisoned.into_inner(),
        };
        guardian.take()
    }

    /// Shows how the logs end, because they are about to be removed.
    fn show_logs(&self) {
        let mut logs: Vec<PathBuf> = fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .collect();
        logs.sort();
        for path in logs {
            let text = fs::read_to_string(&path).unwrap_or_default();
            if text.trim().is_empty() {
                continue;
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            eprintln!(
                "---- {name} ends with\n{}",
                last_lines(&text, LOG_LINES_SHOWN)
            );
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if std::thread::panicking() || something_failed() {
            self.show_logs();
        }
        let Some(guardian) = self.take_guardian() else {
            return;
        };
        if let Err(error) = guardian.remove() {
            eprintln!("{error}");
        }
    }
}

/// The end of a text, at most `count` lines of it.
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Labs that were made to stay, by id.
///
/// # Errors
///
/// When the directory of labs cannot be read.
pub fn kept_labs() -> Result<Vec<String>, LabError> {
    Ok(all_labs()?
        .into_iter()
        .filter(|directory| directory.join(KEPT).exists())
        .map(|directory| id_of(&directory))
        .collect())
}

/// Ends a lab that was made to stay: its processes, namespaces and files.
///
/// # Errors
///
/// When there is no such lab, or when something of it cannot be removed.
pub fn remove_lab(id: &str) -> Result<(), LabError> {
    let directory = Path::new(LABS).join(id);
    if !directory.join(KEPT).exists() {
        return Err(LabError::new(format!("there is no kept lab called {id}")));
    }
    Guardian::start(id, &directory)?.remove()
}

/// One lab at a time is made or swept, so that a new one is never taken for a left-over.
fn lock_registry() -> Result<File, LabError> {
    let path = Path::new(LABS).join(".lock");
    let file = File::create(&path).doing(format_args!("open {}", path.display()))?;
    file.lock().doing(format_args!("lock {}", path.display()))?;
    Ok(file)
}

fn remove_leftovers() -> Result<(), LabError> {
    for directory in all_labs()? {
        if directory.join(KEPT).exists() || has_owner(&directory) {
            continue;
        }
        Guardian::start(&id_of(&directory), &directory)?.remove()?;
    }
    Ok(())
}

fn has_owner(directory: &Path) -> bool {
    let Ok(lock) = File::open(directory.join(OWNER_LOCK)) else {
        return false;
    };
    matches!(lock.try_lock(), Err(TryLockError::WouldBlock))
}

fn all_labs() -> Result<Vec<PathBuf>, LabError> {
    let Ok(entries) = fs::read_dir(LABS) else {
        return Ok(Vec::new());
    };
    let mut directories: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir())
        .collect();
    directories.sort();
    Ok(directories)
}

fn id_of(directory: &Path) -> String {
    let name = directory.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn claim_directory() -> Result<(String, PathBuf), LabError> {
    loop {
        let made = MADE.fetch_add(1, Ordering::Relaxed);
        let id = format!("mesh-{}-{made}", std::process::id());
        let directory = Path::new(LABS).join(&id);
        match fs::create_dir(&directory) {
            Ok(()) => return Ok((id, directory)),
            // A kept lab of an earlier process with our number.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error).doing(format_args!("create {}", directory.display())),
        }
    }
}
