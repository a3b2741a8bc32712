//! Questions of operators about calls that nobody has made yet: what is known of them, and how they
//! are answered as long as something is not.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::Name;
use crate::rule::{HeaderName, HeaderText, Method, RequestPath};

/// What is known of a call beside its two hosts and its port. What is left out may be anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CallFacts {
    /// The service that is called at its port; `None`: the host itself is dialled. Of a question of
    /// an operator, who names the service as what is reached, the coordinator fills it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Name>,
    /// Who on the host calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Name>,
    /// The method of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// The path of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<RequestPath>,
    /// The host that the request is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HeaderText>,
    /// Headers of the request, and headers that it does not have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderFact>,
    /// Unix seconds when it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_secs: Option<u64>,
}

impl CallFacts {
    /// Returns whether anything is said of the request.
    pub const fn is_of_request(&self) -> bool {
        self.method.is_some()
            || self.path.is_some()
            || self.host.is_some()
            || !self.headers.is_empty()
    }

    /// Returns whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What is known of one header of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderFact {
    /// Its name.
    pub name: HeaderName,
    /// What it says; `None`: the request does not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<HeaderText>,
}

/// What the policy says of calls of which not everything is known.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// None of them may pass.
    Denied,
    /// It is up to what is not known.
    Depends,
    /// All of them may pass.
    Allowed,
}
