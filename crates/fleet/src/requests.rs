//! How a request goes from question to answer: planned against what is known, committed, and
//! answered once that is durable and taken over.

use std::time::Duration;

use model::admin::AppliedPolicy;
use model::control::{NewKey, RefusalCode, ToHost};
use model::ids::HostId;
use model::store::{Committed, Key, Transaction};
use model::time::Now;

use crate::apply::Change;
use crate::config::FleetLimits;
use crate::fleet::{CommitError, Fleet};
use crate::output::{CommitId, Output, Rejection, Reply, SessionId};
use crate::policy_work::Worked;
use crate::request::{AdminRequest, Caller};
use crate::work::{Answer, Job, Origin, Plan, Work};

/// When to try again, once there are too many requests under way.
pub(crate) const BUSY_RETRY_AFTER: Duration = Duration::from_secs(5);

impl Fleet {
    pub(crate) fn accept(&mut self, origin: Origin, work: Work, now: Now) {
        let job = Job {
            origin,
            work,
            conflicts: 0,
            handed_out: 0,
            done: None,
        };
        if self.commits.waiting() < FleetLimits::REQUESTS_MAX {
            return self.attempt(job, now);
        }
        self.answer(&job, Err(Rejection::busy(BUSY_RETRY_AFTER)), now);
    }

    pub(crate) fn accept_new_key(
        &mut self,
        session: SessionId,
        host: HostId,
        new: NewKey,
        now: Now,
    ) {
        self.accept(Origin::Session(session), Work::ChangeKey(host, new), now);
    }

    pub(crate) fn accept_leave(&mut self, session: SessionId, host: HostId, now: Now) {
        self.accept(Origin::Session(session), Work::Leave(host), now);
    }

    /// Plans a request against what is known now, and carries the plan out.
    pub(crate) fn attempt(&mut self, mut job: Job, now: Now) {
        let done = job.done.take();
        let worked = self.still_true(done, job.handed_out);
        let plan = worked.and_then(|worked| self.plan(&job.work, worked, now));
        match plan {
            Ok(Plan::Answer(reply)) => self.answer(&job, Ok(reply), now),
            Ok(Plan::Commit {
                transaction,
                answer,
            }) => self.commit(job, transaction, answer, now),
            Ok(Plan::Wait(on)) => self.commits.park(on, job),
            Ok(Plan::Keep(keys)) => self.keep_for(job, keys, now),
            Ok(Plan::HandOut(work)) => self.hand_out(job, *work, now),
            Ok(Plan::Ask(question)) => self.ask(job.origin, question, now),
            Err(rejection) => {
                self.note_rejection(&job, &rejection, now);
                self.answer(&job, Err(rejection), now);
            }
        }
    }

    fn plan(&mut self, work: &Work, worked: Option<Worked>, now: Now) -> Result<Plan, Rejection> {
        if work.is_signed() {
            self.check_can_sign()?;
        }
        match work {
            Work::Enrol { request, from } => {
                self.check_not_recovering()?;
                self.plan_enrolment(request, *from, now)
            }
            Work::Merge(remembered) => Ok(self.plan_merge(remembered, now).map_or(
                Plan::Answer(Reply::Noted),
                |transaction| Plan::Commit {
                    transaction,
                    answer: Answer::Noted,
                },
            )),
            Work::KeepStatement(told) => Ok(self.plan_later_statement(told, now)),
            Work::Leave(host) => self.plan_leave(*host, now),
            Work::ChangeKey(host, new) => self.plan_key_change(*host, new, now),
            Work::ChangeCiphers(portion) => self.plan_ciphers(portion, now),
            Work::StoreMoved(hosts) => Ok(self.plan_moved(hosts)),
            Work::SignAgain => Ok(self.plan_signing_again()),
            Work::Note(_) => Ok(Plan::Commit {
                transaction: Transaction::default(),
                answer: Answer::Noted,
            }),
            Work::Admin { caller, request } => {
                request.check_allowed(caller)?;
                if !request.is_question() && !matches!(request, AdminRequest::FinishRecovery { .. })
                {
                    self.check_not_recovering()?;
                }
                self.plan_admin(caller, request, worked, now)
            }
        }
    }

