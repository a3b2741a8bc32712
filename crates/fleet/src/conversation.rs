//! What is said on a host's stream, and what is answered.

use model::control::{Applied, FromHost, Hello, ToHost, Welcome};
use model::ids::{HostId, Revision};
use model::limits::Limits;
use model::map::MapDelta;
use model::store::StoreRevision;
use model::time::Now;
use trust::enrolment::check_certificate_request;

use crate::config::FleetLimits;
use crate::fleet::Fleet;
use crate::output::{Output, SessionId};
use crate::sessions::Heard;

impl Fleet {
    pub(crate) fn hear(&mut self, session: SessionId, message: FromHost, now: Now) {
        let Some(heard) = self.sessions.heard(session, now.monotonic) else {
            return;
        };
        let host = heard.host;
        if !heard.within_budget {
            return self.expel(session, "it sends too many messages", now);
        }
        self.presences.entry(host).last_seen = Some(now.unix);
        match (message, heard.follows) {
            (FromHost::Hello(hello), false) => self.welcome(session, heard, hello, now),
            (FromHost::Hello(_), true) => self.expel(session, "it said hello twice", now),
            (_, false) => self.expel(session, "its first message was no hello", now),
            (message, true) => self.hear_follower(session, host, message, now),
        }
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
                let is_peer = self.state.interest.connects(host, peer);
                if is_peer && self.presences.observe_by_peer(peer, address, &overlay) {
                    self.note_hint(peer, now);
                }
            }
            FromHost::Applied(applied) => self.hear_applied(session, host, applied, now),
            FromHost::Renew(request) => self.renew(session, host, &request, now),
            FromHost::Explanation(explanation) => self.hear_explanation(host, explanation, now),
            FromHost::Leave => self.accept_leave(session, host, now),
            FromHost::Ping(nonce) => self.send(session, ToHost::Pong(nonce)),
        }
    }

    fn welcome(&mut self, session: SessionId, heard: Heard, hello: Hello, now: Now) {
        if hello.features.len() > FleetLimits::FEATURES_PER_HOST {
            return self.expel(session, "it names too many features", now);
        }
        let (host, observed) = (heard.host, heard.observed);
        let welcome = Welcome {
            trust: self.state.trust.clone(),
            observed,
            software_version: self.config.software_version.clone(),
            unix: now.unix,
        };
        self.send(session, ToHost::Welcome(welcome));
        self.catch_up(session, host, hello.have, now);
        self.presences.entry(host).software_version = Some(clipped(hello.software_version));
        let overlay = self.state.statement.overlay;
        if self.presences.observe(host, observed, &overlay) {
            self.note_hint(host, now);
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
            self.sessions.resume(session, known, news);
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
        let Some(me) = self.state.hosts.get(&host) else {
            return;
        };
        let map = self.whole_map(me, knew);
        self.sessions.start_anew(session, self.state.revision);
        self.send_map(session, map, now);
    }

    /// Notes what is in force on a host. One that cannot apply a change gets a whole map, once.
    fn hear_applied(&mut self, session: SessionId, host: HostId, applied: Applied, now: Now) {
        let failed = applied.error.is_some();
        let applied = Applied {
            error: applied.error.map(clipped),
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
        self.send(session, ToHost::Certificate(answer));
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
