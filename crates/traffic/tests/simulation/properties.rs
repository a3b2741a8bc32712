//! What holds whatever happens.

use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use model::time::Instant;
use proptest::prelude::*;
use traffic::{
    Admission, BreakerState, Call, CallShape, Ending, Failure, Health, Next, Outcome, Pick, Replay,
    RetrySettings, Settings, Upstream, Why,
};

use crate::world::{at, host};

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Endpoints(Vec<usize>),
    Health(usize, Health),
    Begin { key: Option<u64>, idempotent: bool },
    Pick(usize),
    Finish(usize, Outcome, Replay),
    End(usize, Ending),
}

fn step() -> impl Strategy<Value = Step> {
    let failure = prop_oneof![
        Just(Failure::Connect),
        Just(Failure::Unavailable),
        Just(Failure::Error),
        Just(Failure::Timeout),
        Just(Failure::Refused),
        Just(Failure::Unhealthy),
        Just(Failure::Unreachable),
    ];
    let outcome = prop_oneof![
        2 => Just(Outcome::Succeeded),
        1 => Just(Outcome::Begun),
        1 => Just(Outcome::NotJudged),
        6 => failure.prop_map(Outcome::Failed),
    ];
    let replay = prop_oneof![4 => Just(Replay::Possible), 1 => Just(Replay::Impossible)];
    let health = prop_oneof![
        Just(Health::Up),
        Just(Health::Down),
        Just(Health::Unknown),
        Just(Health::Unreachable),
    ];
    let ending = prop_oneof![
        Just(Ending::Complete),
        Just(Ending::Broken),
        Just(Ending::Abandoned)
    ];
    let key = proptest::option::weighted(0.3, 0u64..5);
    prop_oneof![
        2 => (0u64..3_000).prop_map(Step::Wait),
        1 => proptest::collection::vec(0usize..12, 0..12).prop_map(Step::Endpoints),
        2 => (0usize..12, health).prop_map(|(server, health)| Step::Health(server, health)),
        8 => (key, any::<bool>()).prop_map(|(key, idempotent)| Step::Begin { key, idempotent }),
        12 => (0usize..20).prop_map(Step::Pick),
        12 => (0usize..20, outcome, replay).prop_map(|(call, o, r)| Step::Finish(call, o, r)),
        4 => (0usize..20, ending).prop_map(|(call, ending)| Step::End(call, ending)),
    ]
}

/// A call, and whether it may be picked for or finished now.
struct Known {
    call: Call,
    sent: bool,
    answered: bool,
}

struct Run {
    upstream: Upstream,
    calls: Vec<Known>,
    now: Instant,
}

impl Run {
    fn ejected_within_the_limit(&self) {
        let views: Vec<_> = self.upstream.endpoints(self.now).collect();
        let ejected = views
            .iter()
            .filter(|view| view.breaker != BreakerState::Closed);
        assert!(ejected.count() * 2 <= views.len());
    }

    fn pick(&mut self, index: usize) {
        let Some(known) = self.calls.get_mut(index) else {
            return;
        };
        if known.sent || known.answered {
            return;
        }
        let before: Vec<_> = self.upstream.endpoints(self.now).collect();
        let using_all = self.upstream.is_using_all();
        let tried = known.call.tried().to_vec();
        let picked = self
            .upstream
            .poll_pick(&mut known.call, Waker::noop(), self.now);
        let Poll::Ready(Pick::Chosen(choice)) = picked else {
            return;
        };
        known.sent = true;
        // One that is found to take calls may be the first of them all.
        let using_all = using_all || choice.using_all;
        let chosen = before.iter().find(|view| view.endpoint == choice.endpoint);
        let chosen = chosen.expect("only endpoints are chosen");
        match (choice.why, chosen.breaker) {
            (Why::Probe, _) if chosen.health.is_down() => {
                assert!(chosen.told_down_since.is_some(), "{chosen:?}");
            }
            (Why::Probe, BreakerState::Open { until }) => assert!(until <= self.now),
            (Why::Probe, state) => panic!("a probe of one that is {state:?}"),
            (_, BreakerState::Closed) => {
                assert!(using_all || !chosen.health.is_down(), "{chosen:?}");
            }
            (_, state) => assert!(using_all, "{state:?}"),
        }
        if tried.contains(&choice.endpoint) {
            let healthy = |view: &&traffic::EndpointView| {
                view.breaker == BreakerState::Closed && !view.health.is_down()
            };
            let other = before
                .iter()
                .filter(healthy)
                .find(|view| !tried.contains(&view.endpoint));
            assert!(
                other.is_none(),
                "{choice:?} was tried, and {other:?} was not"
            );
        }
        assert!(known.call.try_until() <= known.call.deadline());
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Wait(millis) => self.now += Duration::from_millis(millis),
            Step::Endpoints(servers) => {
                let hosts: Vec<_> = servers.into_iter().map(host).collect();
                self.upstream.set_endpoints(&hosts, self.now);
            }
            Step::Health(server, health) => {
                self.upstream.set_health(host(server), health, self.now);
            }
            Step::Begin { key, idempotent } => self.begin(key, idempotent),
            Step::Pick(call) => self.pick(call),
            Step::Finish(call, outcome, replay) => self.finish(call, outcome, replay),
            Step::End(call, ending) if call < self.calls.len() => {
                let known = self.calls.swap_remove(call);
                self.upstream.end(known.call, ending, self.now);
            }
            Step::End(..) => {}
        }
        self.ejected_within_the_limit();
    }

    fn begin(&mut self, key: Option<u64>, idempotent: bool) {
        let shape = CallShape {
            key,
            idempotent,
            deadline: None,
        };
        let mut call = self.upstream.begin(shape, self.now);
        let admitted = self
            .upstream
            .poll_admission(&mut call, Waker::noop(), self.now);
        assert_eq!(admitted, Poll::Ready(Admission::Go));
        self.calls.push(Known {
            call,
            sent: false,
            answered: false,
        });
    }

    fn finish(&mut self, index: usize, outcome: Outcome, replay: Replay) {
        let Some(known) = self.calls.get_mut(index).filter(|known| known.sent) else {
            return;
        };
        known.sent = false;
        let next = self
            .upstream
            .finished(&mut known.call, outcome, replay, self.now);
        known.answered = !matches!(next, Next::Retry { .. });
        if let Next::Retry { .. } = next {
            assert!(known.call.attempts() < 3);
            assert!(matches!(outcome, Outcome::Failed(_)));
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_choices_are_lawful_and_counts_come_back_to_zero(
        steps in proptest::collection::vec(step(), 1..300)
    ) {
        let settings = Settings {
            retry: RetrySettings { attempts: 3, ..RetrySettings::default() },
            ..Settings::default()
        };
        let mut run = Run {
            upstream: Upstream::new(settings, Arc::default(), [9; 32], at(0)),
            calls: Vec::new(),
            now: at(0),
        };
        run.upstream.set_endpoints(&[host(0), host(1), host(2)], at(0));
        for step in steps {
            run.apply(step);
        }
        for known in std::mem::take(&mut run.calls) {
            run.upstream.end(known.call, Ending::Abandoned, run.now);
        }
        prop_assert_eq!(run.upstream.gauge().in_flight(), 0);
        prop_assert!(run.upstream.endpoints(run.now).all(|view| view.in_flight == 0));
    }
}
