//! The hosts' streams: who may open one, and when it ends. A host has one stream; a newer one closes
//! the older. What is said on them is `conversation`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use model::control::{Goodbye, ToHost};
use model::identity::SpiffeId;
use model::ids::{Digest, HostId, Revision};
use model::record::Signed;
use model::store::StoreRevision;
use model::time::{Instant, Now, UnixTime};

use crate::allowance::Rate;
use crate::fleet::Fleet;
use crate::news::News;
use crate::output::{Output, SessionId};
use crate::twins::Struggle;

/// How long a host may be silent; hosts send a ping every 20 seconds.
const SILENCE_MAX: Duration = Duration::from_secs(70);

/// How long a host may take to say hello.
const HELLO_WITHIN: Duration = Duration::from_secs(15);

/// How long a host may take to renew a certificate that is not valid now; it asks again after a minute
/// or more when it was refused.
const RENEWAL_WITHIN: Duration = Duration::from_secs(300);

/// How often silent streams are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

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

/// All open streams.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: BTreeMap<SessionId, Session>,
    by_host: BTreeMap<HostId, SessionId>,
    /// Those with something to tell.
    with_news: BTreeSet<SessionId>,
    sweep_at: Option<Instant>,
}

#[derive(Debug)]
struct Session {
    host: HostId,
    observed: Option<IpAddr>,
    opened: Instant,
    last_heard: Instant,
    must_renew: bool,
    progress: Progress,
}

/// What is known of a stream on which something was said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    pub(crate) host: HostId,
    /// It has said hello.
    pub(crate) has_greeted: bool,
    /// It is asked what it remembers, and is not welcome before it has told.
    pub(crate) is_recalled: bool,
}

#[derive(Debug)]
enum Progress {
    AwaitsHello,
    /// It said hello and is asked what it remembers, for as long as `recovery` gives it.
    Recalled,
    /// It said hello with a certificate that is not valid now, and what it has.
    MustRenew(Option<Revision>),
    Follows {
        /// The revision that the host has when it applies everything sent so far.
        told: StoreRevision,
        news: News,
        /// It was told this hint and all before it with its first map.
        hinted: u64,
        /// It was sent a whole map, and has not failed to apply one since it last succeeded.
        has_whole_map: bool,
    },
}

impl Sessions {
    pub(crate) fn online(&self) -> usize {
        self.by_host.len()
    }

