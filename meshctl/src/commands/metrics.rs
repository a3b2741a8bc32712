//! `meshctl metrics`: what a daemon of this machine tells Prometheus, without a port for it.

use std::path::Path;

use model::local::MetricsText;
use runtime::api_client::ApiClient;

use crate::arguments::{Metrics, Targets};
use crate::connect::{self, COORDINATOR_SOCKET};
use crate::failure::Failure;
use crate::output::Output;

/// Shows the metrics of the daemon, or of the coordinator.
///
/// # Errors
/// It does not answer or refuses.
pub async fn metrics(asked: &Metrics, targets: &Targets, output: &Output) -> Result<(), Failure> {
    let client = match asked.coordinator {
        true => on_this_machine(targets)?,
        false => connect::daemon(targets),
    };
    let page: MetricsText = client.get("/v1/metrics").await?;
    output.show("Metrics", &page, |_| page.text.clone());
    Ok(())
}

/// The coordinator tells its metrics on its own machine only.
fn on_this_machine(targets: &Targets) -> Result<ApiClient, Failure> {
    let socket = targets.coordinator_socket.as_deref();
    let socket = socket.unwrap_or(Path::new(COORDINATOR_SOCKET));
    if !socket.exists() {
        return Err(Failure::Unreachable(format!(
            "{} is not there: a coordinator tells its metrics on its own machine, or at the address \
             that its setting `metrics` says",
            socket.display()
        )));
    }
    Ok(connect::coordinator_at(socket))
}
