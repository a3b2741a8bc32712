//! Joining: the steps from a token to a member, and what happens when one fails.

use model::control::{Description, Enrolled, Refusal, RefusalCode};
use model::local::{JoinRequest, Joined};
use model::name::Name;
use model::time::Now;
use model::wire::stored::StoredHighWater;
use trust::JoinToken;
use zeroize::Zeroizing;

use super::{Agent, unavailable};
use crate::alarms::AlarmKind;
use crate::certificate::Renewal;
use crate::enrolment::{Enrolment, Join, Member, Saving};
use crate::event::{ChannelError, ChannelErrorKind, EnrolError};
use crate::identity_file::{self, Identity, Standing};
use crate::keys::HostKeys;
use crate::output::{Reply, RequestId, StateFile};
use crate::persistence::Version;
use crate::staging::put_high_water;

impl Agent {
    pub(super) fn start_join(&mut self, request: RequestId, join: &JoinRequest, now: Now) {
        if let Err(refusal) = self.try_start_join(request, join, now) {
            self.out.reply(Some(request), Err(refusal));
        }
    }

    fn try_start_join(
        &mut self,
        request: RequestId,
        join: &JoinRequest,
        now: Now,
    ) -> Result<(), Refusal> {
        let token: JoinToken = join
            .token
            .parse()
            .map_err(|error: trust::token::TokenError| {
                Refusal::new(RefusalCode::Invalid, error.to_string())
            })?;
        if self.is_joined_already(&token, join.name.as_deref()) {
            self.confirm_membership(request);
            return Ok(());
        }
        let keys = match &mut self.enrolment {
            Enrolment::Unenrolled(keys) => keys.clone(),
            // The old keys belong to the host that was removed.
            Enrolment::Removed(..) => None,
            // They belong to the machine that this one was copied from.
            Enrolment::Cloned(_) => None,
            Enrolment::Describing(join)
            | Enrolment::Persisting(join, Saving::Keys { .. })
            | Enrolment::Enrolling(join, _)
                if join.request.is_none() && join.token == token =>
            {
                // The same join, which a stop cut short: now somebody waits for it.
                join.attach(request, now.monotonic);
                return Ok(());
            }
            Enrolment::Describing(_) | Enrolment::Persisting(..) | Enrolment::Enrolling(..) => {
                return Err(unavailable(
                    "a join is under way; wait for it, or give it up with `meshctl leave`, then \
                     try again",
                ));
            }
            Enrolment::Member(member) => return Err(already_member(member)),
            Enrolment::Leaving(_) => {
                return Err(unavailable(
                    "this host is leaving its fleet; join again when it has",
                ));
            }
        };
        let name = name_to_take(join.name.as_deref())?;
        let keys = keys.unwrap_or_else(|| HostKeys::generate(&mut self.dice, now.unix));
        let join = Join::new(Some(request), token, name, keys, now.monotonic);
        self.alarms.clear(AlarmKind::Coordinator, &mut self.out);
        self.describe(join, now);
        Ok(())
    }

    /// Returns whether a join asks for nothing but what this host is: a member of that fleet, under
    /// that name. Whoever sets machines up by a script runs the same command again.
    fn is_joined_already(&self, token: &JoinToken, name: Option<&str>) -> bool {
        let Enrolment::Member(member) = &self.enrolment else {
            return false;
        };
        let fleet = self.fleet.as_ref();
        let is_of_fleet = token.pin == member.membership.root_pin
            || fleet.is_some_and(|fleet| fleet.anchors.believes_root(&token.pin));
        is_of_fleet && name.is_none_or(|name| name == member.membership.name.as_str())
    }

    fn confirm_membership(&mut self, request: RequestId) {
        let member = self.enrolment.member().expect("the caller looked");
        let detail = self.member_detail(member);
        let note = match detail.revision {
            Some(_) => "this host was a member before; nothing was changed".to_owned(),
            None => self.why_no_map(),
        };
        let joined = Joined {
            name: detail.name,
            fleet: detail.fleet,
            addresses: detail.addresses,
            dns_suffix: detail.dns_suffix,
            note: Some(note),
        };
        self.out.reply(Some(request), Ok(Reply::Joined(joined)));
    }

