//! `meshctl metrics`: what a daemon of this machine tells Prometheus, without a port for it.

use std::path::Path;

use model::local::MetricsText;

use crate::arguments::{Metrics, Targets};
use crate::connect::{self, COORDINATOR_SOCKET};
use crate::failure::Failure;
use crate::output::Output;

/// Where both daemons tell them.
const METRICS: &str = "/v1/metrics";

/// Shows the metrics of the daemon, or of the coordinator.
///
/// # Errors
/// It does not answer or refuses.
pub async fn metrics(asked: &Metrics, targets: &Targets, output: &Output) -> Result<(), Failure> {
    let page: MetricsText = match asked.coordinator {
        true => of_coordinator(targets).await?,
        false => connect::daemon(targets).get(METRICS).await?,
    };
    output.show("Metrics", &page, |_| page.text.clone());
    Ok(())
}

/// The coordinator tells its metrics on its own machine only.
async fn of_coordinator(targets: &Targets) -> Result<MetricsText, Failure> {
    let socket = targets.coordinator_socket.as_deref();
    let socket = socket.unwrap_or(Path::new(COORDINATOR_SOCKET));
    let page = connect::coordinator_at(socket).get(METRICS).await;
    page.map_err(|error| match Failure::from(error) {
        Failure::Unreachable(why) => Failure::Unreachable(format!(
            "{why}; a coordinator tells its metrics on its own machine, or at the address that its \
             setting `metrics` says"
        )),
        other => other,
    })
}
