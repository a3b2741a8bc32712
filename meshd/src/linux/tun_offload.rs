//! What a TUN device can do for us: take and give several packets at once.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use dataplane::Joins;

/// linux/if_tun.h: `_IOR('T', 210, unsigned int)`.
const TUNGETIFF: libc::Ioctl = 0x8004_54d2;
/// linux/if_tun.h: `_IOW('T', 208, unsigned int)`.
const TUNSETOFFLOAD: libc::Ioctl = 0x4004_54d0;

/// Asks a queue's device for every offload that it has. `None`: it has no headers in front of its
/// packets, and so no offloads. It may be asked again and again.
///
/// # Errors
/// It is no TUN device.
pub fn enable(queue: impl AsFd) -> io::Result<Option<Joins>> {
    if flags(&queue)? & libc::IFF_VNET_HDR == 0 {
        return Ok(None);
    }
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    // Linux 6.2.
    let udp = libc::TUN_F_USO4 | libc::TUN_F_USO6;
    let joins = |tcp, udp| Ok(Some(Joins { tcp, udp }));
    if set_offload(&queue, tcp | udp).is_ok() {
        joins(true, true)
    } else if set_offload(&queue, tcp).is_ok() {
        joins(true, false)
    } else {
        joins(false, false)
    }
}

/// Returns the name of the interface that a queue is of.
///
/// # Errors
/// It is no queue of a TUN device.
pub fn name(queue: impl AsFd) -> io::Result<String> {
    let request = interface_of(&queue)?;
    let name = request.ifr_name.iter().take_while(|byte| **byte != 0);
    Ok(name.map(|byte| char::from(*byte as u8)).collect())
}

fn flags(queue: &impl AsFd) -> io::Result<libc::c_int> {
    let request = interface_of(queue)?;
    // SAFETY: TUNGETIFF fills in the flags.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(libc::c_int::from(flags as u16))
}

fn interface_of(queue: &impl AsFd) -> io::Result<libc::ifreq> {
    // SAFETY: all zeros are a valid `ifreq`: an empty name and a union of plain numbers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes an `ifreq` to where one is.
    let result = unsafe { libc::ioctl(queue.as_fd().as_raw_fd(), TUNGETIFF, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(request)
}

fn set_offload(queue: &impl AsFd, offloads: libc::c_uint) -> io::Result<()> {
    // SAFETY: the argument is a number, not a pointer.
    let result = unsafe {
        libc::ioctl(
            queue.as_fd().as_raw_fd(),
            TUNSETOFFLOAD,
            libc::c_ulong::from(offloads),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