    /// Returns how many streams are open, also of those who are not let in.
    pub(crate) fn count(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn host_of(&self, session: SessionId) -> Option<HostId> {
        Some(self.open.get(&session)?.host)
    }

    pub(crate) fn has(&self, session: SessionId) -> bool {
        self.open.contains_key(&session)
    }

    pub(crate) fn all(&self) -> Vec<SessionId> {
        self.open.keys().copied().collect()
    }

    pub(crate) fn is_online(&self, host: HostId) -> bool {
        self.by_host.contains_key(&host)
    }

    /// Returns the stream of a host that has said hello.
    pub(crate) fn of_host(&self, host: HostId) -> Option<SessionId> {
        let session = *self.by_host.get(&host)?;
        self.open.get(&session)?.follows().then_some(session)
    }

    /// Returns where the host of a stream is seen.
    pub(crate) fn observed(&self, session: SessionId) -> Option<IpAddr> {
        self.open.get(&session)?.observed
    }

    /// Returns the hosts that have said hello.
    pub(crate) fn followers(&self) -> Vec<HostId> {
        let followers = self.open.values().filter(|it| it.follows());
        followers.map(|it| it.host).collect()
    }

    /// Returns a stream with something to tell.
    pub(crate) fn first_with_news(&self) -> Option<SessionId> {
        self.with_news.first().copied()
    }

    pub(crate) fn have_news(&self) -> bool {
        !self.with_news.is_empty()
    }

    /// Returns what a host that has said hello does not know yet, for more to be noted.
    pub(crate) fn news_for(&mut self, host: HostId) -> Option<&mut News> {
        let id = self.by_host.get(&host)?;
        match &mut self.open.get_mut(id)?.progress {
            Progress::Follows { news, .. } => {
                self.with_news.insert(*id);
                Some(news)
            }
            Progress::AwaitsHello | Progress::Recalled | Progress::MustRenew(_) => None,
        }
    }

    /// As `news_for`, if the host was not told a hint with its first map.
    pub(crate) fn news_for_hint(&mut self, host: HostId, hint: u64) -> Option<&mut News> {
        let id = self.by_host.get(&host)?;
        match &self.open.get(id)?.progress {
            Progress::Follows { hinted, .. } if *hinted < hint => self.news_for(host),
            _ => None,
        }
    }

    /// Takes what the host of a stream does not know yet, and the revision that it was told last.
    pub(crate) fn take_news(
        &mut self,
        session: SessionId,
    ) -> Option<(HostId, StoreRevision, News)> {
        self.with_news.remove(&session);
        let session = self.open.get_mut(&session)?;
        match &mut session.progress {
            Progress::Follows { told, news, .. } => {
                Some((session.host, *told, std::mem::take(news)))
            }
            Progress::AwaitsHello | Progress::Recalled | Progress::MustRenew(_) => None,
        }
    }

    pub(crate) fn set_told(&mut self, session: SessionId, now_told: StoreRevision) {
        if let Some(Session {
            progress: Progress::Follows { told, .. },
            ..
        }) = self.open.get_mut(&session)
        {
            *told = now_told;
        }
    }

    /// Notes that something was said.
    pub(crate) fn heard(&mut self, session: SessionId, now: Instant) -> Option<Heard> {
        let session = self.open.get_mut(&session)?;
        session.last_heard = now;
        Some(Heard {
            host: session.host,
            has_greeted: !matches!(session.progress, Progress::AwaitsHello),
            is_recalled: matches!(session.progress, Progress::Recalled),
        })
    }

    /// Notes that a host that said hello is asked first what it remembers.
    pub(crate) fn recalled(&mut self, session: SessionId) {
        if let Some(session) = self.open.get_mut(&session) {
            session.progress = Progress::Recalled;
        }
    }

    /// Notes what a host has that says hello. Returns whether it may be told more: not before it has
    /// renewed a certificate that is not valid now.
    pub(crate) fn may_follow(&mut self, session: SessionId, have: Option<Revision>) -> bool {
        let Some(session) = self.open.get_mut(&session) else {
            return false;
        };
        if session.must_renew {
            session.progress = Progress::MustRenew(have);
        }
        !session.must_renew
    }

    /// Notes that a host has a certificate that is valid. Returns what it has, when it was kept
    /// from following until now.
    pub(crate) fn renewed(&mut self, session: SessionId) -> Option<Option<Revision>> {
        let session = self.open.get_mut(&session)?;
        session.must_renew = false;
        match session.progress {
            Progress::MustRenew(have) => Some(have),
            Progress::AwaitsHello | Progress::Recalled | Progress::Follows { .. } => None,
        }
    }

    /// Notes that the host goes on from a revision, and what is new to it.
    pub(crate) fn resume(
        &mut self,
        session: SessionId,
        told: StoreRevision,
        news: News,
        hinted: u64,
    ) {
        self.follow(session, (told, hinted), news, false);
    }

    /// Notes that the host was sent everything up to a revision.
    pub(crate) fn start_anew(&mut self, session: SessionId, told: StoreRevision, hinted: u64) {
        self.follow(session, (told, hinted), News::default(), true);
    }

    fn follow(
        &mut self,
        id: SessionId,
        (told, hinted): (StoreRevision, u64),
        news: News,
        has_whole_map: bool,
    ) {
        self.with_news.remove(&id);
        if let Some(session) = self.open.get_mut(&id) {
            session.progress = Progress::Follows {
                told,
                news,
                hinted,
                has_whole_map,
            };
        }
    }

    /// Notes that the host could apply its last map.
    pub(crate) fn applied(&mut self, session: SessionId) {
        if let Some(Session {
            progress: Progress::Follows { has_whole_map, .. },
            ..
        }) = self.open.get_mut(&session)
        {
            *has_whole_map = false;
        }
    }

    /// Notes that the host could not apply its last map; returns whether a whole one may help.
    pub(crate) fn failed_to_apply(&mut self, session: SessionId) -> bool {
        match self.open.get_mut(&session) {
            Some(Session {
                progress: Progress::Follows { has_whole_map, .. },
                ..
            }) => !std::mem::replace(has_whole_map, true),
            _ => false,
        }
    }

    /// Returns when silent streams have to be looked for.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.sweep_at
    }

    fn insert(&mut self, id: SessionId, session: Session) {
        self.sweep_at.get_or_insert(session.opened + SWEEP_EVERY);
        self.by_host.insert(session.host, id);
        self.open.insert(id, session);
    }

    fn remove(&mut self, id: SessionId) -> Option<Session> {
        let session = self.open.remove(&id)?;
        self.with_news.remove(&id);
        if self.by_host.get(&session.host) == Some(&id) {
            self.by_host.remove(&session.host);
        }
        if self.open.is_empty() {
            self.sweep_at = None;
        }
        Some(session)
    }

    fn overdue(&self, now: Instant) -> Vec<(SessionId, &'static str)> {
        let reason = |it: &Session| match it.progress {
            Progress::AwaitsHello if it.opened + HELLO_WITHIN <= now => Some("no hello came"),
            Progress::MustRenew(_) if it.opened + RENEWAL_WITHIN <= now => {
                Some("its certificate is not valid now and was not renewed")
            }
            Progress::Follows { .. } | Progress::MustRenew(_)
                if it.last_heard + SILENCE_MAX <= now =>
            {
                Some("nothing was heard for too long")
            }
            _ => None,
        };
        self.open
            .iter()
            .filter_map(|(id, it)| reason(it).map(|why| (*id, why)))
            .collect()
    }
}

impl Session {
    fn follows(&self) -> bool {
        matches!(self.progress, Progress::Follows { .. })
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
