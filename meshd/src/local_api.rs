//! The local API of the daemon: JSON over its Unix socket. Any local user sees up or down and the
//! version; the rest is for root and group `mesh`.

mod calls;
mod dns;
mod metrics;
mod ping;
mod reload;

pub use reload::{AskedReload, ReloadAnswer, Reloads};

use std::sync::Arc;

use axum::extract::{FromRef, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use model::admin::{Decision, ErrorBody};
use model::control::{Refusal, RefusalCode};
use model::local::{
    DropsView, HostStatus, JoinRequest, Joined, KeyRotated, Left, LocalWhyReport, LocalWhyRequest,
    PeerView,
};
use model::question::Verdict;
use model::rule::ip_protocol;
use runtime::local_socket::LocalPeer;

use crate::brain::{BrainGone, BrainHandle, Input};
use crate::dns::Responder;
use crate::listeners;
use crate::metrics::MetricsSource;
use crate::overlay::OverlayHandle;

/// Whom the local API asks.
#[derive(Clone)]
pub struct LocalApi {
    /// Decides.
    pub brain: BrainHandle,
    /// Answers names as programs of this host are answered.
    pub dns: Arc<Responder>,
    /// The overlay on this host.
    pub overlay: OverlayHandle,
    /// Bytes of the largest packet that the overlay's interface takes.
    pub interface_mtu: u16,
    /// Who reloads.
    pub reloads: Reloads,
    /// Writes metrics.
    pub metrics: MetricsSource,
}

impl FromRef<LocalApi> for MetricsSource {
    fn from_ref(api: &LocalApi) -> Self {
        api.metrics.clone()
    }
}

impl FromRef<LocalApi> for BrainHandle {
    fn from_ref(api: &LocalApi) -> Self {
        api.brain.clone()
    }
}

/// Returns the routes of the local API.
pub fn router(api: LocalApi) -> Router {
    let trusted = Router::new()
        .route("/v1/join", post(join))
        .route("/v1/leave", post(leave))
        .route("/v1/reload", post(reload::reload))
        .route("/v1/keys/rotate", post(rotate_key))
        .route("/v1/peers", get(peers))
        .route("/v1/ping", post(ping::ping_peer))
        .route("/v1/why", post(why))
        .route("/v1/drops", get(drops))
        .route("/v1/metrics", get(metrics::show))
        .route("/metrics", get(metrics::show_text))
        .route("/v1/services", get(calls::services))
        .route("/v1/calls/{id}", get(calls::explain))
        .route("/v1/top", get(calls::top))
        .route("/v1/dns", get(dns::show))
        .route("/v1/dns/query", post(dns::query))
        .layer(middleware::from_fn(only_trusted));
    Router::new()
        .route("/v1/status", get(status))
        .merge(trusted)
        .fallback(|| async {
            Failure(Refusal::new(
                RefusalCode::NotFound,
                "there is no such request; do the versions of meshctl and meshd fit?",
            ))
        })
        .with_state(api)
}

/// A refusal as HTTP.
struct Failure(Refusal);

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl From<BrainGone> for Failure {
    fn from(gone: BrainGone) -> Self {
        Self(Refusal::new(RefusalCode::Unavailable, gone.to_string()))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, body) = runtime::refusal::to_http(self.0);
        let status = StatusCode::from_u16(status).expect("a constant of the table");
        (status, Json::<ErrorBody>(body)).into_response()
    }
}

async fn only_trusted(
    Extension(peer): Extension<LocalPeer>,
    request: Request,
    next: Next,
) -> Response {
    if peer.trusted {
        return next.run(request).await;
    }
    Failure(Refusal::new(
        RefusalCode::Denied,
        "only root and members of group mesh may do this; try sudo",
    ))
    .into_response()
}

async fn status(
    State(brain): State<BrainHandle>,
    Extension(peer): Extension<LocalPeer>,
) -> Result<Json<HostStatus>, Failure> {
    // Anybody may ask as often as they like: what they may not see is not looked for.
    let ask = match peer.trusted {
        true => Input::Status,
        false => Input::Summary,
    };
    Ok(Json(brain.ask(ask).await?))
}

async fn join(
    State(brain): State<BrainHandle>,
    Json(request): Json<JoinRequest>,
) -> Result<Json<Joined>, Failure> {
    Ok(Json(
        brain.ask(|answer| Input::Join(request, answer)).await??,
    ))
}

async fn leave(State(brain): State<BrainHandle>) -> Result<Json<Left>, Failure> {
    Ok(Json(brain.ask(Input::Leave).await??))
}

async fn rotate_key(State(brain): State<BrainHandle>) -> Result<Json<KeyRotated>, Failure> {
    Ok(Json(brain.ask(Input::RotateKey).await??))
}

async fn peers(State(brain): State<BrainHandle>) -> Result<Json<Vec<PeerView>>, Failure> {
    Ok(Json(brain.ask(Input::Peers).await?))
}

async fn drops(State(brain): State<BrainHandle>) -> Result<Json<DropsView>, Failure> {
    Ok(Json(brain.ask(Input::Drops).await?))
}

async fn why(
    State(brain): State<BrainHandle>,
    Json(question): Json<LocalWhyRequest>,
) -> Result<Json<LocalWhyReport>, Failure> {
    let own = brain.ask(Input::OwnAddresses).await?;
    let mut report = brain
        .ask(|answer| Input::Why(question.clone(), answer))
        .await??;
    if let Some(own) = own.filter(|_| report.inbound && may_pass(&report.decision)) {
        let protocol = match report.protocol.as_str() {
            "tcp" => ip_protocol::TCP,
            "udp" => ip_protocol::UDP,
            _ => ip_protocol::ICMP,
        };
        let port = report.port;
        let looked = tokio::task::spawn_blocking(move || listeners::look(protocol, port, own));
        report.pair.listener = looked.await.ok().flatten();
    }
    Ok(Json(report))
}

/// What is denied tells nobody whether anything listens behind it.
fn may_pass(decision: &Decision) -> bool {
    decision
        .verdict
        .map_or(decision.allowed, |verdict| verdict != Verdict::Denied)
}
