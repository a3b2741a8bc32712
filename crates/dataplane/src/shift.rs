//! Which of two daemons gave out a receiver index. A daemon and its successor, which takes over while
//! the other one still runs, are of different shifts: so that a datagram says whose it is, and no
//! index of one is ever taken by the other.

use wireguard::{Kind, classify, receiver_index};

/// The bit of a receiver index that tells. The low bits tell the shard, see `Place`.
const MARK: u32 = 1 << 31;

/// One of two, in turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shift {
    /// That of a daemon which nobody handed over to.
    #[default]
    First,
    /// That of its successor, whose successor is of the first again.
    Second,
}

/// Whom a datagram is for, as far as its first bytes tell. Nothing of it is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressee {
    /// The beginning of a handshake: it names no session.
    Anybody,
    /// An answer or a cookie for a handshake that this shift began.
    Initiator(Shift),
    /// Data under a session of this shift.
    Session(Shift),
    /// It is no WireGuard.
    Nobody,
}

impl Shift {
    /// Returns the shift of this one's successor.
    pub const fn next(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    pub(crate) const fn mark(self, index: u32) -> u32 {
        match self {
            Self::First => index & !MARK,
            Self::Second => index | MARK,
        }
    }

    const fn of_receiver(index: u32) -> Self {
        match index & MARK {
            0 => Self::First,
            _ => Self::Second,
        }
    }
}

impl Addressee {
    /// Looks at a datagram.
    pub fn of(datagram: &[u8]) -> Self {
        let receiver = || receiver_index(datagram).map(Shift::of_receiver);
        match classify(datagram) {
            Some(Kind::Initiation) => Self::Anybody,
            Some(Kind::Response | Kind::CookieReply) => {
                receiver().map_or(Self::Nobody, Self::Initiator)
            }
            Some(Kind::Data) => receiver().map_or(Self::Nobody, Self::Session),
            None => Self::Nobody,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_says_whose_it_is_whatever_the_rest_of_it() {
        for shift in [Shift::First, Shift::Second] {
            assert_ne!(shift, shift.next());
            for random in [0, 1, u32::MAX, 0x8000_0000, 0x7fff_ffff] {
                assert_eq!(Shift::of_receiver(shift.mark(random)), shift);
                assert_eq!(shift.mark(random) << 1, random << 1, "all other bits stay");
            }
        }
    }

    #[test]
    fn datagrams_tell_whom_they_are_for() {
        let datagram = |kind: u8, at: usize, index: u32| {
            let mut bytes = vec![0; 148];
            bytes[0] = kind;
            bytes[at..at + 4].copy_from_slice(&index.to_le_bytes());
            let length = match kind {
                1 => 148,
                2 => 92,
                _ => 64,
            };
            bytes.truncate(length);
            bytes
        };
        let second = Shift::Second.mark(7);
        assert_eq!(Addressee::of(&datagram(1, 4, second)), Addressee::Anybody);
        assert_eq!(
            Addressee::of(&datagram(2, 8, second)),
            Addressee::Initiator(Shift::Second)
        );
        assert_eq!(
            Addressee::of(&datagram(3, 4, 7)),
            Addressee::Initiator(Shift::First)
        );
        assert_eq!(
            Addressee::of(&datagram(4, 4, second)),
            Addressee::Session(Shift::Second)
        );
        assert_eq!(Addressee::of(b"hello"), Addressee::Nobody);
    }
}
