//! A program's state on disk: one private directory that one process holds, files that are whole
//! or not there. What is in them is the program's business.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// How long the lock is waited for. A process that is killed while it starts another one, such as
/// `nft`, leaves it to that one, until it runs and closes what is not its own.
const LOCK_PATIENCE: Duration = Duration::from_millis(1000);
const LOCK_LOOK_EVERY: Duration = Duration::from_millis(10);

/// A state directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process holds it.
    #[error(
        "another {program} uses the state directory {path}; stop it, or give this one a directory of its own with --state-dir"
    )]
    Held {
        /// Which program was to hold it.
        program: &'static str,
        /// The directory.
        path: PathBuf,
    },
    /// Others can read it, and it is not empty.
    #[error(
        "the state directory {0} can be read by others and has files in it; if it is the right one, run chmod 700 on it"
    )]
    Exposed(PathBuf),
    /// The file system refuses.
    #[error("cannot {what} {path}: {source}{}", advice(.source))]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Returns what to try when a file cannot be written, as the end of a sentence; mostly nothing.
pub fn advice(error: &io::Error) -> &'static str {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match error.kind() {
        StorageFull | QuotaExceeded => "; make room on that disk, then start this again",
        ReadOnlyFilesystem => "; the disk can only be read: look into the kernel's log for why",
        _ => "",
    }
}

fn io_error<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StateError + 'a {
    move |source| StateError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

/// A state directory that this process holds until it is dropped.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    directory: File,
    lock: File,
}

impl StateDir {
    /// Opens the directory, makes it when it is not there, and keeps other processes out.
    /// `program` is who they are told about.
    ///
    /// # Errors
    /// Another process holds it, or the file system refuses.
    pub fn open(path: &Path, program: &'static str) -> Result<Self, StateError> {
        make_private(path)?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(io_error("open", &lock_path))?;
        if !hold(&lock).map_err(io_error("lock", &lock_path))? {
            return Err(StateError::Held {
                program,
                path: path.to_owned(),
            });
        }
        let directory = File::open(path).map_err(io_error("open", path))?;
        Ok(Self {
            path: path.to_owned(),
            directory,
            lock,
        })
    }

    /// Takes the directory over from the process that gave us its [`StateDir::lock`]: the two hold
    /// it together, and nobody else can in between. Which of them writes is theirs to agree on.
    ///
    /// # Errors
    /// It is not the lock of this directory, or the file system refuses.
    pub fn take_over(
        path: &Path,
        lock: OwnedFd,
        program: &'static str,
    ) -> Result<Self, StateError> {
        let lock = File::from(lock);
        let lock_path = path.join("lock");
        let held = || StateError::Held {
            program,
            path: path.to_owned(),
        };
        let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let ours = lock.metadata().map_err(io_error("look at", &lock_path))?;
        let theirs = fs::metadata(&lock_path).map_err(io_error("look at", &lock_path))?;
        if place(ours) != place(theirs) || !hold(&lock).map_err(io_error("lock", &lock_path))? {
            return Err(held());
        }
        let directory = File::open(path).map_err(io_error("open", path))?;
        Ok(Self {
            path: path.to_owned(),
            directory,
            lock,
        })
    }

    /// Returns what keeps others out, for a process that is to take over.
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// Returns where a file of this directory is.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Reads a file; `None` when there is none.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        let path = self.file(name);
        match fs::read(&path) {
            Ok(contents) => Ok(Some(contents)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("read", &path)(error)),
        }
    }

    /// Replaces a file, private to its owner: afterwards the disk has the new contents.
    ///
    /// # Errors
    /// The file system refuses. The contents are the old ones, whole, or already the new ones: when
    /// the directory alone did not get to the disk, [`StateDir::read`] tells the new, and the old can
    /// come back when the power fails. What only the old file has is to be kept until
    /// [`StateDir::sync`] succeeds.
    pub fn write(&self, name: &str, contents: &[u8]) -> Result<(), StateError> {
        let (path, next) = (self.file(name), self.file(&format!("{name}.new")));
        let write = || -> io::Result<()> {
            // A left-over of a crash may have any mode; make the file anew.
            remove_if_there(&next)?;
            let mut file = OpenOptions::new()
                .create_new(true)
                .write(true)
                .mode(0o600)
                .open(&next)?;
            file.write_all(contents)?;
            file.sync_all()?;
            fs::rename(&next, &path)?;
            self.directory.sync_all()
        };
        write().map_err(io_error("write", &path))
    }

    /// Returns when the disk has the directory as it is read now: which name is of which file.
    ///
    /// # Errors
    /// The file system refuses; after a power loss a name may be of the file that it was of before.
    pub fn sync(&self) -> Result<(), StateError> {
        let synced = self.directory.sync_all();
        synced.map_err(io_error("sync", &self.path))
    }

    /// Removes a file, durably; one that is not there is no error.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn remove(&self, name: &str) -> Result<(), StateError> {
        let path = self.file(name);
        remove_if_there(&path)
            .and_then(|()| self.directory.sync_all())
            .map_err(io_error("remove", &path))
    }
}