    /// Takes up a join that a restart interrupted.
    pub(super) fn resume_join(&mut self, token: &str, name: Name, keys: HostKeys, now: Now) {
        match token.parse::<JoinToken>() {
            Ok(token) => {
                self.out.info(format!(
                    "taking up again the join of {name}, which a stop cut short"
                ));
                let mut join = Join::new(None, token, name, keys, now.monotonic);
                join.is_saved = true;
                self.describe(join, now);
            }
            Err(error) => {
                self.out.warn(format!(
                    "a join that a stop cut short cannot be taken up: {error}"
                ));
                self.enrolment = Enrolment::Unenrolled(Some(keys));
            }
        }
    }

    fn describe(&mut self, mut join: Join, now: Now) {
        let output = join.describe(now.monotonic);
        self.out.push(output);
        self.enrolment = Enrolment::Describing(join);
    }

    pub(super) fn handle_described(&mut self, result: Result<Description, ChannelError>, now: Now) {
        let Some(mut join) = self.take_join(|state| matches!(state, Enrolment::Describing(_)))
        else {
            return;
        };
        let description = match result {
            Ok(description) => description,
            Err(error) => {
                let refusal = join.failed(&error, false, now.monotonic, &mut self.dice);
                self.note_join_trouble(&join, &error);
                self.enrolment = Enrolment::Describing(join);
                return self.give_up_join(refusal);
            }
        };
        let offer = join.offer(&description, &self.config);
        match offer {
            Ok(offer) => {
                join.step_done();
                // A new membership starts its own revisions; only what concerns keys goes on.
                self.high_water = StoredHighWater {
                    handshake: self.high_water.handshake,
                    boot_counter: self.high_water.boot_counter.max(1),
                    ..StoredHighWater::default()
                };
                let high_water = put_high_water(&self.high_water, &mut self.disk, &mut self.out);
                let token = Zeroizing::new(join.token.encode());
                let standing = Standing::Joining {
                    name: join.name.clone(),
                    token,
                };
                let identity =
                    self.save_identity(&join.keys, join.token.addresses.clone(), standing);
                join.is_saved = true;
                let saving = Saving::Keys {
                    identity,
                    high_water,
                    offer,
                };
                self.enrolment = Enrolment::Persisting(join, saving);
            }
            Err(refusal) => {
                self.enrolment = Enrolment::Describing(join);
                self.give_up_join(Some(refusal));
            }
        }
    }

    /// Goes on with a join when what it waits for is on the disk.
    pub(super) fn handle_join_durable(&mut self, now: Now) {
        let is_durable = match &self.enrolment {
            Enrolment::Persisting(
                _,
                Saving::Keys {
                    identity,
                    high_water,
                    ..
                },
            ) => {
                self.disk.is_durable(StateFile::Identity, *identity)
                    && self.disk.is_durable(StateFile::HighWater, *high_water)
            }
            Enrolment::Persisting(_, Saving::Membership { identity, .. }) => {
                self.disk.is_durable(StateFile::Identity, *identity)
            }
            _ => false,
        };
        if !is_durable {
            return;
        }
        match std::mem::replace(&mut self.enrolment, Enrolment::Unenrolled(None)) {
            Enrolment::Persisting(mut join, Saving::Keys { offer, .. }) => {
                let output = join.enrol(&offer, now.monotonic);
                self.out.push(output);
                self.enrolment = Enrolment::Enrolling(join, offer);
            }
            Enrolment::Persisting(_, Saving::Membership { member, fleet, .. }) => {
                self.fleet = Some(fleet);
                self.become_member(member, now);
            }
            other => self.enrolment = other,
        }
    }

