//! What a check found: how bad it is, what it is, why it matters, what to do.

use schemars::JsonSchema;
use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[schemars(rename = "FindingOutcome")]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// Nothing is wrong.
    Ok,
    /// It could not be looked at, or does not apply.
    Skipped,
    /// It works, and may not for long, or not for all.
    Warning,
    /// It does not work.
    Failure,
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Finding {
    /// Which check, for programs.
    pub(crate) check: &'static str,
    /// How bad it is.
    pub(crate) outcome: Outcome,
    /// What is so.
    pub(crate) what: String,
    /// What comes of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<&'static str>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) advice: Option<String>,
}

impl Finding {
    pub(crate) fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self::plain(check, Outcome::Ok, what.into())
    }

    /// `what` says why it was not looked at.
    pub(crate) fn skipped(check: &'static str, what: impl Into<String>) -> Self {
        Self::plain(check, Outcome::Skipped, what.into())
    }

    pub(crate) fn warning(
        check: &'static str,
        what: impl Into<String>,
        why: &'static str,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            why: Some(why),
            advice: Some(advice.into()),
            ..Self::plain(check, Outcome::Warning, what.into())
        }
    }

    pub(crate) fn failure(
        check: &'static str,
        what: impl Into<String>,
        why: &'static str,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            outcome: Outcome::Failure,
            ..Self::warning(check, what, why, advice)
        }
    }

    fn plain(check: &'static str, outcome: Outcome, what: String) -> Self {
        Self {
            check,
            outcome,
            what,
            why: None,
            advice: None,
        }
    }
}
