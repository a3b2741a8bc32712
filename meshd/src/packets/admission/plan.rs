//! Which part of whose datagrams may come in while there is too much, and the program in the kernel
//! that sees to it: what is above a share costs neither room in the socket's buffer nor a wake-up.

use std::net::{IpAddr, SocketAddr};

use crate::linux::classic_bpf::{
    INSTRUCTIONS_MAX, Instruction, JUMP, JUMP_IF_AT_LEAST, JUMP_IF_EQUAL, LOAD_WORD,
    NETWORK_HEADER, RANDOM, RETURN, step,
};

/// Sessions that a plan may name: eight instructions each, and the rest for networks.
pub(super) const SESSIONS_MAX: usize = 448;
/// Networks that a plan may name.
pub(super) const NETWORKS_MAX: usize = 32;

/// The type of a WireGuard data message as the first word in network order (whitepaper 5.4).
const DATA: u32 = 0x0400_0000;
/// From the start of the UDP header.
const FIRST_WORD_AT: u32 = 8;
const RECEIVER_INDEX_AT: u32 = 12;
/// From the start of the IP header.
const V4_SOURCE_AT: u32 = 12;
const V6_SOURCE_AT: u32 = 8;

/// The address of one IPv4 host, or the upper half of an IPv6 address: whoever has one of its
/// addresses has them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Network(u64);

/// Which addresses a socket has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// The parts, each from 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    /// By receiver index, as its bytes in network order.
    pub(super) sessions: Vec<(u32, f64)>,
    /// Of what is in no session above.
    pub(super) networks: Vec<(Network, f64)>,
    /// Of what is neither.
    pub(super) others: f64,
}

impl Network {
    pub(super) fn of(source: SocketAddr) -> Self {
        match source.ip().to_canonical() {
            IpAddr::V4(v4) => Self(u64::from(u32::from(v4))),
            IpAddr::V6(v6) => Self((u128::from(v6) >> 64) as u64),
        }
    }
}

impl Default for Plan {
    fn default() -> Self {
        Self::OPEN
    }
}

impl Plan {
    /// All may come in.
    pub(super) const OPEN: Self = Self {
        sessions: Vec::new(),
        networks: Vec::new(),
        others: 1.0,
    };

    /// Returns whether anybody has less than all.
    pub(super) fn cuts(&self) -> bool {
        let parts = self.sessions.iter().map(|(_, part)| part);
        let parts = parts.chain(self.networks.iter().map(|(_, part)| part));
        parts.chain([&self.others]).any(|part| *part < 1.0)
    }

    /// Returns the program.
    pub(super) fn program(&self, family: Family) -> Vec<Instruction> {
        let mut sessions = self.sessions.clone();
        sessions.sort_unstable_by_key(|(index, _)| *index);
        sessions.dedup_by_key(|(index, _)| *index);
        sessions.truncate(SESSIONS_MAX);
        let mut tree = Vec::new();
        if sessions.is_empty() {
            tree.push(JUMP_TO_OTHERS);
        } else {
            find_session(&sessions, &mut tree);
        }
        let mut program = vec![
            step(LOAD_WORD, 0, 0, FIRST_WORD_AT),
            step(JUMP_IF_EQUAL, 1, 0, DATA),
            JUMP_TO_OTHERS,
            step(LOAD_WORD, 0, 0, RECEIVER_INDEX_AT),
        ];
        program.append(&mut tree);
        let others_at = program.len();
        for (at, jump) in program.iter_mut().enumerate() {
            if is_jump_to_others(jump) {
                jump.k = (others_at - at - 1) as u32;
            }
        }
        for (network, part) in self.networks.iter().take(NETWORKS_MAX) {
            find_network(*network, *part, family, &mut program);
        }
        admit(self.others, &mut program);
        debug_assert!(program.len() <= INSTRUCTIONS_MAX);
        program
    }
}

/// Where the sessions end is known when all of them are written.
const JUMP_TO_OTHERS: Instruction = step(JUMP, 0, 0, u32::MAX);

fn is_jump_to_others(instruction: &Instruction) -> bool {
    (instruction.code, instruction.k) == (JUMP, u32::MAX)
}

/// A binary search among sorted sessions, one at least, for the one whose index is loaded.
fn find_session(sessions: &[(u32, f64)], program: &mut Vec<Instruction>) {
    if let [(index, part)] = sessions {
        let mut admitted = Vec::with_capacity(4);
        admit(*part, &mut admitted);
        program.push(step(JUMP_IF_EQUAL, 0, admitted.len() as u8, *index));
        program.append(&mut admitted);
        program.push(JUMP_TO_OTHERS);
        return;
    }
    let (lower, upper) = sessions.split_at(sessions.len() / 2);
    let choice_at = program.len();
    program.push(step(JUMP_IF_AT_LEAST, 0, 1, upper[0].0));
    // Over the lower half, once it is written.
    program.push(step(JUMP, 0, 0, 0));
    find_session(lower, program);
    program[choice_at + 1].k = (program.len() - choice_at - 2) as u32;
    find_session(upper, program);
}

/// Ends for a datagram of that network, and goes on behind itself for others.
fn find_network(network: Network, part: f64, family: Family, program: &mut Vec<Instruction>) {
    let mut admitted = Vec::with_capacity(4);
    admit(part, &mut admitted);
    let past = admitted.len() as u8;
    let load = |at| step(LOAD_WORD, 0, 0, NETWORK_HEADER.wrapping_add(at));
    let [upper, lower] = [(network.0 >> 32) as u32, network.0 as u32];
    match family {
        Family::V4 => program.extend([load(V4_SOURCE_AT), step(JUMP_IF_EQUAL, 0, past, lower)]),
        Family::V6 => program.extend([
            load(V6_SOURCE_AT),
            step(JUMP_IF_EQUAL, 0, past + 2, upper),
            load(V6_SOURCE_AT + 4),
            step(JUMP_IF_EQUAL, 0, past, lower),
        ]),
    }
    program.append(&mut admitted);
}

