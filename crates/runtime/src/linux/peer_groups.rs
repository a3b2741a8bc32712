//! `SO_PEERGROUPS`: the supplementary groups that a process had when it connected a Unix socket.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

/// Most groups that a process can have: `NGROUPS_MAX` of linux/limits.h.
const GROUPS_MAX: usize = 65536;

/// Returns the supplementary groups of the process at the other end, as they were when it
/// connected.
///
/// # Errors
/// The socket is not a connected Unix socket, or the kernel is older than 4.13.
pub fn peer_groups(socket: &impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups = vec![0u32; 64];
    loop {
        let mut length = libc::socklen_t::try_from(groups.len() * size_of::<u32>())
            .expect("at most GROUPS_MAX groups of four bytes");
        // SAFETY: `groups` is writable for `length` bytes, and the kernel writes at most that many.
        let outcome = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let needed = length as usize / size_of::<u32>();
        if outcome == 0 {
            groups.truncate(needed);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        let too_small = error.raw_os_error() == Some(libc::ERANGE);
        if !too_small || needed <= groups.len() || needed > GROUPS_MAX {
            return Err(error);
        }
        groups.resize(needed, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn our_own_groups_come_back() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut expected: Vec<u32> = rustix::process::getgroups()
            .unwrap()
            .into_iter()
            .map(|gid| gid.as_raw())
            .collect();
        let mut seen = peer_groups(&ours).unwrap();
        expected.sort_unstable();
        seen.sort_unstable();
        assert_eq!(seen, expected);
    }

    #[test]
    fn another_descriptor_is_an_error() {
        assert!(peer_groups(&std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
