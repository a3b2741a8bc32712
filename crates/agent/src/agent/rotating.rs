//! Changing this host's WireGuard key while its tunnels live on.

use model::control::{FromHost, NewKey, Refusal, RefusalCode};
use model::key::WireguardKey;
use model::local::KeyRotated;
use model::time::Now;
use trust::key_change::{KeyChange, prove_key_change};

use super::{Agent, unavailable};
use crate::enrolment::Enrolment;
use crate::output::{Reply, RequestId, StateFile};

impl Agent {
    /// Returns the key that this host's record is to name next, while a coordinator has not granted
    /// it.
    pub fn next_key(&self) -> Option<WireguardKey> {
        let next = self.enrolment.member()?.keys.next()?;
        Some(next.public)
    }

    pub(super) fn start_rotation(&mut self, request: Option<RequestId>, now: Now) {
        if self.rotation.is_awaited() {
            let refusal = unavailable("this host's key is being changed already; wait for that");
            return self.out.reply(request, Err(refusal));
        }
        let Some(member) = self.enrolment.member_mut() else {
            let message = "this host is not a member of a fleet: its keys are made when it joins";
            let refusal = Refusal::new(RefusalCode::NotFound, message);
            return self.out.reply(request, Err(refusal));
        };
        member.keys.make_next(&mut self.dice);
        if let Some(saving) = self.save_membership() {
            self.rotation.begin(request, saving, now.monotonic);
        }
    }

    /// Does what is due for the host's key.
    pub(super) fn tend_rotation(&mut self, now: Now) {
        let Enrolment::Member(member) = &self.enrolment else {
            return;
        };
        let me = member.membership.host;
        if self.rotation.saving().is_none() && self.rotation.wants_next(&member.keys, me, now.unix)
        {
            self.out
                .info("this host's WireGuard key is old enough: it is changed");
            self.start_rotation(None, now);
        }
        self.look_for_saved_key(now);
        self.offer_key(now);
        self.forget_former_key(now);
        if let Some(request) = self.rotation.take_impatient(now.monotonic) {
            let note = "the change is under way: it goes on by itself as soon as a coordinator \
                        confirms it; `meshctl status` tells whether one can be reached";
            self.answer_rotation(Some(request), Some(note));
        }
        self.rotation.handle_timeout(now.monotonic);
    }

    fn look_for_saved_key(&mut self, now: Now) {
        let saving = self.rotation.saving();
        if saving.is_some_and(|version| self.disk.is_durable(StateFile::Identity, version)) {
            self.rotation.handle_saved(now.monotonic);
            self.tell_spare_key();
        }
    }

    /// Peers may learn of the next key before this host hears that it is granted.
    fn tell_spare_key(&mut self) {
        let Some(member) = self.enrolment.member() else {
            return;
        };
        if self.staging.in_force().is_some() {
            let commands = self.enforcement.change_spare(&member.keys);
            self.out.shard(commands);
        }
    }

    fn offer_key(&mut self, now: Now) {
        let is_online = self.channel.is_online();
        if !self
            .rotation
            .take_offer(now.monotonic, is_online, &mut self.dice)
        {
            return;
        }
        let (Some(member), Some(fleet)) = (self.enrolment.member(), &self.fleet) else {
            return;
        };
        let Some(next) = member.keys.next() else {
            return;
        };
        let statement = &fleet.trusted.statement;
        let change = KeyChange {
            fleet: statement.fleet,
            host: member.membership.host,
            wireguard_key: next.public,
        };
        match prove_key_change(&next.private, &statement.enrolment_key, &change) {
            Ok(proof) => self.out.send(FromHost::NewKey(NewKey {
                wireguard_key: next.public,
                proof,
            })),
            Err(why) => self
                .out
                .warn(format!("the fleet's enrolment key cannot be used: {why}")),
        }
    }

    pub(super) fn handle_key_refused(&mut self, why: &str) {
        let message = format!("the coordinator does not change this host's key: {why}");
        self.out.warn(message.clone());
        let request = self.rotation.handle_refused();
        self.out.reply(request, Err(unavailable(message)));
    }

    /// Takes the key that the host's record names, which is about to be in force.
    pub(super) fn follow_record_key(&mut self, named: WireguardKey, now: Now) {
        let Some(member) = self.enrolment.member_mut() else {
            return;
        };
        if !member.keys.follow(named, now.unix) {
            return;
        }
        self.save_membership();
        self.out.info(format!(
            "this host's WireGuard key is {named} now; the former one is good for a day, for peers \
             that have not heard"
        ));
        let request = self.rotation.handle_done(now.monotonic);
        self.answer_rotation(request, None);
    }

    fn forget_former_key(&mut self, now: Now) {
        let Some(member) = self.enrolment.member_mut() else {
            return;
        };
        if self.rotation.is_former_over(&member.keys, now) && member.keys.forget_former() {
            self.save_membership();
            self.tell_spare_key();
        }
    }

    fn answer_rotation(&mut self, request: Option<RequestId>, note: Option<&str>) {
        let Some(member) = self.enrolment.member() else {
            return;
        };
        let rotated = KeyRotated {
            wireguard_key: member.keys.wireguard_public,
            next: member.keys.next().map(|next| next.public),
            note: note.map(str::to_owned),
        };
        self.out.reply(request, Ok(Reply::KeyRotated(rotated)));
    }
}