/// Ends, for that part of all datagrams by letting it in.
fn admit(part: f64, program: &mut Vec<Instruction>) {
    const WHOLE: u32 = u32::MAX;
    if part < 1.0 {
        // The cast saturates.
        let bound = (part * f64::from(u32::MAX)) as u32;
        program.extend([
            step(LOAD_WORD, 0, 0, RANDOM),
            step(JUMP_IF_AT_LEAST, 0, 1, bound),
            step(RETURN, 0, 0, 0),
        ]);
    }
    program.push(step(RETURN, 0, 0, WHOLE));
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::linux::classic_bpf::filter;

    fn data(index: u32) -> Vec<u8> {
        let mut datagram = vec![0; 32];
        datagram[0] = 4;
        datagram[4..8].copy_from_slice(&index.to_be_bytes());
        datagram
    }

    /// Which of the datagrams, each from its source, a socket gets under a plan.
    fn passed(plan: &Plan, datagrams: &[(&str, Vec<u8>)]) -> Vec<bool> {
        let is_v4 = datagrams[0].0.contains('.');
        let (any, family) = match is_v4 {
            true => ("127.0.0.1:0", Family::V4),
            false => ("[::1]:0", Family::V6),
        };
        let socket = UdpSocket::bind(any).unwrap();
        filter(&socket, &mut plan.program(family)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut memory = [0; 64];
        let mut one = |(source, datagram): &(&str, Vec<u8>)| {
            let sender = UdpSocket::bind(source).unwrap();
            let to = socket.local_addr().unwrap();
            sender.send_to(datagram, to).unwrap();
            socket.recv(&mut memory).is_ok()
        };
        datagrams.iter().map(&mut one).collect()
    }

    #[test]
    fn a_session_has_its_own_part_wherever_it_comes_from() {
        let plan = Plan {
            sessions: vec![(7, 1.0), (0xffff_ffff, 0.0)],
            networks: vec![(Network::of("127.0.0.2:1".parse().unwrap()), 0.0)],
            others: 1.0,
        };
        let sent = [
            ("127.0.0.2:0", data(7)),
            ("127.0.0.3:0", data(0xffff_ffff)),
            ("127.0.0.2:0", data(8)),
            ("127.0.0.3:0", data(8)),
            ("127.0.0.2:0", vec![1; 148]),
            ("127.0.0.3:0", vec![1; 148]),
        ];
        assert_eq!(
            passed(&plan, &sent),
            [true, false, false, true, false, true]
        );
    }

    #[test]
    fn networks_of_ipv6_are_told_apart_by_both_halves_of_their_prefix() {
        let session = (7, 1.0);
        let others = |networks: &[&str], others| Plan {
            sessions: vec![session],
            networks: networks
                .iter()
                .map(|it| (Network::of(it.parse().unwrap()), 1.0 - others))
                .collect(),
            others,
        };
        let sent = [("[::1]:0", data(7)), ("[::1]:0", data(8))];
        let near = ["[0:0:0:1::]:0", "[1::]:0"];
        assert_eq!(passed(&others(&near, 1.0), &sent), [true, true]);
        assert_eq!(passed(&others(&near, 0.0), &sent), [true, false]);
        assert_eq!(passed(&others(&["[::9]:0"], 1.0), &sent), [true, false]);
    }

    #[test]
    fn each_of_many_sessions_is_found_and_nobody_else_is() {
        // Far apart and close together.
        let index = |number: usize| (number as u32).wrapping_mul(0x9e37_79b9) & 0xffff_fff0;
        for count in [0, 1, 2, 3, 100, SESSIONS_MAX] {
            let plan = Plan {
                sessions: (0..count).map(|it| (index(it), 1.0)).collect(),
                networks: Vec::new(),
                others: 0.0,
            };
            let numbers = [0, 1, 2, 57, 99, 446, 447, 448, 600];
            let sent = numbers.map(|it| ("127.0.0.1:0", data(index(it))));
            assert_eq!(
                passed(&plan, &sent),
                numbers.map(|it| it < count),
                "{count}"
            );
            let sent = numbers.map(|it| ("127.0.0.1:0", data(index(it) + 1)));
            assert_eq!(passed(&plan, &sent), [false; 9], "{count}");
        }
    }

    #[test]
    fn the_largest_plan_fits_into_a_program() {
        let networks = 0..NETWORKS_MAX as u64;
        let plan = Plan {
            sessions: (0..600).map(|index| (index, 0.5)).collect(),
            networks: networks.map(|it| (Network(it), 0.5)).collect(),
            others: 0.5,
        };
        assert!(plan.cuts() && !Plan::OPEN.cuts());
        let sent = [("[::1]:0", data(700))];
        passed(&plan, &sent);
        assert!(plan.program(Family::V6).len() <= INSTRUCTIONS_MAX);
    }

    #[test]
    fn about_the_part_that_is_asked_for_passes() {
        let plan = Plan {
            others: 0.25,
            ..Plan::OPEN
        };
        let sent = vec![("127.0.0.1:0", data(1)); 2000];
        let seen = passed(&plan, &sent).into_iter().filter(|it| *it).count();
        // Ten standard deviations to each side.
        assert!((300..=700).contains(&seen), "{seen} of 2000");
    }
}
