//! The ways out: a leave that was asked for, and a removal that the fleet decided.

use std::sync::Arc;

use model::control::{Refusal, RefusalCode};
use model::key::SecretBytes;
use model::local::Left;
use model::time::Now;
use model::wire::stored::StoredHighWater;

use super::{Agent, unavailable};
use crate::alarms::AlarmKind;
use crate::denials::Denials;
use crate::enrolment::{Enrolment, LEAVE_PATIENCE, Leaving};
use crate::identity_file::Standing;
use crate::names::Names;
use crate::output::{Output, Reply, RequestId, StateFile};
use model::control::FromHost;

impl Agent {
    pub(super) fn start_leave(&mut self, request: RequestId, now: Now) {
        let told = match &self.enrolment {
            Enrolment::Unenrolled(None) => {
                let message = "this host is not a member of a fleet: there is nothing to leave";
                let refusal = Refusal::new(RefusalCode::NotFound, message);
                return self.out.reply(Some(request), Err(refusal));
            }
            Enrolment::Leaving(_) => {
                let refusal = unavailable("this host is leaving its fleet already");
                return self.out.reply(Some(request), Err(refusal));
            }
            // There is nobody to be told: the host that was cloned stays a member.
            Enrolment::Removed(..) | Enrolment::Cloned(_) => true,
            Enrolment::Unenrolled(Some(_))
            | Enrolment::Describing(_)
            | Enrolment::Persisting(..)
            | Enrolment::Enrolling(..)
            | Enrolment::Member(_) => false,
        };
        self.refuse_waiting("the host leaves the fleet");
        let until = matches!(self.enrolment, Enrolment::Member(_)) && self.channel.is_online();
        let until = until.then(|| now.monotonic + LEAVE_PATIENCE);
        let leaving = Leaving {
            request,
            host: self.enrolment.host(),
            told,
            until,
        };
        self.enrolment = Enrolment::Leaving(leaving);
        if until.is_some() {
            self.out.send(FromHost::Leave);
        } else {
            self.forget_everything(now);
        }
    }

    /// Takes the coordinator's word that it knows, or that no word will come.
    pub(super) fn finish_telling(&mut self, is_told: bool, now: Now) {
        let Enrolment::Leaving(leaving) = &mut self.enrolment else {
            return;
        };
        if leaving.until.take().is_some() {
            leaving.told = is_told;
            self.forget_everything(now);
        }
    }

    pub(super) fn tend_leave(&mut self, now: Now) {
        let is_late = matches!(
            &self.enrolment,
            Enrolment::Leaving(Leaving { until: Some(until), .. }) if *until <= now.monotonic
        );
        if is_late {
            self.finish_telling(false, now);
        }
    }

    pub(super) fn handle_erased(&mut self, result: Result<(), String>) {
        let Enrolment::Leaving(leaving) = &self.enrolment else {
            return;
        };
        let (request, coordinator_told) = (leaving.request, leaving.told);
        self.enrolment = Enrolment::Unenrolled(None);
        let result = match result {
            Ok(()) => Ok(Reply::Left(Left { coordinator_told })),
            Err(why) => {
                let message = format!(
                    "this host has left its fleet, but its state directory could not be erased: \
                     {why}; remove the files in it by hand before the next start, they hold keys"
                );
                self.alarms
                    .raise(AlarmKind::StoredState, message.clone(), &mut self.out);
                Err(unavailable(message))
            }
        };
        self.out.reply(Some(request), result);
    }

    /// The fleet says that this host is no member any more: nothing of it is enforced or believed
    /// from now on, also after a restart.
    pub(super) fn handle_removed(&mut self, reason: &str, now: Now) {
        if matches!(self.enrolment, Enrolment::Leaving(_)) {
            return self.finish_telling(true, now);
        }
        let Some(mut member) = self.enrolment.member().cloned() else {
            return;
        };
        member.newcomer = None;
        self.refuse_waiting("the host was removed from the fleet");
        self.tear_down(now);
        self.out.error(format!(
            "this host was removed from fleet {}: {reason}; its peers and rules are dropped. To \
             bring it back, run `meshctl join` with a new token; to forget the fleet, `meshctl leave`",
            member.fleet_name
        ));
        let reason = reason.to_owned();
        let membership = member.membership.clone();
        let standing = Standing::Removed {
            membership,
            reason: reason.clone(),
        };
        self.save_identity(&member.keys, member.coordinators.clone(), standing);
        self.disk
            .put(StateFile::Map, SecretBytes::new(Vec::new()), &mut self.out);
        self.enrolment = Enrolment::Removed(Box::new(member), reason);
    }

    /// Answers whoever waits for a join that will not succeed.
    fn refuse_waiting(&mut self, why: &str) {
        let request = match &mut self.enrolment {
            Enrolment::Describing(join)
            | Enrolment::Persisting(join, _)
            | Enrolment::Enrolling(join, _) => join.request.take(),
            Enrolment::Member(member) => member.newcomer.take().map(|newcomer| newcomer.request),
            _ => None,
        };
        let rotation = self.rotation.handle_refused();
        self.out.reply(
            rotation,
            Err(unavailable(format!("the key is not changed: {why}"))),
        );
        self.out.reply(
            request,
            Err(unavailable(format!("the join was given up: {why}"))),
        );
    }

    fn forget_everything(&mut self, now: Now) {
        self.tear_down(now);
        self.high_water = StoredHighWater {
            // Kept in memory: while this process lives, its clock floor and starts are what they are.
            handshake: self.high_water.handshake,
            boot_counter: self.high_water.boot_counter,
            ..StoredHighWater::default()
        };
        self.disk.erase(&mut self.out);
    }

    /// Drops everything that a membership brought: channel, peers, rules, names, interface.
    fn tear_down(&mut self, now: Now) {
        self.channel.turn_off(now.monotonic, &mut self.out);
        let was_in_force = self.staging.take().is_some();
        let commands = self.enforcement.clear(&mut self.paths);
        if was_in_force {
            self.out.shard(commands);
            self.names = Arc::new(Names::default());
            self.out.push(Output::Names(self.names.clone()));
            self.out.push(Output::Interface(None));
        }
        if self.services.clear() {
            self.out.push(Output::Services(None));
        }
        self.forget_first_dates();
        self.fleet = None;
        self.wants_whole_map = false;
        self.renewal = None;
        self.rotation.clear(now.monotonic);
        self.coordinator_clock = None;
        self.denials = Denials::default();
        self.report_at = None;
        self.alarms.clear_all();
    }
}
