//! Requests that nobody gets to see: the parser of their connection refuses them and answers by itself,
//! or hangs up. They are counted and told of as others are, though their callers cannot be told which
//! call it was.

use std::cell::Cell;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use model::time::Instant;

use crate::calling::{Caught, Refused};
use crate::refusal::Reason;
use crate::snapshot::Snapshot;
use crate::worker::Worker;

/// How often one is logged: whoever sends them may send many.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// When one was logged, and how many were not since.
#[derive(Debug, Default)]
pub(crate) struct Unparsed {
    logged_at: Cell<Option<Instant>>,
    not_logged: Cell<u32>,
}

/// Tells of the request that ended a connection, if one did.
pub(crate) fn tell(
    worker: &Worker,
    caught: &Caught,
    snapshot: &Arc<Snapshot>,
    error: &hyper::Error,
) {
    let Some(status) = status(error) else {
        return;
    };
    let refused = Refused {
        worker,
        caught,
        snapshot,
        id: worker.next_call(),
        began: worker.now(),
        is_grpc: false,
    };
    refused.tell(None, Reason::BadRequest, None, status);
    let Some(not_logged) = worker.unparsed.counted(worker.clock.monotonic()) else {
        return;
    };
    tracing::info!(
        call = %refused.id, %error, status, aim = %caught.aim, app = %caught.app,
        uid = caught.origin.uid(), not_logged,
        "a program's request cannot be read and was refused; `meshctl explain` knows the call"
    );
}

/// Returns the status that the parser answered with, 0 where it has none; `None`: the connection ended
/// for another reason.
fn status(error: &hyper::Error) -> Option<u16> {
    if error.is_parse_too_large() {
        return Some(431);
    }
    if error.is_parse() {
        return Some(400);
    }
    let frames = error.source()?.downcast_ref::<h2::Error>()?;
    (frames.is_go_away() && frames.is_library()).then_some(0)
}

impl Unparsed {
    /// Counts one, and returns how many were not logged before it; `None`: neither is this one.
    fn counted(&self, now: Instant) -> Option<u32> {
        if self.logged_at.get().is_some_and(|at| now - at < LOG_EVERY) {
            self.not_logged.set(self.not_logged.get().saturating_add(1));
            return None;
        }
        self.logged_at.set(Some(now));
        Some(self.not_logged.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_logged_for_all_of_a_second() {
        let unparsed = Unparsed::default();
        let at = |millis| Instant::default() + Duration::from_millis(millis);
        assert_eq!(unparsed.counted(at(0)), Some(0));
        assert_eq!(unparsed.counted(at(10)), None);
        assert_eq!(unparsed.counted(at(999)), None);
        assert_eq!(unparsed.counted(at(1000)), Some(2));
        assert_eq!(unparsed.counted(at(2000)), Some(0));
    }
}
