//! The control channel between hosts and the coordinator: reliable, ordered, slow, and broken by a
//! partition that lasts. Messages are bytes on it. TLS is not spoken, but what it would decide is
//! decided, by `trust` and by both clocks.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use agent::{ChannelError, ChannelErrorKind, ChannelIdentity};
use fleet::{SessionId, SessionPeer};
use model::control::{EnrolRequest, Refusal};
use model::ids::Digest;
use model::time::{Instant, UnixTime};
use trust::certificate::{self, CertificateError};

use crate::event::{HostIndex, Run};

/// Names one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConnectionId(pub(crate) u64);

/// From a host to the coordinator, or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Way {
    Up,
    Down,
}

/// What travels on a connection.
pub(crate) enum Frame {
    /// Up: the connection is opened.
    Dial,
    /// Down: the sync channel stands.
    Accepted,
    /// Down: this answers a call.
    Answer(Result<Vec<u8>, Refusal>),
    /// Down: one end does not believe the other.
    Rejected(ChannelError),
    /// A message of the sync channel.
    Message(Vec<u8>),
    /// The end that sends it says nothing more.
    Close,
    /// Who gets this spoke to somebody who is not there.
    Reset,
}

/// What a connection is for.
pub(crate) enum Purpose {
    Describe {
        pin: Digest,
    },
    Enrol {
        pin: Digest,
        request: Box<EnrolRequest>,
    },
    Sync(Box<ChannelIdentity>),
}

/// One connection.
pub(crate) struct Connection {
    pub(crate) host: HostIndex,
    pub(crate) host_run: Run,
    pub(crate) opened: Instant,
    /// The start of the coordinator that took it.
    pub(crate) taken_by: Option<Run>,
    pub(crate) purpose: Purpose,
    pub(crate) session: Option<SessionId>,
    pub(crate) is_host_open: bool,
    pub(crate) is_coordinator_open: bool,
    /// An answer came, or the channel stands.
    pub(crate) is_answered: bool,
    up: Lane,
    down: Lane,
    stalled_since: Option<Instant>,
    /// How long nothing may come through before both ends give up.
    patience: Duration,
}

#[derive(Default)]
struct Lane {
    frames: VecDeque<Frame>,
    last: Instant,
}

/// All connections.
#[derive(Default)]
pub(crate) struct Control {
    connections: BTreeMap<ConnectionId, Connection>,
    next: u64,
}

/// What to do about a frame that cannot arrive now.
pub(crate) enum Stall {
    /// Try again at this time.
    Retry(Instant),
    /// The connection breaks.
    Break,
}

/// How long a call waits for its answer: less than any brain's patience.
pub(crate) const CALL_PATIENCE: Duration = Duration::from_secs(10);
const RETRANSMIT_AFTER: Duration = Duration::from_millis(500);

impl Control {
    pub(crate) fn open(
        &mut self,
        host: HostIndex,
        host_run: Run,
        purpose: Purpose,
        patience: Duration,
        now: Instant,
    ) -> ConnectionId {
        self.next += 1;
        let id = ConnectionId(self.next);
        let connection = Connection {
            host,
            host_run,
            opened: now,
            taken_by: None,
            purpose,
            session: None,
            is_host_open: true,
            is_coordinator_open: false,
            is_answered: false,
            up: Lane::default(),
            down: Lane::default(),
            stalled_since: None,
            patience,
        };
        self.connections.insert(id, connection);
        id
    }

    pub(crate) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.get_mut(&id)
    }

    pub(crate) fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        self.connections.remove(&id)
    }

    pub(crate) fn ids(&self) -> Vec<ConnectionId> {
        self.connections.keys().copied().collect()
    }

    /// Puts a frame on its way; returns when it arrives, never before an earlier one.
    pub(crate) fn send(
        &mut self,
        id: ConnectionId,
        way: Way,
        frame: Frame,
        earliest: Instant,
    ) -> Option<Instant> {
        let lane = self.connections.get_mut(&id)?.lane(way);
        lane.frames.push_back(frame);
        lane.last = lane.last.max(earliest);
        Some(lane.last)
    }

    /// Takes the frame that arrives.
    pub(crate) fn take(&mut self, id: ConnectionId, way: Way) -> Option<Frame> {
        let connection = self.connections.get_mut(&id)?;
        connection.stalled_since = None;
        connection.lane(way).frames.pop_front()
    }

    /// Notes that a frame cannot arrive now.
    pub(crate) fn stall(&mut self, id: ConnectionId, now: Instant) -> Option<Stall> {
        let connection = self.connections.get_mut(&id)?;
        let since = *connection.stalled_since.get_or_insert(now);
        if now - since > connection.patience {
            return Some(Stall::Break);
        }
        Some(Stall::Retry(now + RETRANSMIT_AFTER))
    }
}

