//! What operators ask, who they are, and which role each question needs.

use model::admin::{
    ApplyPolicy, AuditQuery, CreateAdmin, CreateToken, PlanRequest, Role, RollbackPolicy,
    SetLabels, WhyRequest,
};
use model::control::RefusalCode;
use model::ids::{HostId, PolicyVersion, TokenId};
use model::name::Name;

use crate::output::Rejection;

/// Who asks, as the program authenticated them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Stands in the history beside what they did: an admin's name, or `local:UID`.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Where they are: an address, or `local socket`.
    pub from: String,
    /// Why they do it, as they say; may be empty.
    pub reason: String,
}

impl Caller {
    /// Makes a caller of whom nothing else is known.
    pub fn new(name: impl Into<String>, role: Role) -> Self {
        Self {
            name: name.into(),
            role,
            from: String::new(),
            reason: String::new(),
        }
    }
}

/// A question or order of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminRequest {
    /// `GET /v1/status`
    Status,
    /// `GET /v1/hosts`
    ListHosts,
    /// `GET /v1/hosts/NAME`
    ShowHost(Name),
    /// `PUT /v1/hosts/NAME/labels`
    SetLabels {
        /// Whose.
        host: Name,
        /// The whole set.
        set: SetLabels,
    },
    /// `PUT /v1/hosts/NAME/name`
    RenameHost {
        /// Which.
        host: Name,
        /// What it is called from now on.
        name: Name,
    },
    /// `DELETE /v1/hosts/NAME`
    RemoveHost(Name),
    /// `POST /v1/hosts/NAME/rotate-key`
    RotateHostKey(Name),
    /// `POST /v1/hosts/NAME/revoke`
    RevokeHost(Name),
    /// `GET /v1/removed`
    ListRemoved,
    /// `GET /v1/removed/ID`
    ShowRemoved(HostId),
    /// `GET /v1/recovery`
    ShowRecovery,
    /// `POST /v1/recovery`: this store is behind its hosts, for this reason.
    StartRecovery(String),
    /// `POST /v1/recovery/finish`
    FinishRecovery {
        /// Also when no host has told anything.
        force: bool,
    },
    /// `GET /v1/authority`
    ShowAuthority,
    /// `POST /v1/authority/rotate`
    RotateAuthority,
    /// `POST /v1/authority/retire`
    RetireAuthority {
        /// Also when hosts are left behind.
        force: bool,
    },
    /// `POST /v1/tokens`
    CreateToken(CreateToken),
    /// `GET /v1/tokens`
    ListTokens,
    /// `DELETE /v1/tokens/ID`
    RevokeToken(TokenId),
    /// `POST /v1/policy`
    ApplyPolicy(ApplyPolicy),
    /// `POST /v1/policy/rollback`
    RollbackPolicy(RollbackPolicy),
    /// `GET /v1/policy/versions`
    ListPolicyVersions,
    /// `GET /v1/policy/versions/N`; `None`: `GET /v1/policy`, the one in force.
    ShowPolicy(Option<PolicyVersion>),
    /// `POST /v1/policy/plan`
    PlanPolicy(PlanRequest),
    /// `GET /v1/policy/rollout`
    ShowRollout,
    /// `POST /v1/why`
    Why(WhyRequest),
    /// `POST /v1/admins`
    CreateAdmin(CreateAdmin),
    /// `GET /v1/admins`
    ListAdmins,
    /// `DELETE /v1/admins/NAME`
    RevokeAdmin(Name),
    /// `POST /v1/admins/NAME/credential`: the old one is nobody's from then on.
    ReplaceCredential(Name),
    /// `GET /v1/audit`
    ListAudit(AuditQuery),
}

impl AdminRequest {
    /// Returns whether `role` may ask this.
    pub fn allowed_for(&self, role: Role) -> bool {
        match self.needs() {
            Right::See => true,
            Right::Operate => matches!(role, Role::Operator | Role::Admin),
            Right::EditPolicy => matches!(role, Role::PolicyEditor | Role::Admin),
            Right::Administer => role == Role::Admin,
        }
    }

    /// Returns whether nothing is changed by it.
    pub(crate) fn is_question(&self) -> bool {
        match self {
            Self::PlanPolicy(_) => true,
            Self::ApplyPolicy(apply) => apply.dry_run,
            Self::RollbackPolicy(back) => back.dry_run,
            _ => matches!(self.needs(), Right::See),
        }
    }

