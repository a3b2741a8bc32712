//! Calls through the proxies of a small fleet, over real sockets and sessions.

// Helpers of tests are tests to us, though not to the lint.
#![allow(clippy::unwrap_used)]

#[path = "../fleet/mod.rs"]
mod fleet;

mod apps;
mod bytes;
mod damage;
mod deciding;
mod dishonest;
mod endpoints;
mod fallbacks;
mod flooding;
mod frames;
mod leaving;
mod requests;
mod speaking;
mod stalling;
mod unreached;
mod world;

use std::time::Duration;

/// More than anything here takes, and less than anybody's patience.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a test; the proxies have threads of their own.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, test)
            .await
            .expect("it hangs");
    });
}
