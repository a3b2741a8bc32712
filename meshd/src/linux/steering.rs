//! Which of the sockets that share a port gets a datagram: a classic BPF program in the kernel looks
//! for the receiver index in it, whose first byte says which shard gave it out.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libc::{sock_filter, sock_fprog};

// linux/bpf_common.h
const LOAD_WORD: u16 = 0x20;
const LOAD_BYTE: u16 = 0x30;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;
const RETURN_ACCUMULATOR: u16 = 0x16;

/// Steers the datagrams of a group of `count` sockets on one port: those that name a session to the
/// socket of its shard, all others to the first. The sockets count in the order of their binding;
/// any of them stands for the group. The count is a power of two up to 64.
///
/// # Errors
/// The kernel does not take the program; datagrams are then spread by the addresses in them.
pub fn steer_by_receiver_index(socket: impl AsFd, count: u16) -> io::Result<()> {
    let mut instructions = program(count);
    let program = sock_fprog {
        len: instructions.len() as u16,
        filter: instructions.as_mut_ptr(),
    };
    // SAFETY: `program` and the instructions it points to live through the call, and the kernel
    // copies both; the length is that of the type that the option takes (socket(7)).
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of::<sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Offsets are from the start of the UDP payload; whatever is too short goes to the first socket.
fn program(count: u16) -> [sock_filter; 10] {
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    // The types of WireGuard messages as the first word in network order (whitepaper 5.4).
    let (response, cookie_reply, data) = (0x0200_0000, 0x0300_0000, 0x0400_0000);
    [
        step(LOAD_WORD, 0, 0, 0),
        step(JUMP_IF_EQUAL, 3, 0, data),
        step(JUMP_IF_EQUAL, 2, 0, cookie_reply),
        step(JUMP_IF_EQUAL, 3, 0, response),
        step(RETURN, 0, 0, 0),
        step(LOAD_BYTE, 0, 0, 4),
        step(JUMP, 0, 0, 1),
        step(LOAD_BYTE, 0, 0, 8),
        step(AND, 0, 0, u32::from(count) - 1),
        step(RETURN_ACCUMULATOR, 0, 0, 0),
    ]
}
