//! The file under redb: a header of our own, then redb's bytes. Room is allocated when the file
//! grows, so that a full disk refuses a transaction before anything of it is written.
//!
//! ```text
//! offset  size  header, little endian
//!      0     8  "MESHSTOR"
//!      8     4  format version
//!     12  4084  zero
//!   4096        redb
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::StorageBackend;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// The format that this program writes, and the newest that it reads.
pub(super) const FORMAT_VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"MESHSTOR";
const HEADER_BYTES: u64 = 4096;

/// An open store file. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct StoreFile {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    path: PathBuf,
    /// Holds the lock on the directory for as long as the file is open.
    _directory: Arc<File>,
    flush_failed: AtomicBool,
    #[cfg(test)]
    faults: super::faults::Faults,
}

impl StoreFile {
    /// Takes an open file; `directory` carries the lock.
    pub(super) fn new(file: File, path: PathBuf, directory: Arc<File>) -> Self {
        let inner = Inner {
            file,
            path,
            _directory: directory,
            flush_failed: AtomicBool::new(false),
            #[cfg(test)]
            faults: super::faults::Faults::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Returns where the file is.
    pub(super) fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Writes the header of an empty file.
    pub(super) fn write_header(&self) -> io::Result<()> {
        let file = &self.inner.file;
        file.set_len(HEADER_BYTES)?;
        file.write_all_at(MAGIC, 0)?;
        file.write_all_at(&FORMAT_VERSION.to_le_bytes(), 8)
    }

    /// Reads the format version; `None` when this is no store.
    pub(super) fn format_version(&self) -> io::Result<Option<u32>> {
        let mut start = [0; 12];
        match self.inner.file.read_exact_at(&mut start, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let (magic, version) = start.split_at(8);
        let version = version.try_into().expect("four of twelve bytes are left");
        Ok((magic == MAGIC).then(|| u32::from_le_bytes(version)))
    }

    /// Returns whether nothing follows the header.
    pub(super) fn is_empty(&self) -> io::Result<bool> {
        Ok(self.inner.file.metadata()?.len() <= HEADER_BYTES)
    }

    /// Flushes content and size.
    pub(super) fn sync_all(&self) -> io::Result<()> {
        self.inner.file.sync_all()
    }

    /// Returns whether a flush ever failed. The kernel then may have thrown the changes away while
    /// it still shows them, so that nothing read from this file proves anything about the disk.
    pub(super) fn flush_failed(&self) -> bool {
        self.inner.flush_failed.load(Ordering::Acquire)
    }

    /// Where tests make the disk fail.
    #[cfg(test)]
    pub(super) fn faults(&self) -> &super::faults::Faults {
        &self.inner.faults
    }

    fn grow(&self, from: u64, to: u64) -> io::Result<()> {
        let file = &self.inner.file;
        match fallocate(file, FallocateFlags::empty(), from, to - from) {
            Ok(()) => Ok(()),
            // The filesystem cannot allocate ahead; a full disk is then found by the write.
            Err(Errno::OPNOTSUPP) => file.set_len(to),
            Err(error) => {
                // Give back what was allocated before the disk was full.
                file.set_len(from)?;
                let (kind, needed) = (io::Error::from(error).kind(), (to - from).div_ceil(1024));
                Err(io::Error::new(
                    kind,
                    format!("{needed} KiB more are needed"),
                ))
            }
        }
    }
}

impl StorageBackend for StoreFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self
            .inner
            .file
            .metadata()?
            .len()
            .saturating_sub(HEADER_BYTES))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.file.read_exact_at(out, offset + HEADER_BYTES)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        #[cfg(test)]
        self.inner.faults.before_write()?;
        let (from, to) = (self.inner.file.metadata()?.len(), len + HEADER_BYTES);
        if to > from {
            self.grow(from, to)
        } else {
            self.inner.file.set_len(to)
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        #[cfg(test)]
        let flushed = self
            .inner
            .faults
            .before_flush()
            .and_then(|()| self.inner.file.sync_data());
        #[cfg(not(test))]
        let flushed = self.inner.file.sync_data();
        if flushed.is_err() {
            self.inner.flush_failed.store(true, Ordering::Release);
        }
        flushed
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        self.inner.faults.before_write()?;
        self.inner.file.write_all_at(data, offset + HEADER_BYTES)
    }
}
