//! The daemon while it serves: until it is told to stop, has handed over, or something in it ends
//! that must not.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, OptionFuture};
use model::control::{Refusal, RefusalCode};
use model::local::{HandedOver, Reloaded};
use runtime::local_socket::LocalSocket;
use runtime::metrics::{self, MetricsListen};
use runtime::process::{self, Termination};
use runtime::service_manager;
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;

use crate::brain::{Brain, BrainHandle, Input};
use crate::dns::DnsServer;
use crate::handover::{self, Link, Predecessor};
use crate::local_api::{self, AskedReload, LocalApi, ReloadAnswer};
use crate::reload::Reloader;
use crate::services::ServicesHandle;
use crate::stopping::{self, Stop};
use crate::watchdog;

/// For brain and overlay to end once a successor serves: they rest, and have little to do.
const VANISH_WITHIN: Duration = Duration::from_secs(5);
/// For calls of services that began before a successor served.
const CALLS_END_WITHIN: Duration = Duration::from_secs(30);

/// What serves.
pub(crate) struct Serving {
    pub(crate) api: LocalApi,
    pub(crate) socket: LocalSocket,
    pub(crate) dns: DnsServer,
    pub(crate) stop: Termination,
    pub(crate) hangups: Signal,
    pub(crate) reloader: Reloader,
    pub(crate) metrics_listen: watch::Receiver<MetricsListen>,
    pub(crate) asked: mpsc::Receiver<AskedReload>,
    pub(crate) predecessor: Arc<Predecessor>,
    pub(crate) services: ServicesHandle,
    /// The daemon before this one, which goes when this is dropped.
    pub(crate) before: Option<Link>,
}

/// How it ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was told to stop, and everything is taken back that is not for the next one.
    Stopped,
    /// Another daemon has everything.
    HandedOver,
}

/// A successor that serves, or why there is none, and who wants to know.
type HandingOver = BoxFuture<'static, (Result<handover::Serving, String>, ReloadAnswer)>;

/// What ends the loop.
#[expect(clippy::large_enum_variant, reason = "there is one in a daemon's life")]
enum Turn {
    Stop,
    Successor(handover::Serving, ReloadAnswer),
}

impl Serving {
    /// Serves.
    ///
    /// # Errors
    /// Something has ended that must not.
    pub(crate) async fn run(
        mut self,
        brain: Brain,
        mut keeping: JoinHandle<()>,
    ) -> Result<Ended, String> {
        let mut thinking = tokio::spawn(brain.run());
        let handle = self.api.brain.clone();
        let worker = self.predecessor.worker.clone();
        let living = tokio::spawn(watchdog::run(handle.clone(), worker));
        let source = self.api.metrics.clone();
        let trouble = source.trouble();
        let metrics = metrics::serve(self.metrics_listen.clone(), source, trouble);
        let measuring = tokio::spawn(metrics);
        let turn = self.until_turn(&mut thinking, &mut keeping).await;
        living.abort();
        measuring.abort();
        match turn? {
            Turn::Stop => {
                self.stop(&handle).await?;
                thinking.await.map_err(text)?.map_err(text)?;
                Ok(Ended::Stopped)
            }
            Turn::Successor(successor, answer) => {
                // Nobody is answered by two.
                self.socket.hand_over();
                drop(self.socket);
                drop(self.dns);
                let vanished = handle.ask(Input::Vanish);
                let tasks = [thinking.abort_handle(), keeping.abort_handle()];
                end_or_abort(vanished, VANISH_WITHIN, &tasks).await;
                leave(successor, answer, &self.services, &mut self.stop).await
            }
        }
    }

