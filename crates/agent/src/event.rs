//! What the program tells the brain about the control channel, and how it says that it failed.

use std::time::Duration;

use model::control::{Description, Enrolled, Refusal, ToHost};

/// What happened on the control channel. There is one at a time.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // made and matched at once
pub enum ChannelEvent {
    /// Answers `Output::Describe`.
    Described(Result<Description, ChannelError>),
    /// Answers `Output::Enrol`.
    Enrolled(Result<Enrolled, EnrolError>),
    /// Answers `Output::OpenSync`: the stream stands, nothing was sent on it yet.
    Opened,
    /// The coordinator said something.
    Message(ToHost),
    /// The channel could not be opened, broke, or is closed as asked.
    Closed(ChannelError),
}

/// Why a coordinator could not be spoken to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ChannelError {
    /// What kind of failure it is.
    pub kind: ChannelErrorKind,
    /// What failed, why, what to try.
    pub message: String,
    /// When the coordinator wants to be asked again, if it says so.
    pub retry_after: Option<Duration>,
}

impl ChannelError {
    /// Makes an error.
    pub fn new(kind: ChannelErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            retry_after: None,
        }
    }

    /// Says when the coordinator wants to be asked again.
    #[must_use]
    pub fn after(self, retry_after: Option<Duration>) -> Self {
        Self {
            retry_after,
            ..self
        }
    }
}

/// Kinds of failure of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChannelErrorKind {
    /// No coordinator answers: name, route, port, time-out. Worth another try.
    Unreachable,
    /// It worked and then ended, or ended as asked. Worth another try.
    Interrupted,
    /// The coordinator's certificate does not match the pin or the fleet's roots.
    Untrusted,
    /// A certificate is not valid at the time of this machine's clock.
    Clock,
    /// The coordinator does not accept this host's certificate.
    Rejected,
    /// The other end does not speak the protocol.
    Protocol,
}

impl ChannelErrorKind {
    /// Returns whether a join may succeed when it is tried again at once.
    pub(crate) fn is_transient(self) -> bool {
        matches!(self, Self::Unreachable | Self::Interrupted)
    }
}

/// Why an enrolment failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnrolError {
    /// The coordinator answered, and refuses.
    #[error(transparent)]
    Refused(Refusal),
    /// It may or may not have happened: the same request may be sent again.
    #[error(transparent)]
    Channel(ChannelError),
}
