//! What a packet thread does while its daemon hands over to another, or takes over from one. Nearly
//! always it is alone.
//!
//! ```text
//! the one before:  Alone ── Rest ──> Resting ── Leave ──> Leaving     Resume leads back from both
//! the successor:   Waiting ── TakeUp ──> Following ── the one before ends ──> Alone
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dataplane::{Addressee, HandshakeDone, HandshakeJob, Path, Shift};

use super::crossing::Crossing;

/// Datagrams that a successor keeps until it takes over: an answer of each peer, and what peers begin.
const HELD_MAX: usize = 1 << 14;

/// What the thread does.
#[derive(Debug, Default)]
pub(super) enum Duty {
    /// All that comes is its own.
    #[default]
    Alone,
    /// A successor agrees on sessions with the peers: packets pass here, handshakes wait.
    Resting(Box<Resting>),
    /// A successor serves: what was sealed for this daemon is still opened, and nothing is sent.
    Leaving(Box<Resting>),
    /// The one before serves: handshakes are begun, and their answers wait.
    Waiting(Box<Waiting>),
    /// The one before may still get what was sealed for it.
    Following(Crossing),
}

/// Handshakes that wait for the successor to fail.
#[derive(Debug)]
pub(super) struct Resting {
    pub(super) crossing: Crossing,
    pub(super) jobs: Vec<HandshakeJob>,
    pub(super) done: Vec<HandshakeDone>,
}

/// Answers that wait for the one before to leave.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) crossing: Crossing,
    pub(super) held: Vec<(Path, u8, Vec<u8>)>,
    /// How many of them are answers, for whoever waits for all.
    pub(super) answers: Arc<AtomicUsize>,
}

/// Whose a datagram from the network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// This daemon's.
    Ours,
    /// The other one's, while there are two.
    Theirs,
}

impl Duty {
    /// Returns whether packets come from the network and from this host.
    pub(super) const fn serves(&self) -> bool {
        matches!(self, Self::Alone | Self::Resting(_) | Self::Following(_))
    }

    /// Returns whether anything may be sent, and the clock counts.
    pub(super) const fn speaks(&self) -> bool {
        !matches!(self, Self::Leaving(_))
    }

    pub(super) fn crossing(&self) -> Option<&Crossing> {
        match self {
            Self::Alone => None,
            Self::Resting(resting) | Self::Leaving(resting) => Some(&resting.crossing),
            Self::Waiting(waiting) => Some(&waiting.crossing),
            Self::Following(crossing) => Some(crossing),
        }
    }

    pub(super) fn crossing_mut(&mut self) -> Option<&mut Crossing> {
        match self {
            Self::Alone => None,
            Self::Resting(resting) | Self::Leaving(resting) => Some(&mut resting.crossing),
            Self::Waiting(waiting) => Some(&mut waiting.crossing),
            Self::Following(crossing) => Some(crossing),
        }
    }

    /// Tells whose a datagram is. While this daemon rests, all handshakes are its successor's: two
    /// that agree on sessions with one peer at once would each leave the other with one that the
    /// peer has dropped.
    pub(super) fn whose(&self, datagram: &[u8], own: Shift) -> Whose {
        let is_theirs = match (self, Addressee::of(datagram)) {
            (Self::Resting(_), Addressee::Session(shift)) => shift != own,
            (Self::Resting(_), Addressee::Anybody | Addressee::Initiator(_)) => true,
            (Self::Following(_), Addressee::Session(shift) | Addressee::Initiator(shift)) => {
                shift != own
            }
            _ => false,
        };
        match is_theirs {
            true => Whose::Theirs,
            false => Whose::Ours,
        }
    }
}

impl Waiting {
    pub(super) fn new(crossing: Crossing, answers: Arc<AtomicUsize>) -> Self {
        Self {
            crossing,
            held: Vec::new(),
            answers,
        }
    }

    /// Keeps a datagram that the one before has passed on. What does not fit is as if lost on the way.
    pub(super) fn take_one(&mut self, own: Shift) -> super::crossing::Crossed {
        let Self {
            crossing,
            held,
            answers,
        } = self;
        crossing.take(|path, ecn, datagram| {
            if held.len() < HELD_MAX {
                if Addressee::of(datagram) == Addressee::Initiator(own) {
                    answers.fetch_add(1, Ordering::Relaxed);
                }
                held.push((path, ecn, datagram.to_vec()));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(kind: u8, shift: Shift) -> Vec<u8> {
        let (length, at) = match kind {
            1 => (148, 4),
            2 => (92, 8),
            _ => (64, 4),
        };
        let mut bytes = vec![0; length];
        bytes[0] = kind;
        bytes[at + 3] = match shift {
            Shift::First => 0,
            Shift::Second => 0x80,
        };
        bytes
    }

    #[test]
    fn each_daemon_gets_what_is_its_own() {
        use Whose::{Ours, Theirs};
        let crossing = || Crossing::pair().unwrap().0;
        let resting = Duty::Resting(Box::new(Resting {
            crossing: crossing(),
            jobs: Vec::new(),
            done: Vec::new(),
        }));
        let following = Duty::Following(crossing());
        let (initiation, answer, data) = (1, 2, 4);
        let own = Shift::First;
        for (duty, kind, shift, expected) in [
            (&Duty::Alone, data, Shift::Second, Ours),
            (&resting, data, Shift::First, Ours),
            (&resting, data, Shift::Second, Theirs),
            (&resting, answer, Shift::First, Theirs),
            (&resting, answer, Shift::Second, Theirs),
            (&resting, initiation, Shift::First, Theirs),
            (&following, initiation, Shift::First, Ours),
            (&following, data, Shift::First, Ours),
            (&following, data, Shift::Second, Theirs),
            (&following, answer, Shift::Second, Theirs),
        ] {
            let whose = duty.whose(&datagram(kind, shift), own);
            assert_eq!(whose, expected, "{duty:?} {kind} {shift:?}");
        }
    }

    #[test]
    fn answers_are_counted_and_all_of_it_is_kept() {
        let (sender, other) = Crossing::pair().unwrap();
        let answers = Arc::new(AtomicUsize::new(0));
        let mut waiting = Waiting::new(Crossing::new(other), Arc::clone(&answers));
        let path = Path {
            remote: "192.0.2.1:1".parse().unwrap(),
            source: None,
        };
        for kind in [1, 2, 4] {
            assert!(sender.pass(path, 0, &datagram(kind, Shift::Second)));
            waiting.take_one(Shift::Second);
        }
        assert_eq!(waiting.held.len(), 3);
        assert_eq!(answers.load(Ordering::Relaxed), 1);
    }
}
