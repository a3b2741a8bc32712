//! Classic BPF (`Documentation/networking/filter.rst` of Linux): the instructions that our programs
//! are made of, and the two places of a UDP socket that take one. Needs no privilege.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libc::{sock_filter, sock_fprog};

/// One instruction.
pub(crate) type Instruction = sock_filter;

/// As many as a program may have (`BPF_MAXINSNS`, linux/bpf_common.h).
pub(crate) const INSTRUCTIONS_MAX: usize = 4096;

// linux/bpf_common.h
/// Loads four bytes in network order.
pub(crate) const LOAD_WORD: u16 = 0x20;
/// Loads one byte.
pub(crate) const LOAD_BYTE: u16 = 0x30;
/// Goes on `k` instructions further.
pub(crate) const JUMP: u16 = 0x05;
/// Goes on `jt` or `jf` instructions further.
pub(crate) const JUMP_IF_EQUAL: u16 = 0x15;
/// As [`JUMP_IF_EQUAL`].
pub(crate) const JUMP_IF_AT_LEAST: u16 = 0x35;
/// Keeps the bits of `k`.
pub(crate) const AND: u16 = 0x54;
/// Ends with `k`.
pub(crate) const RETURN: u16 = 0x06;
/// Ends with what was loaded.
pub(crate) const RETURN_ACCUMULATOR: u16 = 0x16;

/// Where the IP header begins, for a load (`SKF_NET_OFF`, linux/filter.h).
pub(crate) const NETWORK_HEADER: u32 = -0x10_0000_i32 as u32;
/// A load from here gives a random number (`SKF_AD_OFF + SKF_AD_RANDOM`, linux/filter.h).
pub(crate) const RANDOM: u32 = (-0x1000_i32 + 56) as u32;

/// Returns an instruction.
pub(crate) const fn step(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
    sock_filter { code, jt, jf, k }
}

/// Lets a program choose among the sockets that share a port: it returns the number of one. Its
/// offsets are from the start of the UDP payload.
///
/// # Errors
/// The kernel does not take the program.
pub(crate) fn choose_among_group(socket: impl AsFd, program: &mut [Instruction]) -> io::Result<()> {
    attach(socket, libc::SO_ATTACH_REUSEPORT_CBPF, program)
}

/// Lets a program choose which datagrams a socket gets: it returns 0 for those that are dropped, and
/// counted among the socket's drops. Its offsets are from the start of the UDP header. A load past the
/// datagram's end drops it. It takes the place of one that was there.
///
/// # Errors
/// The kernel does not take the program: the one before stays.
pub(crate) fn filter(socket: impl AsFd, program: &mut [Instruction]) -> io::Result<()> {
    attach(socket, libc::SO_ATTACH_FILTER, program)
}

/// Lets a socket get all datagrams again.
///
/// # Errors
/// There is no filter.
pub(crate) fn unfilter(socket: impl AsFd) -> io::Result<()> {
    let unused: libc::c_int = 0;
    set(&socket, libc::SO_DETACH_FILTER, &unused)
}

fn attach(
    socket: impl AsFd,
    place: libc::c_int,
    instructions: &mut [Instruction],
) -> io::Result<()> {
    let length = u16::try_from(instructions.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = sock_fprog {
        len: length,
        filter: instructions.as_mut_ptr(),
    };
    set(&socket, place, &program)
}

/// `value` and what it points to live through the call; the kernel copies both.
fn set<T>(socket: &impl AsFd, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of a value of the type that each option here
    // takes (socket(7)), and as many instructions as a program says, which its one maker took from
    // a slice of them.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_filter_takes_the_place_of_the_one_before_and_can_be_taken_away() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut first_byte = [
            step(LOAD_BYTE, 0, 0, 8),
            step(JUMP_IF_EQUAL, 0, 1, u32::from(b'a')),
            step(RETURN, 0, 0, u32::MAX),
            step(RETURN, 0, 0, 0),
        ];
        filter(&socket, &mut first_byte).unwrap();
        first_byte[1].k = u32::from(b'b');
        filter(&socket, &mut first_byte).unwrap();
        let send = |text: &str| sender.send_to(text.as_bytes(), socket.local_addr().unwrap());
        for text in ["ay", "bee", ""] {
            send(text).unwrap();
        }
        unfilter(&socket).unwrap();
        send("ay").unwrap();
        let mut memory = [0; 8];
        for expected in ["bee", "ay"] {
            let length = socket.recv(&mut memory).unwrap();
            assert_eq!(&memory[..length], expected.as_bytes());
        }
        assert!(unfilter(&socket).is_err(), "there is none any more");
    }

    #[test]
    fn a_program_that_the_kernel_does_not_take_is_told() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(filter(&socket, &mut [step(JUMP, 0, 0, 9)]).is_err());
        assert!(filter(&socket, &mut []).is_err());
    }
}
