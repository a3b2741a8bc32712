//! The fleet's authority changes its keys while the fleet works, in two steps that operators order.
//!
//! ```text
//! rotate: new keys ──> on the disk ──> a statement that lists both roots ──> everything signed again, hosts move
//! retire: every host has moved ──> a statement that lists the new root ──> the old keys are erased
//! ```
//!
//! The key file holds at all times what the stored statement lists: a key is written before the
//! statement that names it, and erased after the one that does not. What is signed is signed by all
//! keys that the stored statement lists, and is stored only under that statement.

mod believers;
mod signing_again;

use std::collections::BTreeSet;
use std::time::Duration;

use model::admin::{AuthorityView, RootView, UnmovedHost};
use model::control::RefusalCode;
use model::ids::HostId;
use model::key::Secret;
use model::name::Name;
use model::record::{Signed, TrustStatement};
use model::store::StoreRevision;
use model::time::{Instant, Now};
use trust::certificate::root_facts;
use trust::{Authority, AuthoritySeeds, sha256};

use crate::audit::Stamp;
use crate::fleet::Fleet;
use crate::keys::Place;
use crate::output::{KeepId, Output, Rejection, Reply};
use crate::pace::Pace;
use crate::request::Caller;
use crate::stored::{StoredFleet, StoredSigned, StoredStatement};
use crate::work::{Answer, Draft, Job, Plan, Work};

/// When keys that could not be erased are tried again.
const ERASE_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Hosts that a refusal names.
const NAMED_MAX: usize = 20;

/// Where the change of keys stands, besides what is stored.
#[derive(Debug, Default)]
pub(crate) struct Rotation {
    last_keep: u64,
    /// The key file is being written.
    keeping: Option<(KeepId, Keep)>,
    erase_at: Option<Instant>,
    /// Why keys that should be erased are still on the disk, as the last attempt told.
    erase_trouble: Option<String>,
    /// Why what was the key file still is.
    pub(crate) left_over: Option<String>,
    /// They have moved, or were set back, and that is not stored yet.
    moved: BTreeSet<HostId>,
    storing_moved: Pace,
    signing: Pace,
}

/// What is written to the key file.
#[derive(Debug)]
struct Keep {
    keys: Authority,
    /// The request that goes on once it is written.
    job: Option<Job>,
}

impl Rotation {
    /// Returns when something has to be done.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let (storing, signing) = (self.storing_moved.deadline(), self.signing.deadline());
        let deadlines = [self.erase_at, storing, signing];
        deadlines.into_iter().flatten().min()
    }
}

impl Fleet {
    /// Takes up what a stop may have cut short.
    pub(crate) fn resume_rotation(&mut self, now: Now) {
        self.sign_again_soon(now);
        self.erase_retired();
    }

    /// Returns whether two roots are believed.
    pub(crate) fn is_rotating(&self) -> bool {
        self.state.statement.root_certificates.len() > 1
    }

    pub(crate) fn plan_rotation(&mut self, caller: &Caller, now: Now) -> Result<Plan, Rejection> {
        if self.is_rotating() {
            let text = format!(
                "the authority is being rotated already, and {} of {} hosts have moved; `meshctl \
                 authority retire` ends it",
                self.moved_count(),
                self.state.hosts.len()
            );
            return Err(Rejection::new(RefusalCode::Conflict, text));
        }
        let Some(next) = self.prepared() else {
            return self.prepare(now).map(Plan::Keep);
        };
        let plan = self.plan_statement(caller, &next, now, Vec::new());
        Ok(plan)
    }

    /// Returns the authority with new keys that are on the disk and that no statement names.
    fn prepared(&self) -> Option<Authority> {
        let (newest, roots) = (
            self.keyring.root_certificate(),
            self.keyring.root_certificates(),
        );
        let is_former = |root: &[u8]| self.former_roots().any(|former| former == root);
        let listed = &self.state.statement.root_certificates;
        let is_next = !listed.iter().any(|root| root == newest) && !is_former(newest);
        let has_listed = listed.iter().all(|root| roots.contains(root));
        (is_next && has_listed && roots.len() == listed.len() + 1)
            .then(|| Authority::load_all(self.keyring.keys()).expect("it was loaded before"))
    }

    /// Makes new keys beside those in force.
    fn prepare(&mut self, now: Now) -> Result<Authority, Rejection> {
        let mut secret = || Secret::from_bytes(self.random());
        let seeds = AuthoritySeeds {
            root: secret(),
            records: secret(),
            enrolment: secret(),
        };
        let statement = &self.state.statement;
        let number = statement.serial + 1;
        let next = self
            .authority
            .with_next(&statement.fleet_name, number, seeds, now.unix);
        next.map_err(|error| Rejection::new(RefusalCode::Exhausted, error.to_string()))
    }