    fn plan_admin(
        &mut self,
        caller: &Caller,
        request: &AdminRequest,
        worked: Option<Worked>,
        now: Now,
    ) -> Result<Plan, Rejection> {
        let reply = match request {
            AdminRequest::Status => Reply::Status(self.status()),
            AdminRequest::ListHosts => Reply::Hosts(self.host_views()),
            AdminRequest::ShowHost(name) => {
                Reply::Host(self.host_view(self.state.known_host(name)?))
            }
            AdminRequest::ListRemoved => Reply::RemovedHosts(self.removed_views()),
            AdminRequest::ShowRemoved(id) => self.removed_host(*id)?,
            AdminRequest::ShowRecovery => Reply::Recovery(self.recovery_status()),
            AdminRequest::StartRecovery(why) => return self.plan_recovery(caller, why, now),
            AdminRequest::FinishRecovery { force } => {
                return self.plan_epoch(caller, *force, now);
            }
            AdminRequest::ShowAuthority => self.authority_view(Vec::new()),
            AdminRequest::RotateAuthority => return self.plan_rotation(caller, now),
            AdminRequest::RetireAuthority { force } => {
                return self.plan_retirement(caller, *force, now);
            }
            AdminRequest::ListTokens => Reply::Tokens(self.token_views()),
            AdminRequest::ListPolicyVersions => Reply::PolicyVersions(self.policy_views()),
            AdminRequest::ShowPolicy(version) => Reply::Policy(self.policy_content(*version)?),
            AdminRequest::PlanPolicy(request) => return self.plan_changes(request, worked),
            AdminRequest::ShowRollout => Reply::Rollout(self.rollout()),
            AdminRequest::ListAdmins => Reply::Admins(self.admin_views()),
            AdminRequest::SetLabels { host, set } => {
                return self.plan_labels(caller, host, set, now);
            }
            AdminRequest::RenameHost { host, name } => {
                return self.plan_rename(caller, host, name, now);
            }
            AdminRequest::RotateHostKey(name) => self.ask_for_new_key(name)?,
            AdminRequest::RevokeHost(name) => return self.plan_revocation(caller, name, now),
            AdminRequest::RemoveHost(name) => return self.plan_removal(caller, name, now),
            AdminRequest::CreateToken(create) => return self.plan_token(caller, create, now),
            AdminRequest::RevokeToken(id) => return self.plan_token_revocation(caller, *id, now),
            AdminRequest::ApplyPolicy(apply) => {
                return self.plan_policy(caller, apply, worked, now);
            }
            AdminRequest::RollbackPolicy(back) => {
                return self.plan_rollback(caller, back, worked, now);
            }
            AdminRequest::Why(why) => return self.plan_why(why, now),
            AdminRequest::CreateAdmin(create) => return self.plan_admin_made(caller, create, now),
            AdminRequest::RevokeAdmin(name) => return self.plan_admin_revoked(name, now),
            AdminRequest::ReplaceCredential(name) => {
                return self.plan_credential(caller, name, now);
            }
            AdminRequest::ListAudit(query) => Reply::Audit(self.audit_page(query)),
        };
        Ok(Plan::Answer(reply))
    }

    fn commit(&mut self, job: Job, mut transaction: Transaction, answer: Answer, now: Now) {
        if let Some(on) = self.commits.blocker(&transaction) {
            return self.commits.park(on, job);
        }
        let writes = transaction.operations.iter();
        let writes: Vec<Key> = writes.map(|operation| operation.key().clone()).collect();
        let deed = self.deed(&job);
        let generation = self.append_to_log(deed, &mut transaction, now.unix);
        if let Err(error) = transaction.check() {
            self.appender.break_off(generation);
            let text = format!("too large to be stored at once: {error}");
            return self.answer(&job, Err(Rejection::new(RefusalCode::Exhausted, text)), now);
        }
        let id = self.commits.begin(job, answer, writes, generation);
        self.output(Output::Commit { id, transaction });
    }

    /// Takes over what the store did, in the order of its revisions, and answers who waited for it.
    pub(crate) fn take_over(&mut self, now: Now) {
        while let Some((committed, by)) = self
            .commits
            .next_in_order(self.state.revision, now.monotonic)
        {
            if committed.revision > self.state.revision {
                self.apply_all(&committed, now);
            }
            if let Some(id) = by {
                self.conclude(id, now);
            }
        }
    }

    fn apply_all(&mut self, committed: &Committed, now: Now) {
        self.state.revision = committed.revision;
        let was_recovering = self.is_recovering();
        let trust_changed = self.state.trust_changed;
        let (mut removed, mut changed) = (Vec::new(), Vec::new());
        let mut before = None;
        for event in &committed.events {
            match self.state.apply(event) {
                Ok(Change::Host(moved)) if before.is_none() => self.note_move(&moved),
                Ok(Change::Host(moved)) => changed.push(moved.host),
                Ok(Change::Removed(moved)) => {
                    removed.push(moved.host);
                    if before.is_none() {
                        self.note_move(&moved);
                    }
                }
                // Of several in one commit, the first tells what hosts know.
                Ok(Change::Policy(arranged)) => {
                    before.get_or_insert(arranged);
                }
                Ok(Change::Logged(number)) => self.tell_logged(number),
                Ok(Change::Internal) => {}
                Err(error) => self.notice(error.to_string()),
            }
        }
        if let Some(before) = &before {
            self.note_rearranged(before, &changed, true);
        }
        for host in &removed {
            self.farewell_removed(*host, now);
        }
        self.note_statement(trust_changed, now);
        self.note_recovery(was_recovering, now);
        if before.is_some() || !removed.is_empty() {
            self.publish(now);
        } else {
            self.publish_changes_soon(now);
        }
    }

