//! What a daemon tells the service manager that started it, and keeps with it: sd_notify(3). Where
//! nobody asked to be told, all of it does nothing.

use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::time::{ClockId, clock_gettime};

pub use crate::linux::inherited::{Inherited, inherited};

/// Where notes go (sd_notify(3)).
const SOCKET: &str = "NOTIFY_SOCKET";
/// How often it wants to hear that we live, in microseconds, and which process (sd_watchdog_enabled(3)).
const WATCHDOG_INTERVAL: &str = "WATCHDOG_USEC";
const WATCHDOG_PROCESS: &str = "WATCHDOG_PID";
/// Descriptors in one note; systemd takes as many as the kernel does, which is 253.
const DESCRIPTORS_MAX: usize = 64;

/// How long a note may wait in a service manager's queue that is full.
const PATIENCE: Duration = Duration::from_secs(2);

/// What another process must not take for its own (sd_listen_fds(3), sd_watchdog_enabled(3)).
pub const NOT_FOR_OTHERS: [&str; 4] = [
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    WATCHDOG_PROCESS,
];

/// The daemon serves.
pub fn ready(status: &str) {
    tell(&format!("READY=1\nSTATUS={}", one_line(status)));
}

/// The daemon reads its settings again; followed by [`ready`].
pub fn reloading() {
    tell(&format!(
        "RELOADING=1\nMONOTONIC_USEC={}",
        monotonic_micros()
    ));
}

/// The daemon stops.
pub fn stopping() {
    tell("STOPPING=1");
}

/// What the daemon does now, in one line, for people.
pub fn status(status: &str) {
    tell(&format!("STATUS={}", one_line(status)));
}

/// The daemon lives, as it does at least every [`watchdog_interval`].
pub fn alive() {
    tell("WATCHDOG=1");
}

/// Another process is the daemon from now on.
pub fn main_process(process: u32) {
    tell(&format!("MAINPID={process}"));
}

/// Gives descriptors of one name to keep through a crash, in place of those that it had. They are kept
/// also when they report an error, which is the next daemon's to look at.
pub fn store(name: &str, descriptors: &[BorrowedFd<'_>]) {
    forget(name);
    for some in descriptors.chunks(DESCRIPTORS_MAX) {
        let note = format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0");
        if let Err(error) = send(note.as_bytes(), some) {
            tracing::debug!(%error, name, "the service manager does not keep descriptors");
        }
    }
}

/// Takes descriptors back that it keeps.
pub fn forget(name: &str) {
    tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}"));
}

/// Returns how often the service manager wants to hear that this process lives.
pub fn watchdog_interval() -> Option<Duration> {
    let variable = |name| std::env::var(name).ok();
    interval(
        variable(WATCHDOG_INTERVAL)?.as_str(),
        variable(WATCHDOG_PROCESS).as_deref(),
        std::process::id(),
    )
}

fn interval(micros: &str, process: Option<&str>, own: u32) -> Option<Duration> {
    let is_for_us = process.is_none_or(|process| process.parse() == Ok(own));
    let micros = micros.parse().ok().filter(|micros| *micros > 0)?;
    is_for_us.then_some(Duration::from_micros(micros))
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

/// As systemd reads it: CLOCK_MONOTONIC.
fn monotonic_micros() -> u128 {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).map_or(0, |time| time.as_micros())
}

fn tell(note: &str) {
    if let Err(error) = send(note.as_bytes(), &[]) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}

fn send(note: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    match std::env::var_os(SOCKET) {
        Some(path) => send_to(path, note, descriptors),
        None => Ok(()),
    }
}

fn send_to(path: OsString, note: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    // Whoever does not listen must not hold up the daemon.
    socket.set_write_timeout(Some(PATIENCE))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(
        &socket,
        &[IoSlice::new(note)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

    use super::*;

    #[test]
    fn notes_arrive_with_their_descriptors() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let given = tempfile::tempfile().unwrap();
        let note = b"FDSTORE=1\nFDNAME=tun\nFDPOLL=0";
        send_to(path.into(), note, &[given.as_fd()]).unwrap();
        let mut bytes = [0; 100];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [io::IoSliceMut::new(&mut bytes)];
        let received = recvmsg(&manager, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC);
        let length = received.unwrap().bytes;
        assert_eq!(&bytes[..length], note);
        let taken: Vec<_> = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            })
            .flatten()
            .collect();
        let inode = |of: BorrowedFd<'_>| rustix::fs::fstat(of).unwrap().st_ino;
        assert_eq!(taken.len(), 1);
        assert_eq!(inode(taken[0].as_fd()), inode(given.as_fd()));
    }

    #[test]
    fn the_watchdog_is_for_the_process_that_it_names() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(interval("1000000", None, 7), second);
        assert_eq!(interval("1000000", Some("7"), 7), second);
        assert_eq!(interval("1000000", Some("8"), 7), None);
        for bad in ["", "0", "-1", "soon"] {
            assert_eq!(interval(bad, None, 7), None, "{bad}");
        }
    }

    #[test]
    fn a_status_cannot_say_anything_else() {
        assert_eq!(one_line("up\nMAINPID=1"), "up MAINPID=1");
    }
}
