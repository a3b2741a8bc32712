//! The hosts' open streams: what each host is told next, and which are silent for too long. A host has
//! one stream. Who may open one is `admission`'s, what is said on them `conversation`'s.

mod admission;

pub use admission::SessionPeer;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use model::ids::{HostId, Revision};
use model::store::StoreRevision;
use model::time::Instant;

use crate::news::News;
use crate::output::SessionId;

/// How long a host may be silent; hosts send a ping every 20 seconds.
const SILENCE_MAX: Duration = Duration::from_secs(70);

/// How long a host may take to say hello.
const HELLO_WITHIN: Duration = Duration::from_secs(15);

/// How long a host may take to renew a certificate that is not valid now; it asks again after a minute
/// or more when it was refused.
const RENEWAL_WITHIN: Duration = Duration::from_secs(300);

/// How often silent streams are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

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