    fn needs(&self) -> Right {
        match self {
            Self::Status
            | Self::ListHosts
            | Self::ShowHost(_)
            | Self::ListRemoved
            | Self::ShowRecovery
            | Self::ShowAuthority
            | Self::ShowRemoved(_)
            | Self::ListTokens
            | Self::ListPolicyVersions
            | Self::ShowPolicy(_)
            | Self::ShowRollout
            | Self::Why(_)
            | Self::ListAudit(_) => Right::See,
            Self::SetLabels { .. }
            | Self::RenameHost { .. }
            | Self::RemoveHost(_)
            | Self::RotateHostKey(_)
            | Self::RevokeHost(_)
            | Self::CreateToken(_)
            | Self::RevokeToken(_) => Right::Operate,
            // Also to try one: reading megabytes and running their tests is no viewer's to order.
            Self::PlanPolicy(_) | Self::ApplyPolicy(_) | Self::RollbackPolicy(_) => {
                Right::EditPolicy
            }
            Self::StartRecovery(_)
            | Self::FinishRecovery { .. }
            | Self::RotateAuthority
            | Self::RetireAuthority { .. }
            | Self::CreateAdmin(_)
            | Self::ListAdmins
            | Self::RevokeAdmin(_)
            | Self::ReplaceCredential(_) => Right::Administer,
        }
    }

    /// Returns what the audit log calls this.
    pub(crate) fn action(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::ListHosts => "host.list",
            Self::ShowHost(_) => "host.show",
            Self::SetLabels { .. } => "host.labels",
            Self::RemoveHost(_) => "host.remove",
            Self::RenameHost { .. } => "host.rename",
            Self::RotateHostKey(_) => "host.rotate-key",
            Self::RevokeHost { .. } => "host.revoke",
            Self::ListRemoved => "removed.list",
            Self::ShowRemoved(_) => "removed.show",
            Self::ShowRecovery => "recovery.show",
            Self::StartRecovery(_) => "recovery.start",
            Self::FinishRecovery { .. } => "recovery.finish",
            Self::ShowAuthority => "authority.show",
            Self::RotateAuthority => "authority.rotate",
            Self::RetireAuthority { .. } => "authority.retire",
            Self::CreateToken(_) => "token.create",
            Self::ListTokens => "token.list",
            Self::RevokeToken(_) => "token.revoke",
            Self::ApplyPolicy(_) => "policy.apply",
            Self::RollbackPolicy(_) => "policy.rollback",
            Self::ListPolicyVersions => "policy.history",
            Self::ShowPolicy(_) => "policy.show",
            Self::PlanPolicy(_) => "policy.plan",
            Self::ShowRollout => "policy.rollout",
            Self::Why(_) => "why",
            Self::CreateAdmin(_) => "admin.create",
            Self::ListAdmins => "admin.list",
            Self::RevokeAdmin(_) => "admin.revoke",
            Self::ReplaceCredential(_) => "admin.replace",
            Self::ListAudit(_) => "audit.list",
        }
    }

    pub(crate) fn check_allowed(&self, caller: &Caller) -> Result<(), Rejection> {
        if self.allowed_for(caller.role) {
            return Ok(());
        }
        let needed = match self.needs() {
            Right::See => "viewer",
            Right::Operate => "operator or admin",
            Right::EditPolicy => "policy editor or admin",
            Right::Administer => "admin",
        };
        Err(Rejection::new(
            RefusalCode::Denied,
            format!(
                "{} may not do this: it needs the role {needed}; ask an admin",
                caller.name
            ),
        ))
    }
}

/// What a request needs.
enum Right {
    See,
    Operate,
    EditPolicy,
    Administer,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_edits_policies_tries_and_applies_them_and_nobody_else() {
        let apply = |dry_run| {
            AdminRequest::ApplyPolicy(ApplyPolicy {
                files: Vec::new(),
                base: None,
                message: String::new(),
                dry_run,
            })
        };
        for dry_run in [true, false] {
            assert!(!apply(dry_run).allowed_for(Role::Viewer));
            assert!(!apply(dry_run).allowed_for(Role::Operator));
            assert!(apply(dry_run).allowed_for(Role::PolicyEditor));
        }
        assert!(apply(true).is_question() && !apply(false).is_question());
    }

    #[test]
    fn only_admins_make_admins() {
        let list = AdminRequest::ListAdmins;
        assert!(list.allowed_for(Role::Admin));
        for role in [Role::Viewer, Role::Operator, Role::PolicyEditor] {
            assert!(!list.allowed_for(role));
        }
    }

    #[test]
    fn a_refusal_names_the_role_that_is_needed() {
        let caller = Caller::new("eve", Role::Viewer);
        let refused = AdminRequest::RemoveHost("a".parse().unwrap()).check_allowed(&caller);
        assert_eq!(
            refused.unwrap_err().to_string(),
            "eve may not do this: it needs the role operator or admin; ask an admin"
        );
    }
}
