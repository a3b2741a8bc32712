//! What is said on a host's stream, and what is answered.

use std::net::IpAddr;
use std::time::Duration;

use model::control::{Applied, FromHost, Hello, ToHost, Welcome};
use model::ids::{HostId, Revision};
use model::limits::Limits;
use model::map::MapDelta;
use model::memory::Memory;
use model::store::StoreRevision;
use model::time::Now;
use trust::enrolment::check_certificate_request;

use crate::allowance::Rate;
use crate::config::FleetLimits;
use crate::fleet::Fleet;
use crate::hints::OBSERVATIONS;
use crate::output::{Output, SessionId};
use crate::recovery::Hearsay;
use crate::sessions::Heard;

/// How many messages a host may send, on one stream or on many; one that sends more is sent away.
const MESSAGES: Rate = Rate {
    burst: FleetLimits::MESSAGES_BURST,
    pause: Duration::from_nanos(1_000_000_000 / FleetLimits::MESSAGES_PER_SEC),
};

/// How often a host may be told everything: it is large, and costs as much as the fleet has hosts.
const WHOLE_MAPS: Rate = Rate {
    burst: 8,
    pause: Duration::from_secs(10),
};

impl Fleet {
    pub(crate) fn hear(&mut self, session: SessionId, message: FromHost, now: Now) {
        if self.is_talkative(session, now) {
            return self.expel(session, "it sends too many messages", now);
        }
        let Some(message) = self.hear_recalled(session, message, now) else {
            return;
        };
        let Some(heard) = self.sessions.heard(session, now.monotonic) else {
            return;
        };
        let host = heard.host;
        self.presences.entry(host).last_seen = Some(now.unix);
        match (message, heard.has_greeted) {
            (FromHost::Hello(hello), false) => self.welcome(session, heard, hello, now),
            (FromHost::Hello(_), true) => self.expel(session, "it said hello twice", now),
            (_, false) => self.expel(session, "its first message was no hello", now),
            (FromHost::Ping(nonce), true) => self.send(session, ToHost::Pong(nonce)),
            // What is not known here yet must not be built upon: it can ask again once it is welcome.
            (_, true) if heard.is_recalled => {}
            (message, true) => self.hear_follower(session, host, message, now),
        }
    }

    /// As `hear`, of a part of what a host remembers; returns what has to be verified.
    pub(crate) fn hear_charged_memory(
        &mut self,
        session: SessionId,
        part: Memory,
        now: Now,
    ) -> Option<Hearsay> {
        if self.is_talkative(session, now) {
            self.expel(session, "it sends too many messages", now);
            return None;
        }
        self.hear_memory(session, part, now)
    }

    /// Returns whether a member sends more messages than it may.
    fn is_talkative(&mut self, session: SessionId, now: Now) -> bool {
        let Some(host) = self.sessions.host_of(session) else {
            return false;
        };
        let messages = &mut self.presences.entry(host).messages;
        messages.spend(MESSAGES, now.monotonic).is_err()
    }

    fn hear_follower(&mut self, session: SessionId, host: HostId, message: FromHost, now: Now) {
        let overlay = self.state.statement.overlay;
        match message {
            FromHost::Hello(_) => unreachable!("a second hello was sent away"),
            FromHost::Endpoints(report) => {
                if report.endpoints.len() > Limits::ENDPOINTS_PER_HOST {
                    return self.expel(session, "it reports too many endpoints", now);
                }
                if self.presences.report(host, report, &overlay) {
                    self.note_hint(host, now);
                }
            }
            FromHost::Observation { peer, address } => {
                let allowance = &mut self.presences.entry(host).observations;
                let is_allowed = allowance.spend(OBSERVATIONS, now.monotonic).is_ok();
                let is_heard = is_allowed && self.state.interest.connects(host, peer);
                if is_heard
                    && self
                        .presences
                        .observe_by_peer(peer, host, address, &overlay)
                {
                    self.note_hint(peer, now);
                }
            }
            FromHost::Applied(applied) => self.hear_applied(session, host, applied, now),
            FromHost::Renew(request) => self.renew(session, host, &request, now),
            FromHost::Explanation(explanation) => self.hear_explanation(host, explanation, now),
            FromHost::Leave => self.accept_leave(session, host, now),
            FromHost::NewKey(new) => self.accept_new_key(session, host, new, now),
            FromHost::Ping(_) => unreachable!("a ping was answered"),
            FromHost::Memory(_) => self.expel(session, "it tells what nobody asked", now),
        }
    }

    fn welcome(&mut self, session: SessionId, heard: Heard, hello: Hello, now: Now) {
        if hello.features.len() > FleetLimits::FEATURES_PER_HOST {
            return self.expel(session, "it names too many features", now);
        }
        if self.wants_recall(heard.host, &hello) {
            return self.recall(session, heard.host, hello, now);
        }
        if self.is_recovering() {
            return self.put_off(session, heard.host, now);
        }
        self.welcome_known(session, heard.host, hello, now);
    }

