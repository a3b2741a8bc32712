//! Proof of life for the service manager: the brain answers, and every packet thread comes by. Where
//! one of them hangs, nothing is said, and the service manager starts the daemon anew.

use std::time::Duration;

use runtime::service_manager;

use crate::brain::{BrainHandle, Input};
use crate::packets::WorkerHandle;

/// Tells the service manager that the daemon lives, as often as it asks, until this is dropped. Where
/// it does not ask, it waits for ever.
pub(crate) async fn run(brain: BrainHandle, worker: WorkerHandle) {
    let Some(interval) = service_manager::watchdog_interval() else {
        return std::future::pending().await;
    };
    // Half of it, as sd_watchdog_enabled(3) recommends.
    let mut beats = tokio::time::interval(interval / 2);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        if lives(&brain, &worker, interval).await {
            service_manager::alive();
        } else {
            tracing::error!("the daemon hangs: its brain or a packet thread does not answer");
        }
    }
}

async fn lives(brain: &BrainHandle, worker: &WorkerHandle, within: Duration) -> bool {
    let both = async { tokio::join!(brain.ask(Input::OwnAddresses), worker.beat()) };
    match tokio::time::timeout(within, both).await {
        Ok((answered, beaten)) => answered.is_ok() && beaten.is_ok(),
        Err(_) => false,
    }
}
