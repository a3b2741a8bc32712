//! The coordinator at work: inputs for the fleet, and carrying out what it wants done.

use std::time::Duration;

use fleet::{AdminRequest, Output, Rejection, Reply, RequestId, SessionId};
use model::control::ToHost;
use model::store::Transaction;
use model::time::Instant;
use model::wire;

use super::{OUTPUTS_MAX, SPINS_MAX, World};
use crate::control::{ConnectionId, Frame, Way};
use crate::event::{Event, Note, Run, Who};
use crate::ledger::Claims;

/// Inputs.
impl World {
    pub(crate) fn start_coordinator(&mut self) {
        if self.coordinator.running.is_some() {
            return;
        }
        if let Err(why) = self.coordinator.start(&mut self.fate, self.now) {
            return self.violate("the coordinator starts from its store", why);
        }
        self.say(Who::Coordinator, "starts".to_owned());
        self.drive_coordinator();
        if !self.is_recovering {
            self.check_acknowledged();
        }
    }

    /// Stops the coordinator without a warning; `is_dark`: the machine with it.
    pub(crate) fn crash_coordinator(&mut self, is_dark: bool) {
        self.say(
            Who::Coordinator,
            format!("crashes{}", if is_dark { ", dark" } else { "" }),
        );
        self.coordinator.running = None;
        self.coordinator.is_dark = is_dark;
        self.coordinator.store.crash(&mut self.fate);
        self.forget_orders();
        self.abandon_coordinator_connections();
    }

    pub(crate) fn coordinator_wakes(&mut self, run: Run, due: Instant) {
        let now = self.coordinator.now(self.now);
        let Some(steward) = &mut self.coordinator.running else {
            return;
        };
        if steward.run != run || steward.wake != Some(due) {
            return;
        }
        steward.wake = None;
        steward.spins += 1;
        if steward.spins > SPINS_MAX {
            let why = format!("coordinator at {now:?}: {:?}", steward.fleet.poll_timeout());
            return self.violate("no brain spins", why);
        }
        steward.fleet.handle_timeout(now);
        self.note(Note::Wake(Who::Coordinator));
        self.drive_coordinator();
    }

    pub(crate) fn store_flushes(&mut self, run: Run) {
        let now = self.coordinator.now(self.now);
        if self
            .coordinator
            .running
            .as_ref()
            .is_none_or(|steward| steward.run != run)
        {
            return;
        }
        self.note(Note::Flush);
        for (id, outcome) in self.coordinator.store.flush(&mut self.fate) {
            if let Some(steward) = &mut self.coordinator.running {
                steward.fleet.handle_commit(id, outcome, now);
            }
            self.drive_coordinator();
        }
    }

    /// Checks that everything that was acknowledged is there.
    pub(crate) fn check_acknowledged(&mut self) {
        let replies = (
            self.ask(AdminRequest::ListHosts),
            self.ask(AdminRequest::ListTokens),
            self.ask(AdminRequest::ListPolicyVersions),
        );
        if let (
            Some(Reply::Hosts(hosts)),
            Some(Reply::Tokens(tokens)),
            Some(Reply::PolicyVersions(policies)),
        ) = replies
        {
            let objection = self.ledger.objection(&Claims {
                hosts,
                tokens,
                policies,
            });
            self.object("what was acknowledged stays", objection);
        } else if self.coordinator.running.is_some() {
            self.violate("questions are answered", "a list was refused".to_owned());
        }
    }
}

/// Outputs.
impl World {
    /// Carries out everything that the fleet wants done, and sees that it is woken.
    pub(crate) fn drive_coordinator(&mut self) {
        let mut outputs = 0;
        let now = self.coordinator.now(self.now);
        while let Some(steward) = &mut self.coordinator.running {
            let Some(output) = steward.fleet.poll_output() else {
                break;
            };
            outputs += 1;
            if outputs > OUTPUTS_MAX {
                return self.violate("outputs are bounded", format!("coordinator: {output:?}"));
            }
            match output {
                Output::Commit { id, transaction } => self.commit(id, &transaction),
                Output::Work { id, work } => {
                    steward
                        .fleet
                        .handle_policy_done(id, work.run(&|| false), now);
                }
                Output::KeepAuthority { id, keys } => self.keep_authority(id, keys),
                Output::ShowAuthority { keys } => self.show_authority(keys),
                Output::List => self.list(),
                Output::Reply { request, result } => self.coordinator_replies(request, result),
                Output::Send { session, message } => self.send_down(session, &message),
                Output::Close { session } => self.close_down(session),
                Output::Notice(text) => self.say(Who::Coordinator, text),
                Output::Audited(_) => {}
            }
        }
        self.schedule_coordinator();
    }

