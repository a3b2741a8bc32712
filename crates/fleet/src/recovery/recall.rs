//! Streams on which a host is asked what it remembers, before it is welcomed: members while the
//! coordinator recovers, members that were away since before the epoch, and strangers that show a
//! certificate of this fleet and may have joined after the backup was made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::admin::Role;
use model::control::{FromHost, Goodbye, Hello, ToHost};
use model::ids::{Digest, HostId, PolicyVersion};
use model::memory::Memory;
use model::record::HostRecord;
use model::time::{Instant, Now};

use super::{Hearsay, Testimony};
use crate::allowance::{Allowance, Rate};
use crate::fleet::Fleet;
use crate::output::{Output, SessionId};
use crate::request::{AdminRequest, Caller};
use crate::work::{Origin, Work};

/// What a host says that it can do when it can be asked.
pub(crate) const FEATURE: &str = "recall";

/// Strangers that are listened to at one time; one more has to come again.
const STRANGERS_MAX: usize = 1024;
/// How long a host may take to tell everything.
const TOLD_WITHIN: Duration = Duration::from_secs(60);
/// Messages in which it may tell it: more than the largest map fills.
const PARTS_MAX: usize = 4096;
/// How often one host is asked, one that this store does not know too.
const RECALLS: Rate = Rate {
    burst: 4,
    pause: Duration::from_secs(60),
};
/// When a host that told everything may come back, before its jitter.
const BACK_AFTER: Duration = Duration::from_secs(3);
/// When a stranger may that told nothing which makes it a member.
const BACK_AFTER_NOTHING: Duration = Duration::from_secs(60);

/// The hosts that are asked.
#[derive(Debug, Default)]
pub(crate) struct Recalls {
    open: BTreeMap<SessionId, Recall>,
    /// They were asked in this epoch.
    asked: BTreeSet<HostId>,
    /// What strangers used up of being asked, by their keys.
    of_keys: BTreeMap<Digest, Allowance>,
}

#[derive(Debug)]
struct Recall {
    who: Who,
    until: Instant,
    /// Messages that it told.
    parts: usize,
    /// What it told proves that this store is behind.
    proof: Option<String>,
}

#[derive(Debug)]
enum Who {
    Member { host: HostId, hello: Hello },
    Stranger { tls_key_hash: Digest },
}

impl Recalls {
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.open.values().map(|recall| recall.until).min()
    }

    /// Returns whether a stranger may be asked now; those that are remembered for it are few.
    fn may_be_asked(&mut self, tls_key_hash: Digest, now: Instant) -> bool {
        let is_known = self.of_keys.contains_key(&tls_key_hash);
        if !is_known && self.of_keys.len() >= STRANGERS_MAX {
            self.of_keys.retain(|_, spent| !spent.is_regained(now));
        }
        if !is_known && self.of_keys.len() >= STRANGERS_MAX {
            return false;
        }
        let allowance = self.of_keys.entry(tls_key_hash).or_default();
        allowance.spend(RECALLS, now).is_ok()
    }

    fn strangers(&self) -> usize {
        let is_stranger = |recall: &&Recall| matches!(recall.who, Who::Stranger { .. });
        self.open.values().filter(is_stranger).count()
    }
}

impl Fleet {
    /// Returns whether a member has to be asked before it is welcomed: by what it says that it has,
    /// it may know something that is not known here.
    pub(crate) fn wants_recall(&self, host: HostId, hello: &Hello) -> bool {
        let can_tell = hello.features.iter().any(|feature| feature == FEATURE);
        if self.is_recovering() {
            return can_tell && !self.recovery.heard.contains(&host);
        }
        let here = self.state.map_revision(self.state.revision);
        let is_other = hello
            .have
            .is_some_and(|have| have > here || have.epoch < here.epoch);
        can_tell && is_other && !self.recovery.recalls.asked.contains(&host)
    }

    /// Sends a member away that has told what it remembers, or cannot, while others are asked.
    pub(crate) fn put_off(&mut self, session: SessionId, host: HostId, now: Now) {
        self.recovery.heard.insert(host);
        let reason = "the coordinator was restored and still asks other hosts what they remember; \
                      come back soon";
        self.dismiss(session, reason.to_owned(), now);
        self.tend_recovery(now);
    }

