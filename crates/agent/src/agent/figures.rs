//! What metrics tell of a host: numbers without names, cheap enough to be asked for often.

use std::time::Duration;

use model::ids::{PolicyVersion, Revision};
use model::local::HostState;
use model::time::{Now, UnixTime};

use super::Agent;
use crate::enrolment::Enrolment;

/// How old a session may get; one that is older carries nothing (WireGuard whitepaper 6.1).
const SESSION_TIME: Duration = Duration::from_secs(180);

/// Numbers of one host at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// What the daemon is doing.
    pub state: HostState,
    /// Peers that it knows.
    pub peers: usize,
    /// Those of them with which it has a session.
    pub peers_with_session: usize,
    /// What it knows.
    pub revision: Option<Revision>,
    /// The policy in force.
    pub policy: Option<PolicyVersion>,
    /// When its certificate expires.
    pub certificate_expires: Option<UnixTime>,
    /// When a coordinator said something last.
    pub last_contact: Option<UnixTime>,
    /// By how many seconds this machine's clock is ahead of the coordinator's.
    pub clock_ahead_secs: Option<i64>,
    /// Things that an operator should look at.
    pub alarms: usize,
}

impl Agent {
    pub(super) fn current_figures(&self, now: Now) -> Figures {
        let member = match &self.enrolment {
            Enrolment::Member(member) => Some(member),
            _ => None,
        };
        let map = self.staging.in_force();
        let elapsed = now.monotonic.since_start();
        let since = model::time::Instant::from_start(elapsed.saturating_sub(SESSION_TIME));
        let ago = |at| now.monotonic.saturating_since(at);
        let unix = |at| now.unix.since_epoch().saturating_sub(ago(at)).as_secs();
        Figures {
            state: self.host_state(),
            peers: map.map_or(0, |map| map.peers.len()),
            peers_with_session: self.paths.with_handshake_since(since),
            revision: map.map(|map| map.revision),
            policy: map.map(|map| map.policy_version()),
            certificate_expires: member.map(|member| member.validity.not_after),
            last_contact: self.channel.last_heard().map(unix).map(UnixTime::from_secs),
            clock_ahead_secs: self.coordinator_clock.map(|clock| clock.ahead_secs(now)),
            alarms: self.alarms.messages().len(),
        }
    }
}