/// Makes the directory, or takes one that is private already or empty. Another one with files in it
/// is somebody else's, such as /tmp by a slip of the hand.
fn make_private(path: &Path) -> Result<(), StateError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(io_error("make the state directory", path))?;
    let mode = fs::metadata(path)
        .map_err(io_error("look at", path))?
        .permissions()
        .mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let is_empty = fs::read_dir(path)
        .map_err(io_error("look into", path))?
        .next()
        .is_none();
    if !is_empty {
        return Err(StateError::Exposed(path.to_owned()));
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        .map_err(io_error("protect the state directory", path))
}

/// Takes the lock; returns whether it could be had.
fn hold(lock: &File) -> io::Result<bool> {
    let end = Instant::now() + LOCK_PATIENCE;
    loop {
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) if Instant::now() >= end => return Ok(false),
            Err(Errno::WOULDBLOCK) => thread::sleep(LOCK_LOOK_EVERY),
            Err(error) => return Err(error.into()),
        }
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_comes_back_private() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("state");
        let state = StateDir::open(&path, "test").unwrap();
        state.write("map", b"one").unwrap();
        state.write("map", b"two").unwrap();
        assert_eq!(state.read("map").unwrap().as_deref(), Some(&b"two"[..]));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join("map")), 0o600);
    }

    #[test]
    fn a_second_process_is_kept_out_and_told_why() {
        let root = tempfile::tempdir().unwrap();
        let first = StateDir::open(root.path(), "mesh-test").unwrap();
        let error = StateDir::open(root.path(), "mesh-test").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("another mesh-test uses the state directory"),
            "{error}"
        );
        drop(first);
        StateDir::open(root.path(), "mesh-test").unwrap();
    }

    #[test]
    fn a_directory_of_others_is_left_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("theirs");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(path.join("file"), "x").unwrap();
        let error = StateDir::open(&path, "test").unwrap_err().to_string();
        assert!(error.contains("chmod 700"), "{error}");
        fs::remove_file(path.join("file")).unwrap();
        StateDir::open(&path, "test").unwrap();
    }

    #[test]
    fn a_lock_that_is_about_to_go_is_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let first = StateDir::open(root.path(), "test").unwrap();
        let second = thread::scope(|scope| {
            let second = scope.spawn(|| StateDir::open(root.path(), "test"));
            drop(first);
            second.join().unwrap()
        });
        second.unwrap();
    }

    #[test]
    fn the_lock_can_be_shared_and_lasts_as_long_as_one_has_it() {
        let root = tempfile::tempdir().unwrap();
        let first = StateDir::open(root.path(), "test").unwrap();
        let shared = first.lock().try_clone_to_owned().unwrap();
        let second = StateDir::take_over(root.path(), shared, "test").unwrap();
        drop(first);
        assert!(StateDir::open(root.path(), "test").is_err());
        let foreign = tempfile::tempfile().unwrap().into();
        assert!(StateDir::take_over(root.path(), foreign, "test").is_err());
        drop(second);
        StateDir::open(root.path(), "test").unwrap();
    }

    #[test]
    fn a_left_over_of_a_crash_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(root.path(), "test").unwrap();
        fs::write(root.path().join("map.new"), b"half").unwrap();
        state.write("map", b"whole").unwrap();
        assert_eq!(state.read("map").unwrap().as_deref(), Some(&b"whole"[..]));
        assert!(!root.path().join("map.new").exists());
    }

    #[test]
    fn removing_nothing_is_no_error() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(root.path(), "test").unwrap();
        state.write("x", b"x").unwrap();
        state.remove("x").unwrap();
        state.remove("x").unwrap();
        assert_eq!(state.read("x").unwrap(), None);
    }
}