    /// Asks a member.
    pub(crate) fn recall(&mut self, session: SessionId, host: HostId, hello: Hello, now: Now) {
        let allowance = &mut self.presences.entry(host).recalls;
        if let Err(wait) = allowance.spend(RECALLS, now.monotonic) {
            let reason = "this host was asked several times in a row what it remembers";
            return self.put_off_for(session, reason, wait, now);
        }
        self.sessions.recalled(session);
        self.start_recall(session, Who::Member { host, hello }, now);
        self.send(session, ToHost::Recall);
    }

    /// Listens to a stranger, if that may be a member of whom this store knows nothing.
    pub(crate) fn listen_to_stranger(
        &mut self,
        session: SessionId,
        tls_key_hash: Digest,
        now: Now,
    ) -> bool {
        let was_restored = self.is_recovering() || self.state.epoch_began.is_some();
        let recalls = &mut self.recovery.recalls;
        let listens = was_restored
            && recalls.strangers() < STRANGERS_MAX
            && recalls.may_be_asked(tls_key_hash, now.monotonic);
        if listens {
            self.start_recall(session, Who::Stranger { tls_key_hash }, now);
        }
        listens
    }

    fn start_recall(&mut self, session: SessionId, who: Who, now: Now) {
        let recall = Recall {
            who,
            until: now.monotonic + TOLD_WITHIN,
            parts: 0,
            proof: None,
        };
        self.recovery.recalls.open.insert(session, recall);
    }

    pub(crate) fn forget_recall(&mut self, session: SessionId) {
        self.recovery.recalls.open.remove(&session);
    }

    /// Takes what is said on a stream that is asked. Returns what is not about that.
    pub(crate) fn hear_recalled(
        &mut self,
        session: SessionId,
        message: FromHost,
        now: Now,
    ) -> Option<FromHost> {
        let Some(recall) = self.recovery.recalls.open.get(&session) else {
            return Some(message);
        };
        let is_stranger = matches!(recall.who, Who::Stranger { .. });
        match message {
            FromHost::Memory(part) => {
                if let Some(hearsay) = self.hear_memory(session, *part, now) {
                    self.hear_testimony(session, hearsay.verify(), now);
                }
            }
            FromHost::Hello(_) if is_stranger => self.send(session, ToHost::Recall),
            other if !is_stranger => return Some(other),
            _ => {}
        }
        None
    }

    /// Takes a part of what a host remembers. Returns what has to be verified of it; `None`: the
    /// stream has ended.
    pub(crate) fn hear_memory(
        &mut self,
        session: SessionId,
        part: Memory,
        now: Now,
    ) -> Option<Hearsay> {
        let Some(recall) = self.recovery.recalls.open.get_mut(&session) else {
            self.expel(session, "it tells what nobody asked", now);
            return None;
        };
        recall.parts += 1;
        if recall.parts > PARTS_MAX {
            self.send_away(session, "it remembers more than any fleet has", now);
            return None;
        }
        self.sessions.heard(session, now.monotonic);
        Some(self.sift(part))
    }

    /// Takes up what holds of a part.
    pub(crate) fn hear_testimony(&mut self, session: SessionId, told: Testimony, now: Now) {
        if !self.recovery.recalls.open.contains_key(&session) {
            return;
        }
        if !Arc::ptr_eq(&told.anchors, &self.state.anchors) {
            let reason = "the keys of the fleet changed while it told what it remembers";
            return self.send_away(session, reason, now);
        }
        let own = match self.check_own(session, &told) {
            Ok(own) => own,
            Err(why) => return self.send_away(session, &why, now),
        };
        let is_last = told.last;
        let proof = self.note_testimony(told);
        if let Some(recall) = self.recovery.recalls.open.get_mut(&session) {
            recall.proof = recall.proof.take().or(proof);
        }
        if is_last {
            self.end_recall(session, &own, now);
        }
    }

    /// A host tells its own memory, and shows by its record who it is.
    fn check_own(&self, session: SessionId, told: &Testimony) -> Result<HostRecord, String> {
        let record = told.own.clone()?;
        let recall = &self.recovery.recalls.open[&session];
        let is_own = match &recall.who {
            Who::Member { host, .. } => record.host == *host,
            Who::Stranger { tls_key_hash } => record.tls_key_hash == *tls_key_hash,
        };
        match is_own {
            true => Ok(record),
            false => Err("it tells what another host remembers".to_owned()),
        }
    }

