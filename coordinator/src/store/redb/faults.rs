//! A disk that fails when a test says so.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::io::Errno;

/// Which accesses to a store file fail. None at first.
#[derive(Debug)]
pub(super) struct Faults {
    writes_left: AtomicU64,
    flushes_fail: AtomicBool,
    hit: AtomicBool,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            writes_left: AtomicU64::new(u64::MAX),
            flushes_fail: AtomicBool::new(false),
            hit: AtomicBool::new(false),
        }
    }
}

impl Faults {
    /// Lets `count` more writes pass, then finds the disk full until [`Faults::heal`].
    pub(super) fn fill_disk_after(&self, count: u64) {
        self.writes_left.store(count, Ordering::SeqCst);
    }

    /// Makes all flushes fail until [`Faults::heal`].
    pub(super) fn fail_flushes(&self) {
        self.flushes_fail.store(true, Ordering::SeqCst);
    }

    /// Ends all faults and returns whether one was met.
    pub(super) fn heal(&self) -> bool {
        self.writes_left.store(u64::MAX, Ordering::SeqCst);
        self.flushes_fail.store(false, Ordering::SeqCst);
        self.hit.swap(false, Ordering::SeqCst)
    }

    /// Is asked before each write and each change of length.
    pub(super) fn before_write(&self) -> io::Result<()> {
        let left = self.writes_left.load(Ordering::SeqCst);
        if left == 0 {
            self.hit.store(true, Ordering::SeqCst);
            return Err(Errno::NOSPC.into());
        }
        if left != u64::MAX {
            self.writes_left.store(left - 1, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Is asked before each flush.
    pub(super) fn before_flush(&self) -> io::Result<()> {
        if self.flushes_fail.load(Ordering::SeqCst) {
            self.hit.store(true, Ordering::SeqCst);
            return Err(Errno::IO.into());
        }
        Ok(())
    }
}
