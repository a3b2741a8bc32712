//! A plan, asked of the coordinator: it alone knows which hosts the names in force mean.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DiagnosticView, PolicyFile, PolicyPlan};
use crate::ids::PolicyVersion;

/// `POST /v1/policy/plan`: what would a directory, or an old version, change?
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    /// The whole directory; empty: `version` is meant.
    #[serde(default)]
    pub files: Vec<PolicyFile>,
    /// An old version instead of files.
    #[serde(default)]
    pub version: Option<PolicyVersion>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedPolicy {
    /// The version in force, which it was made against.
    pub base: PolicyVersion,
    /// What would change.
    #[serde(flatten)]
    pub plan: PolicyPlan,
    /// What is wrong with it, or deserves a look, as `apply` would say.
    #[serde(default)]
    pub diagnostics: Vec<DiagnosticView>,
}