    fn tell_logged(&mut self, number: u64) {
        if let Some(entry) = self.state.audit.entry(number) {
            let entry = Box::new(entry.clone());
            self.output(Output::Audited(entry));
        }
    }

    fn conclude(&mut self, id: CommitId, now: Now) {
        let Some((flight, parked)) = self.commits.end(id) else {
            return;
        };
        let result = self.finish(&flight.job, flight.answer, now);
        self.answer(&flight.job, result, now);
        self.resume(parked, now);
    }

    fn finish(&mut self, job: &Job, answer: Answer, now: Now) -> Result<Reply, Rejection> {
        match answer {
            Answer::Enrolled(host) => self.enrolled(job, host, now),
            Answer::HostChanged(id) => {
                let host = self.state.hosts.get(&id).ok_or_else(overtaken)?;
                if matches!(job.work, Work::ChangeKey(..)) {
                    self.presences.entry(id).key_changed = Some(now.monotonic);
                }
                Ok(Reply::Host(self.host_view(host)))
            }
            Answer::Removed(view) => Ok(Reply::HostRemoved(*view)),
            Answer::TokenCreated { id, text } => self.token_created(id, text),
            Answer::TokenRevoked(id) => match self.token_view(&id) {
                Some(view) => Ok(Reply::Token(view)),
                None => Err(overtaken()),
            },
            Answer::PolicyApplied {
                version,
                warnings,
                tests_passed,
            } => Ok(Reply::PolicyApplied(AppliedPolicy {
                version,
                changed: true,
                diagnostics: warnings,
                tests_passed,
            })),
            Answer::AdminCreated { name, credential } => self.admin_created(&name, credential),
            Answer::AdminRevoked(view) => Ok(Reply::AdminRevoked(*view)),
            Answer::Noted => Ok(Reply::Noted),
            Answer::Authority { left_behind } => Ok(self.authority_view(left_behind)),
            Answer::Recovery => Ok(Reply::Recovery(self.recovery_status())),
        }
    }

    pub(crate) fn give_up(&mut self, id: CommitId, error: CommitError, now: Now) {
        let Some((flight, parked)) = self.commits.end(id) else {
            return;
        };
        let (mut job, generation) = (flight.job, flight.generation);
        match error {
            CommitError::Conflict => {
                self.appender.break_off(generation);
                job.conflicts += 1;
                if job.conflicts < FleetLimits::ATTEMPTS_MAX {
                    self.commits.retry_later(job, now.monotonic);
                } else {
                    let text = match self.appender.failure_of(generation) {
                        Some(reason) => format!("the change was not made durable: {reason}"),
                        None => "others keep changing the same; nothing was changed, try again"
                            .to_owned(),
                    };
                    let rejection = Rejection::new(RefusalCode::Unavailable, text);
                    self.answer(&job, Err(rejection), now);
                }
            }
            CommitError::Failed(reason) => {
                self.appender.fail(generation, &reason);
                let text = format!("the change was not made durable: {reason}");
                self.notice(text.clone());
                self.answer(
                    &job,
                    Err(Rejection::new(RefusalCode::Unavailable, text)),
                    now,
                );
            }
        }
        self.resume(parked, now);
    }

    fn resume(&mut self, jobs: Vec<Job>, now: Now) {
        for job in jobs {
            self.attempt(job, now);
        }
    }

    pub(crate) fn answer(&mut self, job: &Job, result: Result<Reply, Rejection>, now: Now) {
        match (job.origin, result) {
            (Origin::Request(request), result) => {
                self.reply(request, result);
            }
            // A host that left is told so when its removal is taken over.
            (Origin::Session(_), Ok(_)) => {}
            (Origin::Nobody, result) => self.after_own_work(job, result.is_err(), now),
            (Origin::Session(session), Err(rejection))
                if matches!(job.work, Work::ChangeKey(..)) =>
            {
                self.send(session, ToHost::KeyRefused(rejection.to_string()));
            }
            (Origin::Session(session), Err(rejection)) => {
                self.dismiss(session, rejection.to_string(), now);
            }
        }
    }
}

/// A commit that is durable was undone by a later one before it could be answered.
pub(crate) fn overtaken() -> Rejection {
    Rejection::new(
        RefusalCode::Conflict,
        "it was done, and undone by somebody else at once",
    )
}
