//! How long one attempt may take.

use std::pin::pin;

use http::HeaderMap;

use crate::calling::patiently;
use crate::under_way::UnderWay;
use crate::worker::Worker;

/// Lets an attempt take its time, and all that its call has where no other could follow when its own
/// is up. `headers` are those of the request, if it is one. `None`: the time is up.
pub(crate) async fn in_its_time<T>(
    worker: &Worker,
    under_way: &UnderWay,
    headers: Option<&HeaderMap>,
    attempt: impl Future<Output = T>,
) -> Option<T> {
    let mut attempt = pin!(attempt);
    let mut until = under_way.call().try_until();
    loop {
        let deadline = worker.clock.tokio_deadline(until);
        let (patience, replay) = (worker.limits.body_wait, under_way.replay());
        match patiently(deadline, patience, replay, attempt.as_mut()).await {
            Some(came) => return Some(came),
            None => until = under_way.go_on(headers)?,
        }
    }
}
