//! Floods against a real socket whose reader takes so much in a round and no more. Time is told, not
//! waited for.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;

use super::*;

/// What the reader takes in a call, and in a round.
const CALL: usize = 8;
const ROUND: usize = 200;
/// Sessions that this host has.
const SESSIONS: [u32; 3] = [7, 8, 9];

struct Host {
    socket: UdpSocket,
    admission: Admission,
    now: Instant,
    seen: HashMap<u32, usize>,
    sent: u64,
    received: u64,
}

impl Host {
    fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 1 << 18).unwrap();
        socket.set_nonblocking(true).unwrap();
        let drops = Arc::new(SocketDrops::from_here(&socket).unwrap());
        Self {
            admission: Admission::new(true, drops),
            socket,
            now: Instant::START + Duration::from_secs(1),
            seen: HashMap::new(),
            sent: 0,
            received: 0,
        }
    }

    fn send(&mut self, sender: &UdpSocket, session: u32) {
        let mut datagram = [0; 64];
        datagram[0] = 4;
        datagram[4..8].copy_from_slice(&session.to_be_bytes());
        let to = self.socket.local_addr().unwrap();
        sender.send_to(&datagram, to).unwrap();
        self.sent += 1;
    }

    /// Takes what a round takes, and looks.
    fn round(&mut self) {
        let mut left = ROUND;
        while left > 0 {
            let taken = (0..CALL).take_while(|_| self.take_one()).count();
            if (taken, left) == (0, ROUND) {
                // Nobody is woken, and nothing received.
                break;
            }
            self.admission.handle_received(taken, taken == CALL);
            if taken < CALL {
                break;
            }
            left -= CALL;
        }
        self.now += LOOK_INTERVAL;
        let sessions = || SESSIONS.to_vec();
        self.admission
            .look_when_due(self.socket.as_fd(), self.now, &sessions);
    }

    fn take_one(&mut self) -> bool {
        let mut memory = [0; 64];
        let Ok((length, from)) = self.socket.recv_from(&mut memory) else {
            return false;
        };
        let index = u32::from_be_bytes(*memory[4..].first_chunk().unwrap());
        let session = SESSIONS.contains(&index).then_some(index);
        self.admission.charge(session, from, length);
        *self.seen.entry(index).or_default() += 1;
        self.received += 1;
        true
    }

    fn drain(&mut self) {
        while self.take_one() {}
    }

    fn seen(&self, index: u32) -> usize {
        self.seen.get(&index).copied().unwrap_or_default()
    }

    fn is_cutting(&self) -> bool {
        matches!(&self.admission.state, State::Sharing(sharing) if sharing.plan.cuts())
    }
}

fn sender(address: u32) -> UdpSocket {
    UdpSocket::bind((Ipv4Addr::from(0x7f00_0000 + address), 0)).unwrap()
}

/// Ten rounds in which the flood is found, and then twenty in which a peer sends ten datagrams each.
fn peer_beside(host: &mut Host, mut flood: impl FnMut(&mut Host, usize)) -> usize {
    let peer = sender(99);
    for round in 0..30 {
        if round == 10 {
            host.drain();
            host.seen.clear();
        }
        for part in 0..10 {
            flood(host, round * 10 + part);
            host.send(&peer, 8);
        }
        host.round();
    }
    assert!(host.is_cutting());
    host.drain();
    host.seen(8)
}

#[test]
fn a_peer_that_floods_leaves_the_others_their_share() {
    let mut host = Host::new();
    let flooder = sender(2);
    let seen = peer_beside(&mut host, |host, _| {
        for _ in 0..90 {
            host.send(&flooder, 7);
        }
    });
    assert_eq!(seen, 200, "each of them");
    let of_flooder = host.seen(7);
    assert!(of_flooder > 20 * ROUND / 4, "{of_flooder}: it has its own");
    let drops = host.admission.drops();
    assert!(drops.above_share() > 0);
    assert_eq!(host.sent, host.received + drops.total());
}

#[test]
fn forged_packets_of_one_session_from_anywhere_are_that_session_s() {
    let mut host = Host::new();
    let seen = peer_beside(&mut host, |host, part| {
        for number in 0..60 {
            host.send(&sender(0x1_0000 + (part * 60 + number) as u32), 7);
        }
    });
    assert_eq!(seen, 200);
}

#[test]
fn strangers_from_everywhere_have_one_share_together() {
    let mut host = Host::new();
    let seen = peer_beside(&mut host, |host, part| {
        for number in 0..60 {
            let number = (part * 60 + number) as u32;
            host.send(&sender(0x1_0000 + number), 1000 + number);
        }
    });
    assert_eq!(seen, 200);
}

#[test]
fn a_session_that_was_silent_in_the_flood_is_no_stranger() {
    let mut host = Host::new();
    let strangers: Vec<UdpSocket> = (0..200).map(|it| sender(0x1_0000 + it)).collect();
    let peer = sender(99);
    // Five seconds of it, one in which a peer sends beside it, and one in which another does that was
    // never heard before.
    for (rounds, session) in [(100, None), (20, Some(8)), (20, Some(9))] {
        host.drain();
        for _ in 0..rounds {
            for number in 0..600 {
                let stranger = &strangers[number as usize % strangers.len()];
                host.send(stranger, 1000 + number);
                if let Some(session) = session.filter(|_| number % 60 == 0) {
                    host.send(&peer, session);
                }
            }
            host.round();
        }
        assert!(host.is_cutting());
    }
    host.drain();
    assert_eq!((host.seen(8), host.seen(9)), (200, 200));
}