    /// Keeps everything that is newer than what is stored. Returns a proof that this store is
    /// behind, when there is one: something of this epoch, or of a later one, that was signed after
    /// the last change that is known here.
    fn note_testimony(&mut self, told: Testimony) -> Option<String> {
        let here = self.state.map_revision(self.state.revision);
        let mut proof = None;
        for remembered in told.remembered {
            let revision = remembered.revision();
            self.recovery.newest_epoch = self.recovery.newest_epoch.max(revision.epoch);
            if revision > here {
                let host = remembered.host();
                proof.get_or_insert(format!("host {host} was changed at revision {revision}"));
            }
            self.recovery.put(remembered);
        }
        if let Some(later) = told.trust {
            let (epoch, serial) = (later.statement.epoch, later.statement.serial);
            self.recovery.newest_epoch = self.recovery.newest_epoch.max(epoch);
            proof.get_or_insert(format!("the trust statement was {epoch}.{serial}"));
            self.note_later_statement(*later);
        }
        let stored = self.stored_policy();
        if let Some(policy) = told.policy
            && self.recovery.policy.note(policy, stored)
        {
            let version = self.recovery.policy.version().unwrap_or_default();
            proof.get_or_insert(format!("policy version {version} was in force"));
        }
        proof
    }

    /// Returns epoch and number of the policy that is stored.
    pub(super) fn stored_policy(&self) -> (u64, PolicyVersion) {
        let policy = &self.state.policy;
        let head = policy.head.as_ref();
        head.map_or((0, policy.version), |it| (it.epoch, it.version))
    }

    fn end_recall(&mut self, session: SessionId, own: &HostRecord, now: Now) {
        let Some(recall) = self.recovery.recalls.open.remove(&session) else {
            return;
        };
        self.recovery.recalls.asked.insert(own.host);
        let is_stranger = matches!(recall.who, Who::Stranger { .. });
        if self.is_recovering() {
            self.recovery.heard.insert(own.host);
        } else if let Some(proof) = recall.proof {
            let name = &own.name;
            let why = format!("{name} remembers what is not stored here ({proof})");
            self.notice(format!(
                "this store is behind its fleet: {why}; was it restored from a backup?"
            ));
            let work = Work::Admin {
                caller: Caller::new("recovery".to_owned(), Role::Admin),
                request: AdminRequest::StartRecovery(why),
            };
            self.accept(Origin::Nobody, work, now);
        } else if let Who::Member { host, hello } = recall.who
            && self.recovery.pending() == 0
        {
            return self.welcome_known(session, host, hello, now);
        } else if is_stranger && self.recovery.pending() == 0 {
            let reason = "no host of this fleet has this key any more; join anew (meshctl join)";
            return self.turn_away(session, reason, BACK_AFTER_NOTHING);
        }
        let reason = "the coordinator has taken up what this host remembers; come back soon";
        self.send_away(session, reason, now);
        self.tend_recovery(now);
    }

    fn send_away(&mut self, session: SessionId, reason: &str, now: Now) {
        self.recovery.recalls.open.remove(&session);
        if self.sessions.has(session) {
            return self.dismiss(session, reason.to_owned(), now);
        }
        self.turn_away(session, reason, BACK_AFTER);
    }

    /// Ends the stream of a stranger.
    fn turn_away(&mut self, session: SessionId, reason: &str, retry_after: Duration) {
        let goodbye = Goodbye {
            reason: reason.to_owned(),
            retry_after,
            tombstone: None,
        };
        self.send(session, ToHost::Goodbye(goodbye));
        self.output(Output::Close { session });
    }

    pub(super) fn expire_recalls(&mut self, now: Now) {
        let open = self.recovery.recalls.open.iter();
        let late = open.filter(|(_, recall)| recall.until <= now.monotonic);
        let late: Vec<SessionId> = late.map(|(session, _)| *session).collect();
        for session in late {
            self.note_speechless(session, now);
            self.send_away(session, "it was too slow to tell what it remembers", now);
        }
    }

    /// A member without a map remembers nothing, and is not waited for.
    fn note_speechless(&mut self, session: SessionId, now: Now) {
        let recall = &self.recovery.recalls.open[&session];
        if let Who::Member { host, hello } = &recall.who
            && hello.have.is_none()
        {
            self.recovery.heard.insert(*host);
            self.tend_recovery(now);
        }
    }
}
