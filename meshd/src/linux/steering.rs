//! Which of the sockets that share a port gets a datagram: a classic BPF program in the kernel looks
//! for the receiver index in it, whose first byte says which shard gave it out.

use std::io;
use std::os::fd::AsFd;

use super::classic_bpf::{
    AND, Instruction, JUMP, JUMP_IF_EQUAL, LOAD_BYTE, LOAD_WORD, RETURN, RETURN_ACCUMULATOR,
    choose_among_group, step,
};

/// Steers the datagrams of a group of `count` sockets on one port: those that name a session to the
/// socket of its shard, all others to the first. The sockets count in the order of their binding;
/// any of them stands for the group. The count is a power of two up to 64.
///
/// # Errors
/// The kernel does not take the program; datagrams are then spread by the addresses in them.
pub fn steer_by_receiver_index(socket: impl AsFd, count: u16) -> io::Result<()> {
    choose_among_group(socket, &mut program(count))
}

/// Offsets are from the start of the UDP payload; whatever is too short goes to the first socket.
fn program(count: u16) -> [Instruction; 10] {
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
