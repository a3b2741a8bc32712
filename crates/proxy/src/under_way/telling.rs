//! What is told of a call when it ends: what it did without, what its time went to, and the rest of
//! what its source knows.

use model::time::Instant;
use traffic::{Call, NoneReady, Overflow};

use super::{UnderWay, Without};
use crate::replay::Replay;
use crate::report::{CallReport, Side};
use crate::stages::{Stage, Stages};

impl UnderWay {
    /// Says what it did without.
    pub(super) fn detail(&self, without: Without) -> String {
        let upstream = self.called.upstream.borrow();
        let limits = &upstream.settings().limits;
        match without {
            Without::Room(Overflow::LineFull) => format!(
                "{} are under way and {} wait, as `limits` of the service says",
                limits.in_flight, limits.waiting
            ),
            Without::Room(Overflow::Waited) => format!(
                "{} are under way, as `limits` of the service says, and none ended in {} ms",
                limits.in_flight,
                limits.wait_max.as_millis()
            ),
            Without::Endpoint(NoneReady::NoEndpoints) => "no host offers it".to_owned(),
            Without::Endpoint(NoneReady::AllDown) => "all are known to be down".to_owned(),
            Without::Endpoint(NoneReady::AllTried) => "all had this call".to_owned(),
            Without::Endpoint(NoneReady::NotAllowed) => {
                "none that the policy lets this call go to".to_owned()
            }
        }
    }

    /// Tells of it, as it ends.
    pub(super) fn tell(&self, call: &Call, now: Instant) {
        let (mut request_bytes, mut answer_bytes) = (
            self.replay.as_ref().map_or(0, Replay::passed_bytes),
            self.answer_bytes,
        );
        if let Some(activity) = &self.bytes_of_socket {
            (request_bytes, answer_bytes) = activity.bytes();
        }
        self.stand.with_asked(|asked| {
            let workload = asked.origin.workload(&self.snapshot.gate);
            self.worker.observer.call_ended(
                self.worker.thread,
                &CallReport {
                    id: self.id,
                    side: Side::Source,
                    from: asked.origin.host(),
                    workload: workload.as_deref(),
                    tried: call.tried(),
                    choice: self.choice,
                    gave_up: self.gave_up,
                    trace: self.trace,
                    aim: &asked.aim,
                    dialled: asked.dialled(),
                    method: self.method.as_ref(),
                    path: asked.request.as_ref().map(|request| request.path()),
                    status: self.status,
                    grpc_status: self.grpc_status,
                    reason: self.reason,
                    rule: Some(self.snapshot.gate.rule(self.rule)),
                    policy: self.snapshot.gate.version(),
                    began: self.began,
                    stages: self.stages(now),
                    request_bytes,
                    answer_bytes,
                },
            );
        });
    }

    /// Returns what its time went to.
    fn stages(&self, now: Instant) -> Stages {
        let stages = Stages::default();
        let Some(sent_at) = self.sent_at else {
            return stages.with(Stage::Queue, now - self.began.monotonic);
        };
        let stages = stages.with(Stage::Queue, sent_at - self.began.monotonic);
        let answered_at = self.answered_at.unwrap_or(now);
        let is_here = self.stand.with_asked(|asked| asked.to) == self.snapshot.catalogue.me;
        let stages = match self.connected.at() {
            _ if is_here => stages.with_near(sent_at, self.handed.at(), answered_at),
            None => stages.with(Stage::Connect, answered_at - sent_at),
            Some(connected) => stages
                .with(Stage::Connect, connected - sent_at)
                .with_far(answered_at - connected, self.told.get()),
        };
        match self.answered_at {
            Some(answered_at) => stages.with(Stage::Body, now - answered_at),
            None => stages,
        }
    }
}