    /// Asks for the key file to be written; the request goes on afterwards.
    pub(crate) fn keep_for(&mut self, job: Job, keys: Authority, now: Now) {
        if self.rotation.keeping.is_some() {
            let text = "the key file is being written; try again in a moment";
            let rejection = Rejection::new(RefusalCode::Unavailable, text);
            return self.answer(&job, Err(rejection), now);
        }
        self.keep(Keep {
            keys,
            job: Some(job),
        });
    }

    fn keep(&mut self, keep: Keep) {
        self.rotation.last_keep += 1;
        let id = KeepId(self.rotation.last_keep);
        let keys = keep.keys.keys();
        self.rotation.keeping = Some((id, keep));
        self.output(Output::KeepAuthority { id, keys });
    }

    pub(crate) fn kept(&mut self, id: KeepId, outcome: Result<(), String>, now: Now) {
        let is_awaited = |(awaited, _): &mut (KeepId, Keep)| *awaited == id;
        let Some((_, Keep { keys, job })) = self.rotation.keeping.take_if(is_awaited) else {
            return;
        };
        match (outcome, job) {
            (Ok(()), job) => {
                self.keyring = keys;
                self.rotation.erase_trouble = None;
                if let Some(job) = job {
                    self.attempt(job, now);
                }
            }
            (Err(why), Some(job)) => {
                let text = format!("nothing was rotated: the new keys cannot be written ({why})");
                let rejection = Rejection::new(RefusalCode::Unavailable, text);
                self.note_rejection(&job, &rejection, now);
                self.answer(&job, Err(rejection), now);
            }
            (Err(why), None) => {
                self.notice(format!(
                    "the keys of a retired root are still on the disk: the key file cannot be \
                     written ({why}); it is tried again until it works"
                ));
                self.rotation.erase_trouble = Some(why);
                self.rotation.erase_at = Some(now.monotonic + ERASE_AGAIN_AFTER);
            }
        }
        self.erase_retired();
    }

    pub(crate) fn plan_retirement(
        &mut self,
        caller: &Caller,
        force: bool,
        now: Now,
    ) -> Result<Plan, Rejection> {
        if !self.is_rotating() {
            let text = "one root is believed: there is none to retire; `meshctl authority rotate` \
                        begins a rotation";
            return Err(Rejection::new(RefusalCode::Conflict, text));
        }
        self.check_nothing_is_taken_up()?;
        let to_sign = self.unsigned_count();
        if to_sign > 0 {
            self.sign_again_soon(now);
            let text = format!(
                "{to_sign} records, tombstones and policies are not signed by the new keys yet; \
                 this goes on by itself, try again in a while (`meshctl authority show`)"
            );
            return Err(Rejection::new(RefusalCode::Unavailable, text));
        }
        let left_behind: Vec<Name> = self.unmoved().into_iter().map(|it| it.name).collect();
        if !left_behind.is_empty() && !force {
            return Err(refuse_to_leave(&left_behind, self.state.hosts.len()));
        }
        let newest = self.authority.root_certificate().to_vec();
        let next = self.authority.limited_to(&[newest]);
        let next = next.expect("the newest root is of this authority");
        Ok(self.plan_statement(caller, &next, now, left_behind))
    }

    /// Plans the statement that lists what `listed` has, signed by that and by the keys before.
    fn plan_statement(
        &self,
        caller: &Caller,
        listed: &Authority,
        now: Now,
        left_behind: Vec<Name>,
    ) -> Plan {
        let before = &self.state.statement;
        let statement = TrustStatement {
            serial: before.serial + 1,
            root_certificates: listed.root_certificates(),
            record_keys: listed.record_keys(),
            enrolment_key: listed.enrolment_key(),
            previous: Some(sha256(&self.state.trust.payload)),
            ..before.clone()
        };
        let is_wider = listed.root_pins().len() > self.authority.root_pins().len();
        let signers = if is_wider { listed } else { &self.authority };
        let fleet = StoredFleet {
            trust: StoredSigned::from(&signers.sign_trust(&statement)),
            overlay: statement.overlay,
            created: Stamp::new(&caller.name, now.unix),
        };
        let mut draft = Draft::new(&self.state);
        draft.put(Place::Fleet.key(), &fleet);
        self.put_former_statement(&mut draft);
        Plan::Commit {
            transaction: draft.finish(),
            answer: Answer::Authority { left_behind },
        }
    }

