//! Why a command failed, and the exit code that says so to scripts.

use std::process::ExitCode;

use runtime::api_client::ApiError;
use runtime::process::exit;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It was tried and did not work.
    #[error("{0}")]
    Failed(String),
    /// The command cannot be understood.
    #[error("{0}")]
    Usage(String),
    /// The daemon or coordinator is not reachable.
    #[error("{0}")]
    Unreachable(String),
    /// The caller may not do this.
    #[error("{0}")]
    Denied(String),
    /// Checked, and found wanting; the reasons are shown already when this is empty.
    #[error("{0}")]
    Wanting(String),
}

impl Failure {
    /// Returns the exit code of the program.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed(_) => exit::FAILED,
            Self::Usage(_) => exit::USAGE,
            Self::Unreachable(_) => exit::UNREACHABLE,
            Self::Denied(_) => exit::DENIED,
            Self::Wanting(_) => exit::WANTING,
        })
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Unreachable(message) => Self::Unreachable(message),
            ApiError::Protocol(message) => Self::Failed(message),
            ApiError::Refused { body, .. } if !body.diagnostics.is_empty() => {
                let mut lines: Vec<String> = body
                    .diagnostics
                    .iter()
                    .map(crate::output::diagnostic_line)
                    .collect();
                lines.push(body.message);
                Self::Wanting(lines.join("\n"))
            }
            ApiError::Refused {
                status: 401 | 403,
                body,
            } => Self::Denied(body.message),
            ApiError::Refused { body, .. } => Self::Failed(body.message),
        }
    }
}