    fn schedule_coordinator(&mut self) {
        let world = self.now;
        let late = self
            .dice
            .between(Duration::ZERO, Duration::from_micros(400));
        let Some(steward) = &mut self.coordinator.running else {
            return;
        };
        let Some((at, _)) = steward.fleet.poll_timeout() else {
            return;
        };
        let asked = steward.booted_at + at.since_start();
        if asked > world {
            steward.spins = 0;
        }
        let due = asked.max(world) + late;
        if steward.wake.is_some_and(|wake| wake <= due && wake > world) {
            return;
        }
        steward.wake = Some(due);
        let run = steward.run;
        self.queue.push(due, Event::CoordinatorWakes { run, due });
    }

    fn commit(&mut self, id: fleet::CommitId, transaction: &Transaction) {
        if let Err(error) = transaction.check() {
            return self.violate("transactions keep their limits", error.to_string());
        }
        if self.coordinator.store.begin(id, transaction) {
            let after = self.coordinator.store.flush_time(&mut self.dice);
            let run = self.coordinator.running.as_ref().expect("it commits").run;
            self.push_in(after, Event::Flush { run });
        }
    }

    fn list(&mut self) {
        let now = self.coordinator.now(self.now);
        let (loaded, revision) = self.coordinator.store.listing();
        if let Some(steward) = &mut self.coordinator.running {
            steward.fleet.handle_listing(loaded, revision, now);
        }
    }

    fn coordinator_replies(&mut self, request: RequestId, result: Result<Reply, Rejection>) {
        let steward = self.coordinator.running.as_mut().expect("it replies");
        if let Some(order) = steward.orders.remove(&request) {
            self.handle_order_answered(order, result);
        } else if let Some(connection) = steward.enrolments.remove(&request) {
            self.enrolment_answered(connection, result);
        } else {
            steward.answers.insert(request, result);
        }
    }

    fn enrolment_answered(&mut self, id: ConnectionId, result: Result<Reply, Rejection>) {
        let answer = match result {
            Ok(Reply::Enrolled(enrolled)) => {
                match wire::decode_host_record(&enrolled.record.payload) {
                    Ok(record) => self
                        .ledger
                        .joined(record.host, record.name, record.addresses),
                    Err(error) => {
                        return self.violate("records can be read", error.to_string());
                    }
                }
                Ok(wire::encode_enrolled(&enrolled))
            }
            Ok(other) => {
                return self.violate("an enrolment is answered in kind", format!("{other:?}"));
            }
            Err(rejection) => Err(rejection.refusal),
        };
        self.send_frame(id, Way::Down, Frame::Answer(answer));
    }

    fn send_down(&mut self, session: SessionId, message: &ToHost) {
        let steward = self
            .coordinator
            .running
            .as_ref()
            .expect("it says something");
        if let Some(id) = steward.sessions.get(&session).copied() {
            let bytes = wire::encode_to_host(message);
            self.note_told(id, message, bytes.len());
            self.send_frame(id, Way::Down, Frame::Message(bytes));
        }
    }

    fn close_down(&mut self, session: SessionId) {
        let steward = self
            .coordinator
            .running
            .as_mut()
            .expect("it closes something");
        let Some(id) = steward.sessions.remove(&session) else {
            return;
        };
        self.send_frame(id, Way::Down, Frame::Close);
        if let Some(connection) = self.control.get_mut(id) {
            connection.is_coordinator_open = false;
            connection.session = None;
        }
    }
}
