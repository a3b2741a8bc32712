//! What operators ask, who they are, and which role each question needs.

use model::admin::{
    ApplyPolicy, CreateAdmin, CreateToken, Role, RollbackPolicy, SetLabels, WhyRequest,
};
use model::control::RefusalCode;
use model::ids::{PolicyVersion, TokenId};
use model::name::Name;

use crate::output::Rejection;

/// Who asks, as the program authenticated them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Stands in the history beside what they did: an admin's name, or `root` at the local socket.
    pub name: String,
    /// What they may do.
    pub role: Role,
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
    /// `DELETE /v1/hosts/NAME`
    RemoveHost(Name),
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

    fn needs(&self) -> Right {
        match self {
            Self::Status
            | Self::ListHosts
            | Self::ShowHost(_)
            | Self::ListTokens
            | Self::ListPolicyVersions
            | Self::ShowPolicy(_)
            | Self::ShowRollout
            | Self::Why(_) => Right::See,
            Self::ApplyPolicy(apply) if apply.dry_run => Right::See,
            Self::SetLabels { .. }
            | Self::RemoveHost(_)
            | Self::CreateToken(_)
            | Self::RevokeToken(_) => Right::Operate,
            Self::ApplyPolicy(_) | Self::RollbackPolicy(_) => Right::EditPolicy,
            Self::CreateAdmin(_) | Self::ListAdmins | Self::RevokeAdmin(_) => Right::Administer,
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
    fn a_viewer_may_check_a_policy_but_not_apply_it() {
        let apply = |dry_run| {
            AdminRequest::ApplyPolicy(ApplyPolicy {
                files: Vec::new(),
                base: None,
                message: String::new(),
                dry_run,
            })
        };
        assert!(apply(true).allowed_for(Role::Viewer));
        assert!(!apply(false).allowed_for(Role::Viewer));
        assert!(!apply(false).allowed_for(Role::Operator));
        assert!(apply(false).allowed_for(Role::PolicyEditor));
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
        let caller = Caller {
            name: "eve".into(),
            role: Role::Viewer,
        };
        let refused = AdminRequest::RemoveHost("a".parse().unwrap()).check_allowed(&caller);
        assert_eq!(
            refused.unwrap_err().to_string(),
            "eve may not do this: it needs the role operator or admin; ask an admin"
        );
    }
}
