//! Which workloads of this host send its flows of UDP, where a rule asks that. A thread of its own
//! asks the kernel, since packets wait for the answer.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use arc_swap::ArcSwapOption;
use dataplane::{Command, Sending};
use model::name::Name;
use policy::Gate;

use super::callers::Callers;
use crate::packets::{WorkerHandle, WorkerMessage};

/// Questions that may wait; what is above it is asked again with the next packet.
const QUESTIONS_MAX: usize = 1024;
/// Answers that are given together.
const ANSWERS_MAX: usize = 64;

/// Talks to the thread.
pub(super) struct Senders {
    questions: SyncSender<Sending>,
    gate: Arc<ArcSwapOption<Gate>>,
}

impl Senders {
    /// Starts the thread, which ends with this.
    ///
    /// # Errors
    /// There is no /proc, or no thread.
    pub(super) fn start(intercept_port: u16, worker: WorkerHandle) -> io::Result<Self> {
        let (questions, asked) = sync_channel(QUESTIONS_MAX);
        let gate: Arc<ArcSwapOption<Gate>> = Arc::default();
        let kernel = Kernel {
            callers: Callers::new(intercept_port)?,
            gate: Arc::clone(&gate),
        };
        let thread = std::thread::Builder::new().name("senders".to_owned());
        thread.spawn(move || answer_on(&asked, &kernel, &worker))?;
        Ok(Self { questions, gate })
    }

    /// Takes which workloads there are; `None`: this host is no member.
    pub(super) fn set_gate(&self, gate: Option<Arc<Gate>>) {
        self.gate.store(gate);
    }

    /// Has a question answered.
    pub(super) fn ask(&self, of: Sending) {
        if self.questions.try_send(of).is_err() {
            tracing::debug!(source = %of.source, "too much is asked of who sends what");
        }
    }
}

/// What knows the processes of this host, and what the policy calls them.
struct Kernel {
    callers: Callers,
    gate: Arc<ArcSwapOption<Gate>>,
}

impl Kernel {
    /// Returns the workload that sends a flow; `None`: nobody that the policy names.
    fn workload_of(&self, of: Sending) -> Option<Name> {
        let gate = self.gate.load();
        let caller = self.callers.of_datagrams(of.source);
        let workload = gate.as_ref()?.workload_of(&caller.process()?);
        if workload.is_none() {
            let (source, destination) = (of.source, of.destination);
            tracing::debug!(%source, %destination, ?caller, "no workload sends this");
        }
        workload.cloned()
    }
}

fn answer_on(asked: &Receiver<Sending>, kernel: &Kernel, worker: &WorkerHandle) {
    while let Ok(first) = asked.recv() {
        let more = asked.try_iter().take(ANSWERS_MAX - 1);
        let all = std::iter::once(first).chain(more);
        let answers = all.map(|of| Command::Sender {
            of,
            workload: kernel.workload_of(of),
        });
        let told = worker.send(WorkerMessage::Commands(answers.collect()));
        if told.is_err() {
            return;
        }
    }
}
