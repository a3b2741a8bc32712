//! The hosts' streams: who may open one, and when it ends. A host has one stream; a newer one closes
//! the older. What is said on them is `conversation`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use model::control::{Goodbye, ToHost};
use model::identity::SpiffeId;
use model::ids::{Digest, HostId};
use model::store::StoreRevision;
use model::time::{Instant, Now};

use crate::config::FleetLimits;
use crate::fleet::Fleet;
use crate::news::News;
use crate::output::{Output, SessionId};
use crate::twins::Struggle;

/// How long a host may be silent; hosts send a ping every 20 seconds.
const SILENCE_MAX: Duration = Duration::from_secs(70);

/// How long a host may take to say hello.
const HELLO_WITHIN: Duration = Duration::from_secs(15);

/// How often silent streams are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// When a host that is sent away may come back, before its jitter.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// When a host that broke the rules may come back.
const RETRY_AFTER_FAULT: Duration = Duration::from_secs(60);

/// What a host's certificate proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionPeer {
    /// Its identity.
    pub identity: SpiffeId,
    /// SHA-256 of the SubjectPublicKeyInfo of its TLS key.
    pub tls_key_hash: Digest,
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
    progress: Progress,
    budget: Budget,
}

/// What is known of a stream on which something was said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    pub(crate) host: HostId,
    pub(crate) observed: Option<IpAddr>,
    /// It has said hello.
    pub(crate) follows: bool,
    /// It may say this much.
    pub(crate) within_budget: bool,
}

#[derive(Debug)]
enum Progress {
    AwaitsHello,
    Follows {
        /// The revision that the host has when it applies everything sent so far.
        told: StoreRevision,
        news: News,
        /// It was sent a whole map, and has not failed to apply one since it last succeeded.
        has_whole_map: bool,
    },
}

impl Sessions {
    pub(crate) fn online(&self) -> usize {
        self.by_host.len()
    }

    pub(crate) fn is_online(&self, host: HostId) -> bool {
        self.by_host.contains_key(&host)
    }

    /// Returns the stream of a host that has said hello.
    pub(crate) fn of_host(&self, host: HostId) -> Option<SessionId> {
        let session = *self.by_host.get(&host)?;
        self.open.get(&session)?.follows().then_some(session)
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
            Progress::AwaitsHello => None,
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
            Progress::AwaitsHello => None,
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
            observed: session.observed,
            follows: session.follows(),
            within_budget: session.budget.spend(now),
        })
    }

    /// Notes that the host goes on from a revision, and what is new to it.
    pub(crate) fn resume(&mut self, session: SessionId, told: StoreRevision, news: News) {
        self.follow(session, told, news, false);
    }

    /// Notes that the host was sent everything up to a revision.
    pub(crate) fn start_anew(&mut self, session: SessionId, told: StoreRevision) {
        self.follow(session, told, News::default(), true);
    }

    fn follow(&mut self, id: SessionId, told: StoreRevision, news: News, has_whole_map: bool) {
        self.with_news.remove(&id);
        if let Some(session) = self.open.get_mut(&id) {
            session.progress = Progress::Follows {
                told,
                news,
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
            Progress::Follows { .. } if it.last_heard + SILENCE_MAX <= now => {
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
            Err(goodbye) => {
                self.send(session, ToHost::Goodbye(goodbye));
                return self.output(Output::Close { session });
            }
        };
        if let Some(&older) = self.sessions.by_host.get(&host) {
            self.supersede(older, host, observed, now);
        }
        let monotonic = now.monotonic;
        let opened = Session {
            host,
            observed,
            opened: monotonic,
            last_heard: monotonic,
            progress: Progress::AwaitsHello,
            budget: Budget::full(monotonic),
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
            removed: false,
        };
        self.end_session(older, goodbye, now);
    }

    /// Returns the member that a certificate is of. A certificate alone admits nobody: the record
    /// must name its key.
    fn admitted(&self, peer: &SessionPeer) -> Result<HostId, Goodbye> {
        let SpiffeId::Host { fleet, host: name } = &peer.identity else {
            return Err(refused(
                "only hosts open streams; this is a coordinator's certificate",
            ));
        };
        if *fleet != self.state.statement.fleet_name {
            return Err(refused("the certificate is of another fleet"));
        }
        let host = self.state.host_named(name);
        if let Some(host) = host.filter(|it| it.record.tls_key_hash == peer.tls_key_hash) {
            return Ok(host.record.host);
        }
        if self.state.gone_tls_keys.contains_key(&peer.tls_key_hash) {
            return Err(removed());
        }
        Err(refused(
            "the certificate is not of a key that a host of this fleet has",
        ))
    }

    /// Ends a stream; the host comes back soon.
    pub(crate) fn dismiss(&mut self, session: SessionId, reason: String, now: Now) {
        let goodbye = Goodbye {
            reason,
            retry_after: RETRY_AFTER,
            removed: false,
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
            removed: false,
        };
        self.end_session(session, goodbye, now);
    }

    /// A host is no more: tells it, if it is there, and forgets what it reported.
    pub(crate) fn farewell_removed(&mut self, host: HostId, now: Now) {
        if let Some(&session) = self.sessions.by_host.get(&host) {
            self.end_session(session, removed(), now);
        }
        self.presences.forget(host);
    }

    fn end_session(&mut self, session: SessionId, goodbye: Goodbye, now: Now) {
        if self.sessions.open.contains_key(&session) {
            self.send(session, ToHost::Goodbye(goodbye));
            self.output(Output::Close { session });
            self.forget_session(session, now);
        }
    }

    pub(crate) fn forget_session(&mut self, session: SessionId, now: Now) {
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

fn refused(reason: &str) -> Goodbye {
    Goodbye {
        reason: reason.to_owned(),
        retry_after: RETRY_AFTER_FAULT,
        removed: false,
    }
}

fn removed() -> Goodbye {
    Goodbye {
        reason: "this host was removed from the fleet; join anew to come back".to_owned(),
        retry_after: RETRY_AFTER_FAULT,
        removed: true,
    }
}

/// How many messages a session may still send now.
#[derive(Debug)]
struct Budget {
    messages: u32,
    since: Instant,
}

impl Budget {
    fn full(now: Instant) -> Self {
        Self {
            messages: FleetLimits::SESSION_MESSAGES_BURST,
            since: now,
        }
    }

    fn spend(&mut self, now: Instant) -> bool {
        let regained = now.saturating_since(self.since).as_secs();
        if regained > 0 {
            let regained = u32::try_from(regained)
                .unwrap_or(u32::MAX)
                .saturating_mul(FleetLimits::SESSION_MESSAGES_PER_SEC);
            let messages = self.messages.saturating_add(regained);
            self.messages = messages.min(FleetLimits::SESSION_MESSAGES_BURST);
            self.since = now;
        }
        let may = self.messages > 0;
        self.messages = self.messages.saturating_sub(1);
        may
    }
}
