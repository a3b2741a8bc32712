//! `GET /v1/calls/ID`, `GET /v1/top` and `GET /v1/services`: services as the policy has them, and calls as
//! the proxy saw them.

use axum::Json;
use axum::extract::{Path, State};
use model::control::{Refusal, RefusalCode};
use model::local::{CallCounts, CallExplained, ServiceView};
use proxy::CallId;

use super::Failure;
use crate::brain::{BrainHandle, Input};
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

pub(super) async fn services(
    State(brain): State<BrainHandle>,
    State(source): State<MetricsSource>,
) -> Result<Json<Vec<ServiceView>>, Failure> {
    let mut services: Vec<ServiceView> = brain.ask(Input::Services).await?;
    let observatory = source.services.observatory();
    let mut live = observatory.services();
    let mut callers = observatory.lately();
    let checks = observatory.checks();
    for service in &mut services {
        let name = service.name.as_str();
        let seen = live.iter().position(|it| it.service == name);
        service.live = seen.map(|position| live.swap_remove(position));
        service.callers = callers.remove(name).unwrap_or_default();
        let check = checks.iter().find(|it| it.service == service.name);
        for endpoint in service.endpoints.iter_mut().filter(|it| it.here) {
            endpoint.failing = check.and_then(|it| it.failing.clone());
        }
    }
    Ok(Json(services))
}

pub(super) async fn top(State(source): State<MetricsSource>) -> Json<CallCounts> {
    Json(source.services.observatory().counts())
}
