//! Sockets of this process in a namespace of the lab.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::thread;

use lab::{LabError, Namespace};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Runs a closure in a namespace; sockets that it makes stay there.
pub(crate) fn inside<T: Send>(
    namespace: &Namespace,
    what: &str,
    make: impl FnOnce() -> io::Result<T> + Send,
) -> Result<T, LabError> {
    let enter_and_make = || {
        let file = File::open(namespace.path())?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        make()
    };
    // A thread of its own, because a thread that has moved does not come back.
    let outcome = thread::scope(|scope| scope.spawn(enter_and_make).join());
    outcome
        .expect("the closure returns its errors")
        .map_err(|error| LabError::new(format!("cannot {what} in {}: {error}", namespace.name())))
}
