//! Standard input, when it is a link that somebody waits for the end of.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};

const STANDARD_INPUT: RawFd = 0;

/// Takes what standard input is, and leaves nothing in its place: who is at the other end sees when
/// it is closed.
///
/// # Errors
/// There is none, or no descriptors are left.
pub(crate) fn take() -> io::Result<OwnedFd> {
    let taken = io::stdin().as_fd().try_clone_to_owned()?;
    // SAFETY: number 0 was just seen to be open, nobody in this process owns it, and it is never
    // closed here: it is put in another's place at once, and not dropped.
    let mut place = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(STANDARD_INPUT) });
    rustix::io::dup2(File::open("/dev/null")?, &mut place)?;
    Ok(taken)
}
