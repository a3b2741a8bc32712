//! `GET /v1/calls/ID` and `GET /v1/top`: calls of services, as the proxy saw them.

use axum::Json;
use axum::extract::{Path, State};
use model::control::{Refusal, RefusalCode};
use model::local::{CallCounts, CallExplained};
use proxy::CallId;

use super::Failure;
use crate::metrics::MetricsSource;

pub(super) async fn explain(
    State(source): State<MetricsSource>,
    Path(id): Path<String>,
) -> Result<Json<Vec<CallExplained>>, Failure> {
    let id = CallId::parse(&id).ok_or_else(|| {
        let text = format!("{id:?} is no id of a call: it has 16 hexadecimal digits");
        Refusal::new(RefusalCode::Invalid, text)
    })?;
    Ok(Json(source.services.observatory().explain(id)))
}

pub(super) async fn top(State(source): State<MetricsSource>) -> Json<CallCounts> {
    Json(source.services.observatory().counts())
}
