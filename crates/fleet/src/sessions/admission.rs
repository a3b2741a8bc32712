//! Who may open a stream, and how one ends: what is said to a host that is turned away, is sent away or
//! has to make way for a newer stream of its own.

use std::net::IpAddr;
use std::time::Duration;

use model::control::{Goodbye, ToHost};
use model::identity::SpiffeId;
use model::ids::{Digest, HostId};
use model::record::Signed;
use model::time::{Now, UnixTime};

use super::{Progress, SWEEP_EVERY, Session};
use crate::allowance::Rate;
use crate::fleet::Fleet;
use crate::output::{Output, SessionId};
use crate::twins::Struggle;

/// When a host that is sent away may come back, before its jitter.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// When a host that broke the rules may come back.
const RETRY_AFTER_FAULT: Duration = Duration::from_secs(60);

/// How often a host may come, before it takes a turn that others wait for.
const STREAMS: Rate = Rate {
    burst: 16,
    pause: Duration::from_secs(5),
};

/// What a host's certificate proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionPeer {
    /// Its identity.
    pub identity: SpiffeId,
    /// SHA-256 of the SubjectPublicKeyInfo of its TLS key.
    pub tls_key_hash: Digest,
    /// The first second in which it is valid: later than now when the coordinator's clock ran ahead
    /// once.
    pub not_before: UnixTime,
    /// The last second in which it is valid. One that is not valid now opens a stream on which the
    /// host learns nothing before it has renewed it.
    pub not_after: UnixTime,
}

impl SessionPeer {
    fn is_valid_at(&self, now: UnixTime) -> bool {
        (self.not_before.as_secs()..=self.not_after.as_secs()).contains(&now.as_secs())
    }
}

impl Fleet {
    pub(crate) fn open_session(
        &mut self,
        session: SessionId,
        peer: &SessionPeer,
        observed: Option<IpAddr>,
        now: Now,
    ) {
        let host = match self.admitted(peer) {
            Ok(host) => host,
            Err(goodbye) if self.may_be_forgotten(peer, &goodbye) => {
                if !self.listen_to_stranger(session, peer.tls_key_hash, now) {
                    self.send(session, ToHost::Goodbye(goodbye));
                    self.output(Output::Close { session });
                }
                return;
            }
            Err(goodbye) => {
                // Who lost its map has to know the fleet's keys to believe what they signed.
                if goodbye.tombstone.is_some() {
                    self.send(
                        session,
                        ToHost::Welcome(self.welcome_of(observed, None, now)),
                    );
                }
                self.send(session, ToHost::Goodbye(goodbye));
                return self.output(Output::Close { session });
            }
        };
        if let Err(wait) = self
            .presences
            .entry(host)
            .streams
            .spend(STREAMS, now.monotonic)
        {
            self.send(session, ToHost::Goodbye(too_often(wait)));
            return self.output(Output::Close { session });
        }
        let turn = self
            .streams_turnstile
            .enter(self.config.streams, now.monotonic);
        if let Err(retry_after) = turn {
            self.send(session, ToHost::Goodbye(busy(retry_after)));
            return self.output(Output::Close { session });
        }
        if let Some(&older) = self.sessions.by_host.get(&host) {
            self.supersede(older, host, observed, now);
        }
        let monotonic = now.monotonic;
        let opened = Session {
            host,
            observed,
            opened: monotonic,
            last_heard: monotonic,
            must_renew: !peer.is_valid_at(now.unix) || self.is_called_otherwise(peer, host),
            progress: Progress::AwaitsHello,
        };
        self.sessions.insert(session, opened);
    }

    /// Ends the stream of a host that has opened a newer one, or whose twin has.
    fn supersede(&mut self, older: SessionId, host: HostId, newer: Option<IpAddr>, now: Now) {
        let loser = self.sessions.open.get(&older).and_then(|it| it.observed);
        let before = self.presences.entry(host).struggle;
        let struggle = Struggle::next(before, loser, newer, now.monotonic);
        self.presences.entry(host).struggle = struggle;
        let Some(struggle) = struggle.filter(Struggle::is_of_twins) else {
            let reason = "a newer stream of this host was opened";
            return self.dismiss(older, reason.to_owned(), now);
        };
        let known = self.state.hosts.get(&host).filter(|_| struggle.is_news());
        if let Some(notice) = known.map(|it| struggle.notice(it.record.name.as_str())) {
            self.notice(notice);
        }
        let goodbye = Goodbye {
            reason: struggle.reason(),
            retry_after: RETRY_AFTER_FAULT,
            tombstone: None,
        };
        self.end_session(older, goodbye, now);
    }

    /// Returns the member that a certificate is of. A certificate alone admits nobody: the record
    /// must name its key.
    fn admitted(&self, peer: &SessionPeer) -> Result<HostId, Goodbye> {
        let SpiffeId::Host { fleet, .. } = &peer.identity else {
            return Err(refused(
                "only hosts open streams; this is a coordinator's certificate",
            ));
        };
        if *fleet != self.state.statement.fleet_name {
            return Err(refused("the certificate is of another fleet"));
        }
        // By its key alone: a host that was renamed shows a certificate of its former name, which may
        // be another's by now.
        if let Some(host) = self.state.tls_keys.get(&peer.tls_key_hash) {
            return Ok(*host);
        }
        let gone = self.state.gone_tls_keys.get(&peer.tls_key_hash);
        if let Some(tombstone) = gone.and_then(|host| self.tombstone_of(*host)) {
            return Err(removed(tombstone));
        }
        Err(refused(
            "the certificate is not of a key that a host of this fleet has",
        ))
    }