    /// Tells who waits for a join that the disk does not take what it needs.
    pub(super) fn handle_join_undurable(&mut self, file: StateFile, why: &str) {
        match &mut self.enrolment {
            Enrolment::Persisting(join, Saving::Keys { .. })
                if join.request.is_some() && file != StateFile::Map =>
            {
                let refusal = unavailable(format!(
                    "nothing was joined: the state directory cannot be written ({why}); free some \
                     space or fix the disk, then run the same command again"
                ));
                self.give_up_join(Some(refusal));
            }
            Enrolment::Persisting(join, Saving::Membership { member, .. })
                if file == StateFile::Identity =>
            {
                let request = join.request.take();
                member.newcomer = None;
                let refusal = unavailable(format!(
                    "the coordinator has taken this host in, but the state directory cannot be \
                     written ({why}); free some space or fix the disk: it is tried again until it \
                     works"
                ));
                self.out.reply(request, Err(refusal));
            }
            _ => {}
        }
    }

    pub(super) fn handle_enrolled(&mut self, result: Result<Enrolled, EnrolError>, now: Now) {
        let state = std::mem::replace(&mut self.enrolment, Enrolment::Unenrolled(None));
        let Enrolment::Enrolling(mut join, offer) = state else {
            self.enrolment = state;
            return;
        };
        let accepted = match result {
            Ok(enrolled) => join.accept(enrolled, &offer.fleet, now.monotonic),
            Err(EnrolError::Refused(refusal)) if refusal.code == RefusalCode::Unavailable => {
                let kind = ChannelErrorKind::Interrupted;
                let error = ChannelError::new(kind, refusal.message);
                let refusal = join.failed(&error, true, now.monotonic, &mut self.dice);
                self.enrolment = Enrolment::Enrolling(join, offer);
                return self.give_up_join(refusal);
            }
            Err(EnrolError::Refused(refusal)) => Err(refusal),
            Err(EnrolError::Channel(error)) => {
                let refusal = join.failed(&error, true, now.monotonic, &mut self.dice);
                self.note_join_trouble(&join, &error);
                self.enrolment = Enrolment::Enrolling(join, offer);
                return self.give_up_join(refusal);
            }
        };
        match accepted {
            Ok(member) => {
                let standing = Standing::Member(member.membership.clone());
                let identity =
                    self.save_identity(&member.keys, member.coordinators.clone(), standing);
                let member = Box::new(member);
                let saving = Saving::Membership {
                    identity,
                    member,
                    fleet: offer.fleet,
                };
                self.enrolment = Enrolment::Persisting(join, saving);
            }
            Err(refusal) => {
                self.enrolment = Enrolment::Enrolling(join, offer);
                self.give_up_join(Some(refusal));
            }
        }
    }

    pub(super) fn become_member(&mut self, member: Box<Member>, now: Now) {
        self.renewal = Some(Renewal::new(member.validity, now, &mut self.dice));
        self.channel.turn_on(now.monotonic);
        self.rotation.resume(&member.keys, now.monotonic);
        self.out.info(format!(
            "this host is {} of fleet {}",
            member.membership.name, member.fleet_name
        ));
        self.enrolment = Enrolment::Member(member);
    }

    /// Does what is due for a join, and for who waits for the first map.
    pub(super) fn tend_join(&mut self, now: Now) {
        match &mut self.enrolment {
            Enrolment::Describing(join) if join.wants_retry(now.monotonic) => {
                let output = join.describe(now.monotonic);
                self.out.push(output);
            }
            Enrolment::Enrolling(join, offer) if join.wants_retry(now.monotonic) => {
                let output = join.enrol(offer, now.monotonic);
                self.out.push(output);
            }
            Enrolment::Describing(join) if join.is_overdue(now.monotonic) => {
                self.handle_described(Err(no_answer()), now);
            }
            Enrolment::Enrolling(join, _) if join.is_overdue(now.monotonic) => {
                self.handle_enrolled(Err(EnrolError::Channel(no_answer())), now);
            }
            Enrolment::Member(member) => {
                let is_late =
                    |newcomer: &mut crate::enrolment::Newcomer| newcomer.until <= now.monotonic;
                if let Some(newcomer) = member.newcomer.take_if(is_late) {
                    let joined = Joined {
                        name: member.membership.name.clone(),
                        fleet: member.fleet_name.clone(),
                        addresses: vec![newcomer.addresses.v4.into(), newcomer.addresses.v6.into()],
                        dns_suffix: newcomer.dns_suffix,
                        note: Some(self.why_no_map()),
                    };
                    self.out
                        .reply(Some(newcomer.request), Ok(Reply::Joined(joined)));
                }
            }
            _ => {}
        }
    }