    /// Keeps the statement that another one is about to follow.
    pub(crate) fn put_former_statement(&self, draft: &mut Draft<'_>) {
        let before = &self.state.statement;
        let place = Place::Statement(before.epoch, before.serial);
        let trust = StoredSigned::from(&self.state.trust);
        draft.put(place.key(), &StoredStatement { trust });
    }

    /// The statement in force is another: takes the keys that it lists, and tells everybody.
    pub(crate) fn note_statement(&mut self, before: StoreRevision, now: Now) {
        if self.state.trust_changed == before {
            return;
        }
        self.map_head = None;
        let listed = &self.state.statement.root_certificates;
        if let Some(authority) = self.keyring.limited_to(listed) {
            self.authority = authority;
        }
        if let Err(rejection) = self.check_can_sign() {
            self.notice(rejection.to_string());
        } else {
            let keys = self.authority.keys();
            self.output(Output::ShowAuthority { keys });
        }
        for host in self.sessions.followers() {
            if let Some(news) = self.sessions.news_for(host) {
                news.trust = true;
            }
        }
        self.sign_again_soon(now);
        self.erase_retired();
    }

    /// Refuses what this coordinator would have to sign when it has not the newest keys.
    pub(crate) fn check_can_sign(&self) -> Result<(), Rejection> {
        let newest = self.state.statement.root_certificates.last();
        if newest.is_some_and(|root| root == self.authority.root_certificate()) {
            return Ok(());
        }
        let text = "another coordinator of this fleet rotated its authority, and the new keys are not \
                    here: hosts believe nothing that this one signs; put that coordinator's file \
                    `authority` in the place of this one's, and start this one anew";
        Err(Rejection::new(RefusalCode::Unavailable, text))
    }

    /// Refuses while something that hosts told waits to be stored: keys that are to be retired may
    /// have signed it.
    fn check_nothing_is_taken_up(&self) -> Result<(), Rejection> {
        match self.recovery.pending() {
            0 => Ok(()),
            pending => {
                let text = format!(
                    "{pending} records and tombstones that hosts remember are still being stored; \
                     try again in a few seconds (`meshctl recovery`)"
                );
                Err(Rejection::new(RefusalCode::Unavailable, text))
            }
        }
    }

    /// Has the keys of retired roots erased from the disk.
    pub(crate) fn erase_retired(&mut self) {
        let Some(kept) = self.retained_keys() else {
            return;
        };
        if kept.root_pins() == self.keyring.root_pins() || self.rotation.keeping.is_some() {
            return;
        }
        if self.rotation.erase_at.is_none() && !self.is_recovering() {
            self.keep(Keep {
                keys: kept,
                job: None,
            });
        }
    }

    /// Returns all keys but those of roots that were believed once and are no more; `None`: all of
    /// them are, since another coordinator has the keys that are believed.
    fn retained_keys(&self) -> Option<Authority> {
        let former: Vec<Vec<u8>> = self.former_roots().collect();
        let roots = self.keyring.root_certificates().into_iter();
        let kept: Vec<Vec<u8>> = roots.filter(|root| !former.contains(root)).collect();
        self.keyring.limited_to(&kept)
    }

    /// Returns the roots that an earlier statement listed and the last does not.
    fn former_roots(&self) -> impl Iterator<Item = Vec<u8>> {
        let listed = &self.state.statement.root_certificates;
        let earlier = self.state.statements.values();
        let roots = earlier.filter_map(|(_, signed)| {
            let statement = model::wire::decode_trust_statement(&signed.payload);
            Some(statement.ok()?.root_certificates)
        });
        roots.flatten().filter(|root| !listed.contains(root))
    }

    /// Does what is due.
    pub(crate) fn expire_rotation(&mut self, now: Now) {
        let is_due = |due: &mut Instant| *due <= now.monotonic;
        if self.rotation.erase_at.take_if(is_due).is_some() {
            self.erase_retired();
        }
        if self.rotation.storing_moved.take_due(now) {
            self.store_moved(now);
        }
        if self.rotation.signing.take_due(now) {
            self.sign_some_again(now);
        }
    }

    /// Goes on after work that nobody asked for was done, or failed.
    pub(crate) fn after_rotation_work(&mut self, work: &Work, has_failed: bool, now: Now) {
        match work {
            Work::StoreMoved(hosts) => self.after_storing_moved(hosts, has_failed, now),
            Work::SignAgain => self.after_signing_again(now),
            _ => {}
        }
    }

