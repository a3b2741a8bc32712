//! The page that the port for metrics has, for who has no such port: as text at `/metrics`, and as JSON
//! with the rest of the local API.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use model::local::MetricsText;
use runtime::metrics::{Format, Source};

use super::Failure;
use crate::brain::BrainGone;
use crate::metrics::MetricsSource;

pub(super) async fn show(
    State(source): State<MetricsSource>,
) -> Result<Json<MetricsText>, Failure> {
    let text = source.page(Format::Prometheus).await.ok_or(BrainGone)?;
    Ok(Json(MetricsText { text }))
}

pub(super) async fn show_text(State(source): State<MetricsSource>, headers: HeaderMap) -> Response {
    runtime::metrics::answer(&source, &headers).await
}
