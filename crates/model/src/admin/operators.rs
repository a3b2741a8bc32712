//! Who may use the admin API: roles, and credentials that are shown once.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::Digest;
use crate::name::Name;

/// What somebody may do at the admin API.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sees everything that is not secret, checks policies, asks why.
    Viewer,
    /// As a viewer, and manages hosts and tokens.
    Operator,
    /// As a viewer, and changes the policy.
    PolicyEditor,
    /// Everything.
    Admin,
}

impl Role {
    /// Returns the word for it in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::PolicyEditor => "policy_editor",
            Self::Admin => "admin",
        }
    }
}

/// `POST /v1/admins`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateAdmin {
    /// Who; stands in the history beside what they did.
    pub name: Name,
    /// What they may do.
    pub role: Role,
    /// How long the credential is good for, in seconds, at most ten years; `None`: until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_for_secs: Option<u64>,
}

/// The answer to `CreateAdmin`, the only time that the credential is shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CreatedAdmin {
    /// Goes in `Authorization: Bearer CREDENTIAL`.
    pub credential: String,
    /// Its description.
    #[serde(flatten)]
    pub view: AdminView,
}

impl std::fmt::Debug for CreatedAdmin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedAdmin")
            .field("view", &self.view)
            .finish_non_exhaustive()
    }
}

/// One row of `GET /v1/admins`. `DELETE /v1/admins/NAME` withdraws the credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AdminView {
    /// Who.
    pub name: Name,
    /// What they may do.
    pub role: Role,
    /// Unix seconds.
    pub created_secs: u64,
    /// Who made the credential.
    pub created_by: String,
    /// Unix seconds from which on it opens nothing; `None`: it does not expire.
    #[serde(default)]
    pub expires_secs: Option<u64>,
}

/// What an operator's `meshctl` needs to reach a coordinator, as a JSON file of mode 0600. Secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminCredential {
    /// The fleet's name, for people.
    pub fleet: Name,
    /// `host:port` of coordinators, in the order of trying.
    pub addresses: Vec<String>,
    /// SHA-256 of the root certificate.
    pub root_pin: Digest,
    /// Who the operator is.
    pub name: String,
    /// Proves it.
    pub secret: String,
}

impl std::fmt::Debug for AdminCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminCredential")
            .field("fleet", &self.fleet)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
