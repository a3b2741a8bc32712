//! The largest MTU that an interface of this host has: what leaves in one piece, at best.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::net::{AddressFamily, SocketType, socket};

/// Bytes of the largest packet that an interface that is up takes at once, loopback and the
/// overlay's own aside; `None`: there is no other.
pub(crate) fn largest(overlay_interface: &str) -> Option<u32> {
    let names = names().ok()?;
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
    let others = names.iter().filter(|name| *name != overlay_interface);
    // One that is gone by now takes nothing.
    let mtu = |name: &String| mtu_of(&any, name).ok().flatten();
    others.filter_map(mtu).max()
}

/// The names of this thread's network namespace (netdevice(7)): two lines of headings, then
/// `  name: numbers`.
fn names() -> io::Result<Vec<String>> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    let named = text.lines().skip(2).filter_map(|line| line.split_once(':'));
    Ok(named.map(|(name, _)| name.trim().to_owned()).collect())
}

/// Returns what an interface takes; `None` when it is down or the host's own loop.
fn mtu_of(any: impl AsFd, name: &str) -> io::Result<Option<u32>> {
    let mut request = request(name)?;
    let descriptor = any.as_fd().as_raw_fd();
    // SAFETY: the request is a whole `ifreq` with a name that ends with a zero; the kernel writes
    // its flags (netdevice(7), SIOCGIFFLAGS).
    if unsafe { libc::ioctl(descriptor, libc::SIOCGIFFLAGS, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has written the flags.
    let flags = libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags });
    if flags & libc::IFF_UP == 0 || flags & libc::IFF_LOOPBACK != 0 {
        return Ok(None);
    }
    // SAFETY: as above; the kernel writes the MTU (SIOCGIFMTU).
    if unsafe { libc::ioctl(descriptor, libc::SIOCGIFMTU, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has written the MTU.
    Ok(u32::try_from(unsafe { request.ifr_ifru.ifru_mtu }).ok())
}

fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: all zeros are a valid `ifreq`: an empty name and numbers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len();
    if name.len() >= room {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = libc::c_char::from_ne_bytes([byte]);
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::super::interface::tests::{is_in_namespace, said_by};
    use super::*;

    #[test]
    fn the_largest_of_those_that_are_up_counts() {
        if !is_in_namespace("linux::underlay_mtu::tests::the_largest_of_those_that_are_up_counts") {
            return;
        }
        assert_eq!(largest("mesh0"), None, "there is loopback alone");
        said_by("ip", &["link", "set", "lo", "up"]);
        let veth = "link add eth0 mtu 1400 type veth peer name eth1 mtu 9001";
        said_by("ip", &veth.split(' ').collect::<Vec<_>>());
        assert_eq!(largest("mesh0"), None, "they are down");
        said_by("ip", &["link", "set", "eth0", "up"]);
        assert_eq!(largest("mesh0"), Some(1400));
        said_by("ip", &["link", "set", "eth1", "up"]);
        assert_eq!(largest("mesh0"), Some(9001));
        assert_eq!(largest("eth1"), Some(1400));
    }
}