    /// Returns the statements that a host lacks who has everything up to a revision.
    pub(crate) fn statements_since(&self, have: StoreRevision) -> Vec<Signed> {
        if self.state.trust_changed <= have {
            return Vec::new();
        }
        let earlier = self.state.statements.values();
        let earlier = earlier.filter(|(followed, _)| *followed > have);
        let mut statements: Vec<Signed> = earlier.map(|(_, signed)| signed.clone()).collect();
        statements.push(self.state.trust.clone());
        newest_of(statements)
    }

    /// Returns the statements before the last that a host lacks who holds one.
    pub(crate) fn earlier_statements(&self, held: Option<(u64, u64)>) -> Vec<Signed> {
        let later = self.state.statements.iter();
        let later = later.filter(|(number, _)| held.is_none_or(|held| **number > held));
        let mut statements: Vec<Signed> = later.map(|(_, (_, signed))| signed.clone()).collect();
        let number = (self.state.statement.epoch, self.state.statement.serial);
        if held == Some(number) {
            statements.clear();
        }
        newest_of(statements)
    }

    pub(crate) fn authority_view(&self, left_behind: Vec<Name>) -> Reply {
        let statement = &self.state.statement;
        let missing = if self.is_rotating() {
            self.unmoved()
        } else {
            Vec::new()
        };
        let hosts = self.state.hosts.len();
        let kept = self.retained_keys().map_or(0, |it| it.root_pins().len());
        let trouble = self.rotation.erase_trouble.as_ref();
        let left_over = self.rotation.left_over.as_ref();
        let to_erase = self.keyring.root_pins().len() - kept;
        Reply::Authority(AuthorityView {
            epoch: statement.epoch,
            serial: statement.serial,
            roots: statement
                .root_certificates
                .iter()
                .map(|root| root_view(root))
                .collect(),
            rotating: self.is_rotating(),
            hosts,
            moved: hosts - missing.len(),
            missing,
            to_sign: self.unsigned_count(),
            to_erase: to_erase.max(usize::from(left_over.is_some())),
            erase_trouble: trouble.or(left_over).cloned(),
            left_behind,
        })
    }

    fn unmoved(&self) -> Vec<UnmovedHost> {
        let hosts = self.state.hosts.values();
        let unmoved = hosts.filter(|host| !self.has_moved(host.record.host));
        let mut unmoved: Vec<UnmovedHost> = unmoved
            .map(|host| {
                let presence = self.presences.of(host.record.host);
                let held = presence.and_then(|it| it.held_trust);
                let number = (self.state.statement.epoch, self.state.statement.serial);
                UnmovedHost {
                    name: host.record.name.clone(),
                    online: self.sessions.is_online(host.record.host),
                    last_seen_secs: presence.and_then(|it| it.last_seen).map(|it| it.as_secs()),
                    believes: held.is_some_and(|held| (held.epoch, held.serial) == number),
                }
            })
            .collect();
        unmoved.sort_by(|a, b| a.name.cmp(&b.name));
        unmoved
    }
}

/// The last of many: the way from those before is too long to go.
fn newest_of(mut statements: Vec<Signed>) -> Vec<Signed> {
    let surplus = statements
        .len()
        .saturating_sub(model::limits::Limits::STATEMENTS);
    statements.drain(..surplus);
    statements
}

fn root_view(root: &[u8]) -> RootView {
    let facts = root_facts(root);
    RootView {
        pin: sha256(root),
        name: facts
            .as_ref()
            .map_or_else(String::new, |it| it.common_name.clone()),
        made_secs: facts.as_ref().map_or(0, |it| it.not_before.as_secs()),
        expires_secs: facts.as_ref().map_or(0, |it| it.not_after.as_secs()),
    }
}

fn refuse_to_leave(left_behind: &[Name], hosts: usize) -> Rejection {
    let named: Vec<&str> = left_behind
        .iter()
        .take(NAMED_MAX)
        .map(Name::as_str)
        .collect();
    let more = match left_behind.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let text = format!(
        "{} of {hosts} hosts have not moved to the new root: {}{more}. Wait until they have been \
         online, or remove them; with --force they are left behind: each that has not heard of the \
         new root works with the peers that it knows, and comes back only by `meshctl hosts remove \
         NAME`, then `meshctl leave` and `meshctl join` with a new token on it",
        left_behind.len(),
        named.join(", ")
    );
    Rejection::new(RefusalCode::Conflict, text)
}
