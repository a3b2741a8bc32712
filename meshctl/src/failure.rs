//! Why a command failed, and the exit code that says so to scripts.

use std::process::ExitCode;

use model::admin::DiagnosticView;
use runtime::api_client::ApiError;
use runtime::process::exit;
use schemars::JsonSchema;
use serde::Serialize;

/// Every exit code: what programs call it, and when it is used.
pub const EXIT_CODES: [(u8, &str, &str); 6] = [
    (exit::DONE, "done", "what was asked was done"),
    (
        exit::FAILED,
        "failed",
        "it was tried and did not work: it clashes with what is there, does not exist, or exceeds a limit",
    ),
    (exit::USAGE, "usage", "the command cannot be understood"),
    (
        exit::UNREACHABLE,
        "unreachable",
        "the daemon or coordinator is not reachable, or cannot answer now: trying again may help",
    ),
    (
        exit::DENIED,
        "denied",
        "the caller may not do this, or the join token or credential does not permit it (any more)",
    ),
    (
        exit::WANTING,
        "wanting",
        "checked and found wanting: a policy, its tests, a plan, a flow that is denied, a log, a host's health",
    ),
];

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It was tried and did not work.
    #[error("{0}")]
    Failed(String),
    /// The command cannot be understood.
    #[error("{0}")]
    Usage(String),
    /// The daemon or coordinator is not reachable, or cannot answer now.
    #[error("{0}")]
    Unreachable(String),
    /// The caller may not do this.
    #[error("{0}")]
    Denied(String),
    /// Checked, and found wanting; the reasons are shown already when this is empty.
    #[error("{0}")]
    Wanting(String),
    /// A policy is wrong in these lines.
    #[error("{}\n{message}", lines.trim_end())]
    Faulty {
        /// What it amounts to.
        message: String,
        /// The lines, for people.
        lines: String,
        /// The lines, for programs.
        diagnostics: Vec<DiagnosticView>,
    },
}

/// A failure as `--json` shows it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ErrorReport<'a> {
    /// The word for the exit code.
    #[schemars(extend("enum" = words()))]
    pub code: &'static str,
    /// The exit code itself.
    pub exit_code: u8,
    /// What failed, why, what to try.
    pub message: String,
    /// Lines of a policy that are wrong, where that is the reason.
    pub diagnostics: &'a [DiagnosticView],
}

fn words() -> Vec<&'static str> {
    let failures = EXIT_CODES.iter().filter(|(code, ..)| *code != exit::DONE);
    failures.map(|(_, word, _)| *word).collect()
}

impl Failure {
    /// Returns the exit code of the program.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }

    /// Puts what was done before, when it is a server that cannot be reached any more.
    #[must_use]
    pub fn after(self, done: &str) -> Self {
        match self {
            Self::Unreachable(why) => Self::Unreachable(format!("{done}: {why}")),
            other => other,
        }
    }

    /// Returns what programs are told.
    pub fn report(&self) -> ErrorReport<'_> {
        let exit_code = self.code();
        let known = EXIT_CODES.iter().find(|(code, ..)| *code == exit_code);
        let (message, diagnostics) = match self {
            Self::Faulty {
                message,
                diagnostics,
                ..
            } => (message.clone(), diagnostics.as_slice()),
            other => (other.to_string(), [].as_slice()),
        };
        ErrorReport {
            code: known.map_or("failed", |(_, word, _)| word),
            exit_code,
            message,
            diagnostics,
        }
    }

    fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => exit::FAILED,
            Self::Usage(_) => exit::USAGE,
            Self::Unreachable(_) => exit::UNREACHABLE,
            Self::Denied(_) => exit::DENIED,
            Self::Wanting(_) | Self::Faulty { .. } => exit::WANTING,
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Unreachable(message) => Self::Unreachable(message),
            ApiError::Protocol(message) => Self::Failed(message),
            ApiError::Refused { body, .. } if !body.diagnostics.is_empty() => {
                let lines = body.diagnostics.iter().map(crate::output::diagnostic_line);
                Self::Faulty {
                    lines: lines.collect::<Vec<_>>().join("\n"),
                    message: body.message,
                    diagnostics: body.diagnostics,
                }
            }
            ApiError::Refused { status, body } => match status {
                401 | 403 => Self::Denied(body.message),
                503 => Self::Unreachable(body.message),
                _ => Self::Failed(body.message),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use model::admin::ErrorBody;

    use super::*;

    fn refused(status: u16) -> u8 {
        let body = ErrorBody {
            code: String::new(),
            message: "no".into(),
            diagnostics: Vec::new(),
        };
        Failure::from(ApiError::Refused { status, body }).code()
    }

    #[test]
    fn every_refusal_has_the_exit_code_of_the_table() {
        let table = [
            (400, exit::FAILED),
            (401, exit::DENIED),
            (403, exit::DENIED),
            (404, exit::FAILED),
            (409, exit::FAILED),
            (422, exit::FAILED),
            (429, exit::FAILED),
            (503, exit::UNREACHABLE),
        ];
        for (status, code) in table {
            assert_eq!(refused(status), code, "{status}");
        }
    }

    #[test]
    fn programs_get_the_lines_and_people_read_them() {
        let diagnostic = DiagnosticView {
            severity: "error".into(),
            file: "policy.yaml".into(),
            line: 3,
            column: 1,
            message: "no such key".into(),
            help: None,
        };
        let body = ErrorBody {
            code: "invalid".into(),
            message: "the policy has an error".into(),
            diagnostics: vec![diagnostic.clone()],
        };
        let failure = Failure::from(ApiError::Refused { status: 422, body });
        let report = failure.report();
        assert_eq!((report.code, report.exit_code), ("wanting", exit::WANTING));
        assert_eq!(report.diagnostics, [diagnostic]);
        assert_eq!(
            failure.to_string(),
            "policy.yaml:3:1: error: no such key\nthe policy has an error"
        );
    }
}
