//! How often mesh DNS was asked, and what came of it.

use std::sync::atomic::{AtomicU64, Ordering};

use hickory_proto::op::{Message, ResponseCode};

/// What came of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Answered,
    NoSuchName,
    Forwarded,
    ForwardFailed,
    Refused,
    Malformed,
}

/// Every outcome at its own place, with its name in metrics.
const OUTCOMES: [(Outcome, &str); 6] = [
    (Outcome::Answered, "answered"),
    (Outcome::NoSuchName, "no_such_name"),
    (Outcome::Forwarded, "forwarded"),
    (Outcome::ForwardFailed, "forward_failed"),
    (Outcome::Refused, "refused"),
    (Outcome::Malformed, "malformed"),
];

/// Counts of all addresses on which it answers.
#[derive(Debug, Default)]
pub struct DnsTally([AtomicU64; OUTCOMES.len()]);

impl DnsTally {
    /// Counts a question by its answer.
    pub(super) fn count(&self, said: &Message) {
        self.0[Outcome::of(said) as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how often each came of a question.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = OUTCOMES.iter().zip(&self.0);
        counts.map(|((_, name), count)| (*name, count.load(Ordering::Relaxed)))
    }
}

impl Outcome {
    fn of(said: &Message) -> Self {
        match (said.metadata.response_code, said.metadata.authoritative) {
            (ResponseCode::Refused, _) => Self::Refused,
            (ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS, _) => {
                Self::Malformed
            }
            (ResponseCode::NXDomain, true) => Self::NoSuchName,
            (_, true) => Self::Answered,
            (ResponseCode::ServFail, false) => Self::ForwardFailed,
            (_, false) => Self::Forwarded,
        }
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::OpCode;

    use super::*;

    #[test]
    fn what_came_of_a_question_shows_in_its_answer() {
        for (place, (outcome, _)) in OUTCOMES.iter().enumerate() {
            assert_eq!(*outcome as usize, place);
        }
        let tally = DnsTally::default();
        for (code, authoritative, name) in [
            (ResponseCode::NoError, true, "answered"),
            (ResponseCode::NXDomain, true, "no_such_name"),
            (ResponseCode::NXDomain, false, "forwarded"),
            (ResponseCode::ServFail, false, "forward_failed"),
            (ResponseCode::Refused, false, "refused"),
            (ResponseCode::BADVERS, false, "malformed"),
        ] {
            let mut said = Message::response(1, OpCode::Query);
            said.metadata.response_code = code;
            said.metadata.authoritative = authoritative;
            tally.count(&said);
            assert!(tally.counts().any(|it| it == (name, 1)), "{name}");
        }
    }
}
