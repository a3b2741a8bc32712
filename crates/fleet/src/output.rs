//! What a fleet wants done: commits, answers, messages to hosts, closed sessions, notices.

use std::time::Duration;

use model::admin::{
    AdminView, AppliedPolicy, AuditEntry, AuditPage, AuthorityView, CoordinatorStatus,
    CreatedAdmin, CreatedToken, DiagnosticView, HostView, PlannedPolicy, PolicyContent,
    PolicyVersionView, RecoveryStatus, RemovedHost, RemovedHostView, Rollout, TokenView, WhyReport,
};
use model::control::{Enrolled, Refusal, RefusalCode, ToHost};
use model::store::Transaction;
use thiserror::Error;
use trust::AuthorityKeys;

use crate::policy_work::{PolicyWork, WorkId};

/// Names a request of a joining host or an operator; chosen by the program, unique while unanswered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Names one `Sync` stream; chosen by the program, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Names one commit; chosen by the fleet, rising.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(pub u64);

/// Names one write of the authority's keys; chosen by the fleet, rising.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeepId(pub u64);

/// Something that the program carries out. Order matters within `Commit`s and within the `Send`s and
/// `Close` of one session, and nowhere else.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // one at a time, moved once
pub enum Output {
    /// Carry out the transaction in the store, then call `Fleet::handle_commit`. Several may be
    /// under way at once; nothing that follows from one is said before it is durable.
    Commit {
        /// Comes back with the outcome.
        id: CommitId,
        /// Passes `Transaction::check`.
        transaction: Transaction,
    },
    /// Write these keys, and no others, to the disk, private and atomically, and wipe what was there;
    /// then call `Fleet::handle_authority_kept`. One at a time.
    KeepAuthority {
        /// Comes back with the outcome.
        id: KeepId,
        /// The oldest first.
        keys: Vec<AuthorityKeys>,
    },
    /// From now on issue the coordinator's own certificate with these keys, and let hosts in that
    /// show one of their roots.
    ShowAuthority {
        /// The oldest first.
        keys: Vec<AuthorityKeys>,
    },
    /// Do the work on another thread, then call `Fleet::handle_policy_done`. Several may be handed out
    /// at once.
    Work {
        /// Comes back with what came of it.
        id: WorkId,
        /// Takes up to seconds.
        work: PolicyWork,
    },
    /// A revision of the store is missing: read all keys, then call `Fleet::handle_listing`.
    List,
    /// The answer to a request, exactly one for each.
    Reply {
        /// The request.
        request: RequestId,
        /// The answer, or why not.
        result: Result<Reply, Rejection>,
    },
    /// A message to a host.
    Send {
        /// Its stream.
        session: SessionId,
        /// The message.
        message: ToHost,
    },
    /// Deliver what was sent, then close the stream. The fleet has forgotten it already.
    Close {
        /// The stream.
        session: SessionId,
    },
    /// Something that an operator should find in the log.
    Notice(String),
    /// The audit log has a new entry; for whoever keeps a copy of it.
    Audited(Box<AuditEntry>),
}

/// The answer to a request that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // one at a time, moved once
pub enum Reply {
    /// To an `EnrolRequest`.
    Enrolled(Enrolled),
    /// To `Status`.
    Status(CoordinatorStatus),
    /// To `ListHosts`.
    Hosts(Vec<HostView>),
    /// To `ShowHost`, `SetLabels`, `RenameHost`, `RotateHostKey`.
    Host(HostView),
    /// To `RemoveHost`, `RevokeHost`: as it was.
    HostRemoved(HostView),
    /// To `ListRemoved`, the last to go first.
    RemovedHosts(Vec<RemovedHostView>),
    /// To `ShowRemoved`.
    RemovedHost(RemovedHost),
    /// To `ShowRecovery`, `StartRecovery`, `FinishRecovery`.
    Recovery(RecoveryStatus),
    /// To `ShowAuthority`, `RotateAuthority`, `RetireAuthority`.
    Authority(AuthorityView),
    /// To `CreateToken`.
    TokenCreated(CreatedToken),
    /// To `ListTokens`.
    Tokens(Vec<TokenView>),
    /// To `RevokeToken`.
    Token(TokenView),
    /// To `ApplyPolicy`, `RollbackPolicy`.
    PolicyApplied(AppliedPolicy),
    /// To `ListPolicyVersions`, the newest first.
    PolicyVersions(Vec<PolicyVersionView>),
    /// To `ShowPolicy`.
    Policy(PolicyContent),
    /// To `PlanPolicy`.
    PolicyPlanned(Box<PlannedPolicy>),
    /// To `ShowRollout`.
    Rollout(Rollout),
    /// To `Why`.
    Why(WhyReport),
    /// To `CreateAdmin`.
    AdminCreated(CreatedAdmin),
    /// To `ListAdmins`.
    Admins(Vec<AdminView>),
    /// To `RevokeAdmin`: as it was.
    AdminRevoked(AdminView),
    /// To `ListAudit`.
    Audit(AuditPage),
    /// To nobody.
    Noted,
}

/// Why a request was not carried out; nothing of it happened.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{refusal}")]
pub struct Rejection {
    /// The code and the text.
    pub refusal: Refusal,
    /// The lines of a policy that are wrong, where that is the reason.
    pub diagnostics: Vec<DiagnosticView>,
    /// When to try the same again; `None`: that is nobody's to say.
    pub retry_after: Option<Duration>,
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            diagnostics: Vec::new(),
            retry_after: None,
        }
    }
}

impl Rejection {
    /// Rejects what may be asked again after a while.
    pub(crate) fn busy(retry_after: Duration) -> Self {
        let text = format!(
            "the coordinator has too much to do at once; try again in {} s",
            retry_after.as_secs()
        );
        Self {
            retry_after: Some(retry_after),
            ..Self::new(RefusalCode::Unavailable, text)
        }
    }

    /// Makes a rejection without diagnostics.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Refusal::new(code, message).into()
    }
}
