//! A call that goes well takes nothing from the heap.

use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use traffic::{
    Admission, CallShape, Ending, Failure, Next, Outcome, Pick, Replay, Settings, Upstream,
};

use crate::world::{at, host};

#[test]
fn calls_with_and_without_keys_and_retries_allocate_nothing() {
    for endpoints in [1, 5, 8, 40] {
        let mut upstream = Upstream::new(Settings::default(), Arc::default(), [5; 32], at(0));
        upstream.set_endpoints(&(0..endpoints).map(host).collect::<Vec<_>>(), at(0));
        let mut now = at(0);
        let mut fail = 0;
        let mut call = |key: Option<u64>| {
            let shape = CallShape {
                key,
                idempotent: true,
                deadline: None,
            };
            let mut call = upstream.begin(shape, now);
            let admitted = upstream.poll_admission(&mut call, Waker::noop(), now);
            assert_eq!(admitted, Poll::Ready(Admission::Go));
            loop {
                let picked = upstream.poll_pick(&mut call, Waker::noop(), now);
                assert!(matches!(picked, Poll::Ready(Pick::Chosen(_))));
                now += Duration::from_millis(1);
                fail += 1;
                let outcome = if fail % 50 == 0 {
                    Outcome::Failed(Failure::Unavailable)
                } else {
                    Outcome::Succeeded
                };
                match upstream.finished(&mut call, outcome, Replay::Possible, now) {
                    Next::Retry { after } => now += after,
                    Next::PassOn | Next::GiveUp(_) => break,
                }
            }
            upstream.end(call, Ending::Complete, now);
        };
        (0..100).for_each(|key| call(Some(key)));
        let counted = allocation_counter::measure(|| {
            (0..1000).for_each(|round| call((round % 2 == 0).then_some(round)));
        });
        assert_eq!(counted.count_total, 0, "{endpoints} endpoints");
    }
}