    async fn until_turn(
        &mut self,
        thinking: &mut JoinHandle<std::io::Result<()>>,
        keeping: &mut JoinHandle<()>,
    ) -> Result<Turn, String> {
        let Self {
            api,
            socket,
            stop,
            hangups,
            reloader,
            asked,
            predecessor,
            before,
            ..
        } = self;
        let mut serving = pin!(socket.serve(local_api::router(api.clone())));
        let mut handing_over: Option<HandingOver> = None;
        loop {
            let is_free = handing_over.is_none();
            let handing = OptionFuture::from(handing_over.as_mut());
            tokio::select! {
                ended = &mut *thinking => {
                    return Err(match ended {
                        Ok(Err(error)) => format!("the daemon's brain ended: {error}"),
                        Ok(Ok(())) => "the daemon's brain ended".into(),
                        Err(panic) => format!("the daemon's brain panicked: {panic}"),
                    });
                }
                ended = &mut *keeping => {
                    return Err(match ended {
                        Ok(()) => "what keeps the overlay ended".into(),
                        Err(panic) => format!("what keeps the overlay panicked: {panic}"),
                    });
                }
                () = &mut serving => return Ok(Turn::Stop),
                // Who sends a signal is told by the log.
                Some(()) = hangups.recv() => drop(reload(reloader, &api.brain).await),
                Some(asked) = asked.recv(), if is_free => {
                    if asked.hand_over || predecessor.program.has_changed() {
                        // Two daemons are enough: the one before goes now, if it is still there.
                        *before = None;
                        handing_over = Some(begin(Arc::clone(predecessor), asked.answer));
                    } else {
                        let read = reload(reloader, &api.brain).await;
                        let _ = asked.answer.send(read.map(|()| Reloaded { handed_over: None }));
                    }
                }
                Some((outcome, answer)) = handing => match outcome {
                    Ok(successor) => return Ok(Turn::Successor(successor, answer)),
                    Err(why) => {
                        handing_over = None;
                        api.metrics.hand_over_failed();
                        let message = format!(
                            "the running meshd {} goes on: {why}",
                            env!("CARGO_PKG_VERSION")
                        );
                        let _ = answer.send(Err(Refusal::new(RefusalCode::Conflict, message)));
                    }
                },
                signal = stop.heard() => {
                    tracing::info!(signal, "stopping");
                    process::notify_stopping();
                    return Ok(Turn::Stop);
                }
            }
        }
    }

    async fn stop(&self, handle: &BrainHandle) -> Result<(), String> {
        let stop = stopping::why().await;
        if stop == Stop::ToStartAgain {
            tracing::info!("what guards the overlay stays for the daemon that is started next");
        }
        let stopped = handle.ask(|done| Input::Stop(stop, done)).await;
        stopped.map_err(text)
    }
}

/// Waits until this daemon's own tasks have ended. One that hangs is ended: it rests, so that it has
/// nothing to write, and the successor waits for its end with packets that it lets through already.
async fn end_or_abort<T>(ended: impl Future<Output = T>, within: Duration, tasks: &[AbortHandle]) {
    if timeout(within, ended).await.is_ok() {
        return;
    }
    tracing::error!(
        "a part of this daemon did not end within {} s, and is not waited for",
        within.as_secs()
    );
    for task in tasks {
        task.abort();
    }
}

/// Leaves everything to a successor that serves.
async fn leave(
    mut successor: handover::Serving,
    answer: ReloadAnswer,
    services: &ServicesHandle,
    stop: &mut Termination,
) -> Result<Ended, String> {
    let told = successor.farewell().await;
    let done = told.inspect_err(|why| tracing::error!("{why}"))?;
    tell(&done);
    let handed_over = Some(done);
    let _ = answer.send(Ok(Reloaded { handed_over }));
    // The successor listens already: what it will accept is its own from now on.
    let calls = services.retire(CALLS_END_WITHIN);
    tokio::select! {
        _ = async { tokio::join!(successor.drain(), calls) } => {}
        signal = stop.heard() => tracing::debug!(signal, "not waiting for late packets and calls"),
    }
    Ok(Ended::HandedOver)
}

fn begin(predecessor: Arc<Predecessor>, answer: ReloadAnswer) -> HandingOver {
    Box::pin(async move { (predecessor.hand_over().await, answer) })
}

async fn reload(reloader: &mut Reloader, brain: &BrainHandle) -> Result<(), Refusal> {
    service_manager::reloading();
    let read = reloader.reload(brain).await;
    service_manager::ready("ready");
    read.map_err(|why| {
        let message = format!("meshd goes on with the settings that it has: {why}");
        Refusal::new(RefusalCode::Invalid, message)
    })
}

fn tell(done: &HandedOver) {
    tracing::info!(
        to = done.to,
        pause_micros = done.pause_micros,
        handshakes_begun = done.handshakes_begun,
        handshakes_answered = done.handshakes_answered,
        flows = done.flows,
        "handed over"
    );
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_hangs_is_ended_and_one_that_ends_is_left_to_it() {
        let hangs = || tokio::spawn(std::future::pending::<()>());
        let (brain, keeper) = (hangs(), hangs());
        let tasks = [brain.abort_handle(), keeper.abort_handle()];
        end_or_abort(std::future::ready(()), VANISH_WITHIN, &tasks).await;
        assert!(!brain.is_finished() && !keeper.is_finished());
        end_or_abort(std::future::pending::<()>(), Duration::ZERO, &tasks).await;
        assert!(brain.await.unwrap_err().is_cancelled());
        assert!(keeper.await.unwrap_err().is_cancelled());
    }
}
