//! Descriptors that the service manager kept through a crash, or opened for us: sd_listen_fds(3).

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

/// The first of them (sd_listen_fds(3): SD_LISTEN_FDS_START).
const FIRST: RawFd = 3;
/// More than any daemon of ours gives away.
const COUNT_MAX: RawFd = 1024;

/// They have an owner each, and only one.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The descriptors by name, each name's in any order: that in which they were given away is lost.
pub type Inherited = BTreeMap<String, Vec<OwnedFd>>;

/// Takes what the service manager passes to this process. The second time there is nothing.
pub fn inherited() -> Inherited {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let is_for_us = variable("LISTEN_PID").parse() == Ok(std::process::id());
    let count = variable("LISTEN_FDS").parse::<RawFd>().unwrap_or(0);
    if !is_for_us || TAKEN.swap(true, Ordering::Relaxed) {
        return Inherited::new();
    }
    let names = variable("LISTEN_FDNAMES");
    let names = names.split(':').map(str::to_owned);
    let mut found = Inherited::new();
    for (number, name) in (FIRST..FIRST + count.clamp(0, COUNT_MAX)).zip(names) {
        if let Some(descriptor) = take(number) {
            found.entry(name).or_default().push(descriptor);
        }
    }
    found
}

fn take(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: the service manager opened this number for this process before it ran (the variables
    // say so, and name this process), nobody here uses numbers that it was not given, and a closed
    // one is only reported as such.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl_getfd(borrowed).ok()?;
    fcntl_setfd(borrowed, FdFlags::CLOEXEC).ok()?;
    // SAFETY: it is open, as was just seen, and `TAKEN` lets nobody take it twice.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}
