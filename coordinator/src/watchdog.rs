//! Proof of life for the service manager: the brain answers. Where it hangs, nothing is said, and the
//! service manager starts the coordinator anew.

use runtime::service_manager;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::brain::{BrainHandle, Input};

/// Tells the service manager that the coordinator lives, as often as it asks, until this is dropped.
/// Where it does not ask, it waits for ever.
pub(crate) async fn run(brain: BrainHandle) {
    let Some(within) = service_manager::watchdog_interval() else {
        return std::future::pending().await;
    };
    // Half of it, as sd_watchdog_enabled(3) recommends.
    let mut beats = interval(within / 2);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        match timeout(within, brain.ask(Input::Describe)).await {
            Ok(Ok(_)) => service_manager::alive(),
            _ => tracing::error!("the coordinator hangs: its brain does not answer"),
        }
    }
}