#[test]
fn a_stranger_who_floods_leaves_other_strangers_their_share() {
    let mut host = Host::new();
    let (flooder, newcomer) = (sender(2), sender(3));
    let seen = peer_beside(&mut host, |host, _| {
        for _ in 0..90 {
            host.send(&flooder, 1000);
        }
        host.send(&newcomer, 1001);
    });
    assert_eq!((seen, host.seen(1001)), (200, 200));
}

#[test]
fn all_is_as_before_when_the_flood_is_over() {
    let mut host = Host::new();
    let flooder = sender(2);
    peer_beside(&mut host, |host, _| {
        for _ in 0..90 {
            host.send(&flooder, 7);
        }
    });
    assert!(host.admission.deadline().is_some(), "also if nothing comes");
    for _ in 0..100 {
        host.round();
    }
    assert!(!host.admission.is_watching());
    assert_eq!(host.admission.deadline(), None);
    let (before, seen) = (host.admission.drops().total(), host.seen(7));
    for _ in 0..100 {
        host.send(&flooder, 7);
    }
    host.drain();
    assert_eq!(host.seen(7), seen + 100);
    assert_eq!(host.admission.drops().total(), before);
}

#[test]
fn what_a_burst_loses_is_nobody_s_fault() {
    let mut host = Host::new();
    let peer = sender(2);
    for _ in 0..2000 {
        host.send(&peer, 7);
    }
    for _ in 0..20 {
        host.round();
        assert!(!host.is_cutting());
    }
    assert!(!host.admission.is_watching());
    assert!(host.admission.drops().buffer_full() > 0);
    assert_eq!(host.admission.drops().above_share(), 0);
}

#[test]
fn whoever_has_the_socket_next_gets_everything() {
    let mut host = Host::new();
    let flooder = sender(2);
    peer_beside(&mut host, |host, _| {
        for _ in 0..90 {
            host.send(&flooder, 7);
        }
    });
    host.admission.open(host.socket.as_fd());
    assert!(unfilter(host.socket.as_fd()).is_err(), "there is none left");
}

#[test]
fn what_another_daemon_filtered_ends_with_it() {
    let mut host = Host::new();
    let nothing = Plan {
        others: 0.0,
        ..Plan::OPEN
    };
    filter(&host.socket, &mut nothing.program(Family::V4)).unwrap();
    let peer = sender(2);
    host.send(&peer, 7);
    host.drain();
    assert_eq!(host.seen(7), 0);
    host.admission.open(host.socket.as_fd());
    host.send(&peer, 7);
    host.drain();
    assert_eq!(host.seen(7), 1);
}

#[test]
fn there_is_more_room_when_nothing_came_and_less_when_something_always_waited() {
    let room_after = |messages, emptied| {
        let mut sharing = Sharing {
            room: 100.0,
            ..Sharing::default()
        };
        sharing.adjust_room(Tally { messages, emptied });
        sharing.room
    };
    assert!(room_after(0, 0) > 100.0);
    assert!(room_after(9, 0) < 100.0);
    assert_eq!(room_after(9, 1), 100.0);
    assert!(room_after(9, EMPTIED_OFTEN) > 100.0);
}

#[test]
fn every_session_has_a_claim_and_of_too_many_those_that_ask_for_least_have_none() {
    let of_sessions = |sessions: &[(u32, f64)]| Claims {
        sessions: sessions.to_vec(),
        ..Claims::default()
    };
    // Session 1000 has ended.
    let before = of_sessions(&[(5, 1.0), (6, 10.0), (7, 5.0), (1000, 99.0)]);
    let now = of_sessions(&[(5, 6.0), (6, 0.0), (1000, 99.0)]);
    let there_are: Vec<u32> = (0..600).collect();
    let claims = remembering(&before, now, &there_are);
    assert_eq!(claims.sessions.len(), SESSIONS_MAX);
    let expected = [(6, 8.0), (5, 6.0), (7, 4.0), (0, 0.0), (1, 0.0)];
    assert_eq!(claims.sessions[..5], expected);
}

#[test]
fn a_share_is_of_the_room_that_there_is() {
    let network = |number: u32| Network::of((Ipv4Addr::from(number), 1).into());
    let claims = Claims {
        sessions: vec![(1, 10.0), (2, 300.0), (3, 900.0)],
        networks: vec![(network(1), 500.0), (network(2), 5.0)],
        others: 10.0,
    };
    assert_eq!(plan(&claims, 2000.0), Plan::OPEN);
    let plan = plan(&claims, 310.0);
    let expected = [(1, 1.0), (2, 100.0 / 300.0), (3, 100.0 / 900.0)];
    assert_eq!(plan.sessions, expected);
    assert_eq!(plan.networks, [(network(1), 85.0 / 500.0)]);
    assert_eq!(plan.others, 1.0);
}
