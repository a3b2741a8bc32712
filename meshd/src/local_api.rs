//! The local API of the daemon: JSON over its Unix socket. Any local user sees up or down and the
//! version; the rest is for root and group `mesh`.

use std::time::Duration;

use agent::ResolvedPeer;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use model::admin::ErrorBody;
use model::control::{Refusal, RefusalCode};
use model::local::{
    HostStatus, JoinRequest, Joined, Left, LocalWhyReport, LocalWhyRequest, PeerView, PingReply,
    PingRequest,
};
use runtime::local_socket::LocalPeer;

use crate::brain::{BrainGone, BrainHandle, Input};
use crate::ping;

/// The longest that one ping may wait.
const PING_TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// Returns the routes of the local API.
pub fn router(brain: BrainHandle) -> Router {
    let trusted = Router::new()
        .route("/v1/join", post(join))
        .route("/v1/leave", post(leave))
        .route("/v1/peers", get(peers))
        .route("/v1/ping", post(ping_peer))
        .route("/v1/why", post(why))
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
        .with_state(brain)
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
    let mut status = brain.ask(Input::Status).await?;
    if !peer.trusted {
        status.detail = None;
    }
    Ok(Json(status))
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

async fn peers(State(brain): State<BrainHandle>) -> Result<Json<Vec<PeerView>>, Failure> {
    Ok(Json(brain.ask(Input::Peers).await?))
}

async fn why(
    State(brain): State<BrainHandle>,
    Json(question): Json<LocalWhyRequest>,
) -> Result<Json<LocalWhyReport>, Failure> {
    Ok(Json(
        brain.ask(|answer| Input::Why(question, answer)).await??,
    ))
}

async fn ping_peer(
    State(brain): State<BrainHandle>,
    Json(request): Json<PingRequest>,
) -> Result<Json<PingReply>, Failure> {
    let peer = resolve(&brain, &request.host).await?;
    let address = peer.addresses.v4.into();
    let timeout = Duration::from_millis(request.timeout_millis).min(PING_TIMEOUT_MAX);
    let identifier =
        u16::from_be_bytes([peer.id.as_bytes()[0], std::process::id().to_be_bytes()[3]]);
    let outcome = tokio::task::spawn_blocking(move || ping::echo(address, identifier, timeout))
        .await
        .map_err(|error| {
            Refusal::new(
                RefusalCode::Unavailable,
                format!("the ping did not end: {error}"),
            )
        })?;
    let (round_trip, note) = match outcome {
        Ok(Some(round_trip)) => (Some(round_trip), None),
        Ok(None) => (None, Some(silence(&peer, timeout))),
        Err(error) => (
            None,
            Some(format!(
                "{error}; `meshctl why` tells whether the policy denies it"
            )),
        ),
    };
    // The answer may have come over another path than the one that was known before.
    let endpoint = resolve(&brain, &request.host).await?.endpoint;
    Ok(Json(PingReply {
        name: peer.name,
        address,
        round_trip_micros: round_trip
            .map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
        endpoint,
        note,
    }))
}

async fn resolve(brain: &BrainHandle, host: &str) -> Result<ResolvedPeer, Failure> {
    let name = host.to_owned();
    let peer = brain.ask(|answer| Input::Resolve(name, answer)).await?;
    peer.ok_or_else(|| {
        Failure(Refusal::new(
            RefusalCode::NotFound,
            format!("this host knows no peer {host:?}; `meshctl peers` lists them"),
        ))
    })
}

fn silence(peer: &ResolvedPeer, timeout: Duration) -> String {
    let reached = match peer.endpoint {
        Some(endpoint) => format!(
            "its tunnel goes to {endpoint}; is UDP open there, and is meshd running on {}?",
            peer.name
        ),
        None => format!("no way to reach {} is known", peer.name),
    };
    format!("no answer within {} ms: {reached}", timeout.as_millis())
}
