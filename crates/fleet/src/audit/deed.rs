//! What somebody asked, as the log tells it: by whom, from where, why.

use model::admin::AuditOutcome;
use model::control::RefusalCode;
use model::time::Now;

use crate::fleet::Fleet;
use crate::output::Rejection;
use crate::request::{AdminRequest, Caller};
use crate::work::{Job, Origin, Work};

use super::refusals::Suspicion;

/// What somebody asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deed {
    pub(crate) who: String,
    pub(crate) from: String,
    pub(crate) action: String,
    pub(crate) outcome: AuditOutcome,
    pub(crate) reason: String,
}

impl Fleet {
    /// Returns what a job is about to do.
    pub(crate) fn deed(&self, job: &Job) -> Deed {
        let deed = |who: String, from: String, action: &str, reason: String| Deed {
            who,
            from,
            action: action.to_owned(),
            outcome: AuditOutcome::Done,
            reason,
        };
        match &job.work {
            Work::Admin { caller, request } => deed(
                caller.name.clone(),
                caller.from.clone(),
                request.action(),
                why(caller, request),
            ),
            Work::Enrol { request, from } => deed(
                format!("token {}", request.token),
                from.to_string(),
                "host.join",
                String::new(),
            ),
            Work::Note(deed) => (**deed).clone(),
            Work::Merge(_) | Work::KeepStatement(_) => deed(
                "recovery".to_owned(),
                String::new(),
                "recovery.store",
                String::new(),
            ),
            Work::StoreMoved(_) | Work::SignAgain => {
                let action = match job.work {
                    Work::SignAgain => "authority.sign",
                    _ => "authority.moved",
                };
                deed("authority".to_owned(), String::new(), action, String::new())
            }
            Work::ChangeCiphers(_) => deed(
                "hosts".to_owned(),
                String::new(),
                "host.ciphers",
                String::new(),
            ),
            Work::Leave(host) | Work::ChangeKey(host, _) => {
                let name = self.state.hosts.get(host).map(|it| &it.record.name);
                let who = name.map_or_else(|| format!("host {host}"), |it| format!("host {it}"));
                let action = match job.work {
                    Work::ChangeKey(..) => "host.key",
                    _ => "host.leave",
                };
                deed(who, self.origin_address(job.origin), action, String::new())
            }
        }
    }

    fn origin_address(&self, origin: Origin) -> String {
        let observed = match origin {
            Origin::Session(session) => self.sessions.observed(session),
            Origin::Request(_) | Origin::Nobody => None,
        };
        observed.map_or_else(String::new, |it| it.to_string())
    }

    /// Notes that a request was refused, when that is what an operator wants to find.
    pub(crate) fn note_rejection(&mut self, job: &Job, rejection: &Rejection, now: Now) {
        if rejection.refusal.code != RefusalCode::Denied {
            return;
        }
        let suspicion = match job.work {
            Work::Admin { .. } => Suspicion::Role,
            Work::Enrol { .. } => Suspicion::Token,
            _ => return,
        };
        let deed = Deed {
            outcome: AuditOutcome::Refused,
            reason: rejection.refusal.message.clone(),
            ..self.deed(job)
        };
        self.note_refused(suspicion, deed, now);
    }
}

/// What the operator says, or else what the request itself carries for the history.
fn why(caller: &Caller, request: &AdminRequest) -> String {
    match request {
        AdminRequest::ApplyPolicy(apply) if caller.reason.is_empty() => apply.message.clone(),
        _ => caller.reason.clone(),
    }
}
