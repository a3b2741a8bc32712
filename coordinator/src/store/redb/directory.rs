//! The directory of a store: made private, locked, and its file recognised before redb may touch
//! it. A new file gets its name only when it is complete.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use runtime::state_dir::advice;
use thiserror::Error;

use super::super::Listing;
use super::file::{FORMAT_VERSION, StoreFile};
use super::tables;

const FILE_NAME: &str = "fleet.store";
const UNFINISHED_NAME: &str = "fleet.store.new";

/// Why a store could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process, or another part of this one, has the store open.
    #[error(
        "the store in {path} is in use by another process; is another coordinator running? \
         `fuser -v {path}` shows it",
        path = .0.display()
    )]
    InUse(PathBuf),
    /// Other users may look into the directory, which is not the store's to change.
    #[error(
        "{path} is open to other users (mode {mode:03o}), but holds the keys of the fleet; \
         if nothing else is in it: chmod 700 {path}",
        path = path.display()
    )]
    Exposed {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A later version of this program wrote the file.
    #[error(
        "{} has store format {found}, this version knows up to {known}; \
         start the version that wrote it, or restore a backup made by this one",
        path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest version that this program reads.
        known: u32,
    },
    /// The file is something else.
    #[error("{} is not the store of a coordinator; move it away or choose another directory", .0.display())]
    NotAStore(PathBuf),
    /// The file is a store, but damaged.
    #[error("{} is damaged ({reason}); keep a copy of it and restore a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The system refused.
    #[error("cannot open the store {}: {source}{}", path.display(), advice(.source))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl OpenError {
    /// Says in our words what redb found in the file at `path`.
    pub(super) fn from_database(path: &Path, error: redb::Error) -> Self {
        use io::ErrorKind::{InvalidData, UnexpectedEof};
        let path = path.to_owned();
        match error {
            redb::Error::Io(source) if !matches!(source.kind(), InvalidData | UnexpectedEof) => {
                Self::Io { path, source }
            }
            other => Self::Damaged {
                path,
                reason: other.to_string(),
            },
        }
    }
}

/// Locks `directory` and opens the file in it, making both when they do not exist.
pub(super) fn open(directory: &Path) -> Result<StoreFile, OpenError> {
    let lock = Arc::new(lock(directory)?);
    let path = directory.join(FILE_NAME);
    let exists = path.try_exists().map_err(io_error(&path))?;
    if !exists {
        create(directory, &lock, &Listing::default())?;
    }
    let options = OpenOptions::new().read(true).write(true).open(&path);
    let file = StoreFile::new(options.map_err(io_error(&path))?, path, lock);
    recognise(&file)?;
    Ok(file)
}

/// Makes the file of a store of what another held.
pub(super) fn create_from(directory: &Path, listing: &Listing) -> Result<(), OpenError> {
    let lock = Arc::new(lock(directory)?);
    let path = directory.join(FILE_NAME);
    if path.try_exists().map_err(io_error(&path))? {
        let source = io::Error::from(io::ErrorKind::AlreadyExists);
        return Err(OpenError::Io { path, source });
    }
    create(directory, &lock, listing)
}

fn lock(directory: &Path) -> Result<File, OpenError> {
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory);
    made.map_err(io_error(directory))?;
    let opened = File::open(directory).map_err(io_error(directory))?;
    let mode = opened
        .metadata()
        .map_err(io_error(directory))?
        .permissions()
        .mode()
        & 0o777;
    if mode & 0o077 != 0 {
        return Err(OpenError::Exposed {
            path: directory.into(),
            mode,
        });
    }
    match opened.try_lock() {
        Ok(()) => Ok(opened),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(directory.into())),
        Err(TryLockError::Error(source)) => Err(io_error(directory)(source)),
    }
}

fn create(directory: &Path, lock: &Arc<File>, listing: &Listing) -> Result<(), OpenError> {
    let path = directory.join(UNFINISHED_NAME);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error(&path)(error));
        }
        _ => {}
    }
    let options = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path);
    let file = StoreFile::new(
        options.map_err(io_error(&path))?,
        path.clone(),
        Arc::clone(lock),
    );
    file.write_header().map_err(io_error(&path))?;
    tables::create(&file, listing).map_err(|error| OpenError::from_database(&path, error))?;
    file.sync_all().map_err(io_error(&path))?;
    fs::rename(&path, directory.join(FILE_NAME)).map_err(io_error(&path))?;
    lock.sync_all().map_err(io_error(directory))
}

fn recognise(file: &StoreFile) -> Result<(), OpenError> {
    let path = file.path();
    match file.format_version().map_err(io_error(path))? {
        None => return Err(OpenError::NotAStore(path.into())),
        Some(found) if found > FORMAT_VERSION => {
            return Err(OpenError::NewerFormat {
                path: path.into(),
                found,
                known: FORMAT_VERSION,
            });
        }
        Some(_) => {}
    }
    if file.is_empty().map_err(io_error(path))? {
        // redb would take it for a new file and start an empty fleet in it.
        return Err(OpenError::Damaged {
            path: path.into(),
            reason: "it is cut off".into(),
        });
    }
    Ok(())
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> OpenError {
    move |source| OpenError::Io {
        path: path.into(),
        source,
    }
}