    fn why_no_map(&self) -> String {
        let why = match self.channel.last_error() {
            Some(error) => format!(" ({error})"),
            None if self.staging.is_under_way() => " (it is being written to the disk)".to_owned(),
            None => String::new(),
        };
        format!(
            "this host is a member, but its first map is not in force yet{why}; peers and names \
             follow by themselves, see `meshctl status`"
        )
    }

    /// Ends a join without success: back to no member, with the keys kept for the next try.
    fn give_up_join(&mut self, refusal: Option<Refusal>) {
        let Some(refusal) = refusal else { return };
        let Some(join) = self.take_join(|_| true) else {
            return;
        };
        // What could not be written for this join is not written any more.
        self.disk.abandon(StateFile::HighWater);
        self.disk.abandon(StateFile::Identity);
        if join.is_saved {
            self.save_identity(&join.keys, join.token.addresses.clone(), Standing::Keys);
        }
        if join.request.is_none() {
            self.out.error(format!(
                "the join that was taken up again failed: {refusal}"
            ));
        }
        self.out.reply(join.request, Err(refusal));
        self.enrolment = Enrolment::Unenrolled(Some(join.keys.clone()));
    }

    fn note_join_trouble(&mut self, join: &Join, error: &ChannelError) {
        if join.request.is_none() {
            let message = format!("cannot finish the join of {}: {error}", join.name);
            self.alarms
                .raise(AlarmKind::Coordinator, message, &mut self.out);
        }
    }

    /// Takes the join out of a state that has one and satisfies the condition.
    fn take_join(&mut self, is_wanted: impl Fn(&Enrolment) -> bool) -> Option<Join> {
        if !is_wanted(&self.enrolment) {
            return None;
        }
        match std::mem::replace(&mut self.enrolment, Enrolment::Unenrolled(None)) {
            Enrolment::Describing(join)
            | Enrolment::Persisting(join, _)
            | Enrolment::Enrolling(join, _) => Some(join),
            other => {
                self.enrolment = other;
                None
            }
        }
    }

    pub(super) fn save_identity(
        &mut self,
        keys: &HostKeys,
        coordinators: Vec<String>,
        standing: Standing,
    ) -> Version {
        let identity = Identity {
            wireguard_key: keys.wireguard.clone(),
            wireguard_made: keys.wireguard_made,
            spare_key: keys.stored_spare(),
            tls_key: keys.tls.clone(),
            coordinators,
            machine_id: self.config.machine_id.clone(),
            standing,
        };
        self.disk.put(
            StateFile::Identity,
            identity_file::encode(&identity),
            &mut self.out,
        )
    }

    pub(super) fn save_membership(&mut self) -> Option<Version> {
        let member = self.enrolment.member()?;
        let standing = Standing::Member(member.membership.clone());
        let (keys, coordinators) = (member.keys.clone(), member.coordinators.clone());
        Some(self.save_identity(&keys, coordinators, standing))
    }
}

fn already_member(member: &Member) -> Refusal {
    Refusal::new(
        RefusalCode::Conflict,
        format!(
            "this host is already {} of fleet {}; to join another fleet, or under another name, \
             run `meshctl leave` first",
            member.membership.name, member.fleet_name
        ),
    )
}

fn no_answer() -> ChannelError {
    ChannelError::new(
        ChannelErrorKind::Unreachable,
        "no coordinator answered in time; are the addresses in the token right, and is their TCP \
         port open?",
    )
}

fn name_to_take(asked: Option<&str>) -> Result<Name, Refusal> {
    let invalid = |why: String| Refusal::new(RefusalCode::Invalid, why);
    let name = asked.ok_or_else(|| {
        invalid("this machine has no host name to take; choose a name with --name".into())
    })?;
    name.parse()
        .map_err(|error| invalid(format!("{error}; choose another with --name")))
}