impl Connection {
    fn lane(&mut self, way: Way) -> &mut Lane {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }
}

/// What a host's TLS would say to the coordinator's chain.
///
/// # Errors
/// It is not believed.
pub(crate) fn host_believes(
    purpose: &Purpose,
    coordinator_chain: &[Vec<u8>],
    now: UnixTime,
) -> Result<(), ChannelError> {
    let verified = match purpose {
        Purpose::Describe { pin } | Purpose::Enrol { pin, .. } => {
            certificate::verify_pinned_chain(coordinator_chain, pin, now).map(|_| ())
        }
        Purpose::Sync(identity) => {
            certificate::verify_chain(coordinator_chain, &identity.roots, now)
                .and_then(|facts| facts.check_coordinator(&identity.fleet))
        }
    };
    verified.map_err(|error| {
        let is_clock = matches!(
            error,
            CertificateError::Expired { .. } | CertificateError::NotYetValid { .. }
        );
        let kind = if is_clock {
            ChannelErrorKind::Clock
        } else {
            ChannelErrorKind::Untrusted
        };
        ChannelError::new(kind, error.to_string())
    })
}

/// What the coordinator's TLS would say to a host's chain: one that is not valid now is let in, so
/// that it can renew.
///
/// # Errors
/// It is not believed.
pub(crate) fn coordinator_believes(
    chain: &[Vec<u8>],
    roots: &[Vec<u8>],
    now: UnixTime,
) -> Result<SessionPeer, ChannelError> {
    let facts = match certificate::verify_chain(chain, roots, now) {
        Err(CertificateError::Expired { not_after, .. }) => {
            certificate::verify_chain(chain, roots, not_after)
        }
        Err(CertificateError::NotYetValid { not_before, .. }) => {
            certificate::verify_chain(chain, roots, not_before)
        }
        other => other,
    };
    match facts {
        Ok(facts) => Ok(SessionPeer {
            identity: facts.spiffe,
            tls_key_hash: facts.tls_key_hash,
            not_before: facts.not_before,
            not_after: facts.not_after,
        }),
        Err(error) => Err(ChannelError::new(
            ChannelErrorKind::Rejected,
            error.to_string(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::from_start(Duration::from_secs(secs))
    }

    fn open(control: &mut Control) -> ConnectionId {
        let pin = Digest::from_bytes([0; 32]);
        let patience = Duration::from_secs(30);
        control.open(
            HostIndex(0),
            Run(1),
            Purpose::Describe { pin },
            patience,
            at(0),
        )
    }

    #[test]
    fn no_frame_overtakes_an_earlier_one() {
        let mut control = Control::default();
        let id = open(&mut control);
        assert_eq!(control.send(id, Way::Up, Frame::Dial, at(5)), Some(at(5)));
        assert_eq!(control.send(id, Way::Up, Frame::Close, at(3)), Some(at(5)));
        assert!(matches!(control.take(id, Way::Up), Some(Frame::Dial)));
        assert!(matches!(control.take(id, Way::Up), Some(Frame::Close)));
    }

    #[test]
    fn a_connection_breaks_when_nothing_comes_through_for_too_long() {
        let mut control = Control::default();
        let id = open(&mut control);
        control.send(id, Way::Up, Frame::Dial, at(0));
        assert!(matches!(control.stall(id, at(0)), Some(Stall::Retry(_))));
        assert!(matches!(control.stall(id, at(30)), Some(Stall::Retry(_))));
        assert!(matches!(control.stall(id, at(31)), Some(Stall::Break)));
        control.take(id, Way::Up);
        assert!(
            matches!(control.stall(id, at(40)), Some(Stall::Retry(_))),
            "it came through"
        );
    }
}