    /// Welcomes a host that needs not be asked what it remembers, or has told it.
    pub(crate) fn welcome_known(
        &mut self,
        session: SessionId,
        host: HostId,
        hello: Hello,
        now: Now,
    ) {
        let observed = self.sessions.observed(session);
        let held = hello.trust.map(|held| (held.epoch, held.serial));
        self.note_held(host, hello.trust, now);
        self.send(
            session,
            ToHost::Welcome(self.welcome_of(observed, held, now)),
        );
        if self.sessions.may_follow(session, hello.have) {
            self.catch_up(session, host, hello.have, now);
        }
        self.presences.entry(host).software_version = Some(clipped(hello.software_version));
        self.note_ciphers(host, &hello.features, now);
        self.note_features(host, hello.features);
        let overlay = self.state.statement.overlay;
        if self.presences.observe(host, observed, &overlay) {
            self.note_hint(host, now);
        }
    }

    pub(crate) fn welcome_of(
        &self,
        observed: Option<IpAddr>,
        held: Option<(u64, u64)>,
        now: Now,
    ) -> Welcome {
        Welcome {
            earlier: self.earlier_statements(held),
            trust: self.state.trust.clone(),
            observed,
            software_version: self.config.software_version.clone(),
            unix: now.unix,
        }
    }

    /// Tells a host that says what it has all that is new to it.
    fn catch_up(&mut self, session: SessionId, host: HostId, have: Option<Revision>, now: Now) {
        let Some(me) = self.state.hosts.get(&host) else {
            return;
        };
        let known = have.and_then(|have| self.known_up_to(have));
        let news = known.and_then(|known| Some((known, self.news_since(known, me)?)));
        if let Some((known, news)) = news {
            self.sessions
                .resume(session, known, news, self.hints.last());
            self.tell(session, now);
            return;
        }
        let knew = have.map(|_| known.unwrap_or(StoreRevision::ZERO));
        self.tell_whole_map(session, host, knew, now);
    }

    fn tell_whole_map(
        &mut self,
        session: SessionId,
        host: HostId,
        knew: Option<StoreRevision>,
        now: Now,
    ) {
        let allowance = &mut self.presences.entry(host).whole_maps;
        if let Err(wait) = allowance.spend(WHOLE_MAPS, now.monotonic) {
            // It was told a moment ago, and could not use it or forgot it.
            let reason = "this host was told everything several times in a row";
            return self.put_off_for(session, reason, wait, now);
        }
        let Some(me) = self.state.hosts.get(&host) else {
            return;
        };
        let mut map = self.whole_map(me, knew);
        map.head = Some(self.map_head());
        let (revision, hinted) = (self.state.revision, self.hints.last());
        self.sessions.start_anew(session, revision, hinted);
        self.send_map(session, map, now);
    }

    /// Notes what is in force on a host. One that cannot apply a change gets a whole map, once.
    fn hear_applied(&mut self, session: SessionId, host: HostId, applied: Applied, now: Now) {
        let failed = applied.error.is_some();
        self.note_held(host, applied.trust, now);
        let applied = Applied {
            error: applied.error.map(clipped),
            trouble: applied.trouble.map(clipped),
            ..applied
        };
        self.presences.entry(host).applied = Some(applied);
        if !failed {
            self.sessions.applied(session);
        } else if self.sessions.failed_to_apply(session) {
            self.tell_whole_map(session, host, Some(StoreRevision::ZERO), now);
        }
    }

    fn renew(&mut self, session: SessionId, host: HostId, request: &[u8], now: Now) {
        let Some(me) = self.state.hosts.get(&host) else {
            return;
        };
        let (name, tls_key_hash) = (me.record.name.clone(), me.record.tls_key_hash);
        let answer = match check_certificate_request(request) {
            Err(error) => Err(error.to_string()),
            Ok(csr) if csr.tls_key_hash != tls_key_hash => Err(
                "the request is for another key than the host's record names; join anew to \
                     change keys"
                    .to_owned(),
            ),
            Ok(_) => self.issue_certificate(&name, request, now),
        };
        let is_granted = answer.is_ok();
        self.send(session, ToHost::Certificate(answer));
        if !is_granted {
            return;
        }
        if let Some(have) = self.sessions.renewed(session) {
            self.catch_up(session, host, have, now);
        }
    }

    pub(crate) fn send(&mut self, session: SessionId, message: ToHost) {
        self.output(Output::Send { session, message });
    }

    /// Sends a map, unless it has grown over what a message may hold.
    pub(crate) fn send_map(&mut self, session: SessionId, delta: MapDelta, now: Now) {
        if delta.peers.len() > Limits::HOSTS {
            return self.expel(session, "its map is too large for a message", now);
        }
        self.send(session, ToHost::Map(delta));
    }
}

fn clipped(text: String) -> String {
    match text.char_indices().nth(Limits::TEXT_CHARS) {
        Some((end, _)) => text[..end].to_owned(),
        None => text,
    }
}
