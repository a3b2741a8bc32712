//! Metrics of a daemon, as its socket gives them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `GET /v1/metrics`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MetricsText {
    /// A page in the text format of Prometheus.
    pub text: String,
}
