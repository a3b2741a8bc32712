//! How an attempt and a call ended, as far as it matters to the next one.

/// What came of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint did its work; a refusal of what was asked (4xx) is work too.
    Succeeded,
    /// The head is there, but whether it worked shows only at the end (gRPC): `settle` follows.
    Begun,
    /// It says nothing of the endpoint: the mesh there denied the call.
    NotJudged,
    /// It did not work.
    Failed(Failure),
}

/// Why an attempt did not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// The endpoint took no connection; it saw nothing of the request.
    Connect,
    /// Its own host says that it does not work; it saw nothing of the request.
    Unhealthy,
    /// No session comes about with its host; that holds until somebody says otherwise.
    Unreachable,
    /// The stream was refused, or the session ended before it was looked at (GOAWAY); the endpoint
    /// did nothing.
    Refused,
    /// No head within the attempt's time.
    Timeout,
    /// The stream broke before the head, or the body before its end.
    Broken,
    /// It answered that it cannot now (502, 503, 504, gRPC `UNAVAILABLE`).
    Unavailable,
    /// It answered that it is overloaded and that nobody shall try again.
    Shed,
    /// It answered that it failed (500 and others, gRPC `INTERNAL` and others).
    Error,
}

impl Failure {
    /// Returns the name in logs, metrics and headers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect_failed",
            Self::Unhealthy => "unhealthy",
            Self::Unreachable => "unreachable",
            Self::Refused => "stream_refused",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::Unavailable => "unavailable",
            Self::Shed => "shed",
            Self::Error => "error",
        }
    }

    /// Whether the endpoint did nothing with the request for sure.
    pub(crate) const fn untouched(self) -> bool {
        matches!(self, Self::Connect | Self::Refused) || self.is_of_health()
    }

    /// Whether the endpoint answered, so that it is there.
    pub(crate) const fn is_answer(self) -> bool {
        matches!(self, Self::Unavailable | Self::Shed | Self::Error)
    }

    /// Whether it says for sure that the endpoint takes no other call either.
    pub(crate) const fn is_of_health(self) -> bool {
        matches!(self, Self::Unhealthy | Self::Unreachable)
    }
}

impl Outcome {
    /// Returns what an HTTP status means.
    pub const fn of_status(status: u16) -> Self {
        match status {
            502..=504 => Self::Failed(Failure::Unavailable),
            // The request asks for what the server does not have: its own work is well.
            501 | 505 => Self::Succeeded,
            500.. => Self::Failed(Failure::Error),
            _ => Self::Succeeded,
        }
    }

    /// Returns what a gRPC status means.
    pub const fn of_grpc(code: u32) -> Self {
        match code {
            14 => Self::Failed(Failure::Unavailable), // UNAVAILABLE
            // UNKNOWN (an exception in many servers), DEADLINE_EXCEEDED, INTERNAL, DATA_LOSS
            2 | 4 | 13 | 15 => Self::Failed(Failure::Error),
            _ => Self::Succeeded,
        }
    }
}

/// How a whole call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The answer was passed on to its end, or the proxy answered in the endpoint's place.
    Complete,
    /// The endpoint's answer broke off after its head.
    Broken,
    /// The caller went away.
    Abandoned,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_mean_what_they_say_of_the_endpoint() {
        for (status, expected) in [
            (200, Outcome::Succeeded),
            (404, Outcome::Succeeded),
            (429, Outcome::Succeeded),
            (500, Outcome::Failed(Failure::Error)),
            (501, Outcome::Succeeded),
            (503, Outcome::Failed(Failure::Unavailable)),
            (599, Outcome::Failed(Failure::Error)),
        ] {
            assert_eq!(Outcome::of_status(status), expected, "{status}");
        }
        for (code, expected) in [
            (0, Outcome::Succeeded),
            (5, Outcome::Succeeded),
            (13, Outcome::Failed(Failure::Error)),
            (14, Outcome::Failed(Failure::Unavailable)),
        ] {
            assert_eq!(Outcome::of_grpc(code), expected, "{code}");
        }
    }
}