    /// Returns whether a member shows a certificate of a name that is another's now.
    fn is_called_otherwise(&self, peer: &SessionPeer, host: HostId) -> bool {
        match &peer.identity {
            SpiffeId::Host { host: name, .. } => {
                let owner = self.state.host_named(name);
                owner.is_some_and(|owner| owner.record.host != host)
            }
            _ => false,
        }
    }

    /// Returns whether somebody who is refused has a certificate of this fleet, and a key that
    /// nobody is known to have had.
    fn may_be_forgotten(&self, peer: &SessionPeer, goodbye: &Goodbye) -> bool {
        let fleet_name = &self.state.statement.fleet_name;
        let is_host = matches!(&peer.identity, SpiffeId::Host { fleet, .. } if fleet == fleet_name);
        is_host && goodbye.tombstone.is_none()
    }

    /// Ends a stream; the host comes back soon.
    pub(crate) fn dismiss(&mut self, session: SessionId, reason: String, now: Now) {
        let goodbye = Goodbye {
            reason,
            retry_after: RETRY_AFTER,
            tombstone: None,
        };
        self.end_session(session, goodbye, now);
    }

    pub(crate) fn expel(&mut self, session: SessionId, fault: &str, now: Now) {
        if let Some(open) = self.sessions.open.get(&session) {
            let name = self
                .state
                .hosts
                .get(&open.host)
                .map(|host| host.record.name.to_string());
            let name = name.unwrap_or_else(|| open.host.to_string());
            self.notice(format!("{name} is sent away: {fault}"));
        }
        let reason = format!("this host is sent away: {fault}");
        let goodbye = Goodbye {
            reason,
            retry_after: RETRY_AFTER_FAULT,
            tombstone: None,
        };
        self.end_session(session, goodbye, now);
    }

    /// A host is no more: tells it, if it is there, and forgets what it reported.
    pub(crate) fn farewell_removed(&mut self, host: HostId, now: Now) {
        if let Some(&session) = self.sessions.by_host.get(&host) {
            let goodbye = match self.tombstone_of(host) {
                Some(tombstone) => removed(tombstone),
                None => refused("this host is no member of the fleet any more"),
            };
            self.end_session(session, goodbye, now);
        }
        self.presences.forget(host);
    }

    fn tombstone_of(&self, host: HostId) -> Option<Signed> {
        Some(self.state.tombstones.get(&host)?.signed.clone())
    }

    /// Sends a host away that wants too much of something, until it may have it again.
    pub(crate) fn put_off_for(
        &mut self,
        session: SessionId,
        reason: &str,
        wait: Duration,
        now: Now,
    ) {
        let goodbye = Goodbye {
            reason: reason.to_owned(),
            retry_after: wait.max(RETRY_AFTER),
            tombstone: None,
        };
        self.end_session(session, goodbye, now);
    }

    fn end_session(&mut self, session: SessionId, goodbye: Goodbye, now: Now) {
        if self.sessions.open.contains_key(&session) {
            self.send(session, ToHost::Goodbye(goodbye));
            self.output(Output::Close { session });
            self.forget_session(session, now);
        }
    }

    pub(crate) fn forget_session(&mut self, session: SessionId, now: Now) {
        self.forget_recall(session);
        let Some(closed) = self.sessions.remove(session) else {
            return;
        };
        if !self.sessions.is_online(closed.host) {
            self.host_went_offline(closed.host, now);
        }
    }

    pub(crate) fn expire_sessions(&mut self, now: Now) {
        if self.sessions.sweep_at.is_none_or(|due| due > now.monotonic) {
            return;
        }
        self.sessions.sweep_at = Some(now.monotonic + SWEEP_EVERY);
        for (session, reason) in self.sessions.overdue(now.monotonic) {
            self.dismiss(session, reason.to_owned(), now);
        }
    }
}

/// Many hosts come at once, as after a restart of the coordinator: to each its turn.
fn busy(retry_after: Duration) -> Goodbye {
    Goodbye {
        reason: format!(
            "many hosts come to this coordinator at once; it is this one's turn in {} s",
            retry_after.as_secs()
        ),
        retry_after,
        tombstone: None,
    }
}

/// One host comes again and again: it takes nobody's turn.
fn too_often(wait: Duration) -> Goodbye {
    Goodbye {
        reason:
            "this host opened many streams in a row; is its daemon restarting all the time, or \
                 its state copied to another machine?"
                .to_owned(),
        retry_after: wait.max(RETRY_AFTER),
        tombstone: None,
    }
}

fn refused(reason: &str) -> Goodbye {
    Goodbye {
        reason: reason.to_owned(),
        retry_after: RETRY_AFTER_FAULT,
        tombstone: None,
    }
}

fn removed(tombstone: Signed) -> Goodbye {
    Goodbye {
        reason: "this host was removed from the fleet; join anew to come back".to_owned(),
        retry_after: RETRY_AFTER_FAULT,
        tombstone: Some(tombstone),
    }
}
