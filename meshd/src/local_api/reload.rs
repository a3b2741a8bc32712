//! `POST /v1/reload`: the settings, and the installed program when it is another, come into force.

use axum::Json;
use axum::extract::State;
use model::control::{Refusal, RefusalCode};
use model::local::{ReloadRequest, Reloaded};
use tokio::sync::{mpsc, oneshot};

use super::{Failure, LocalApi};

/// Who is told how it went.
pub type ReloadAnswer = oneshot::Sender<Result<Reloaded, Refusal>>;

/// A request with its answer.
pub struct AskedReload {
    /// Hand over to the installed program even when it is the one that runs.
    pub hand_over: bool,
    /// Told how it went.
    pub answer: ReloadAnswer,
}

/// The way to who reloads.
#[derive(Clone)]
pub struct Reloads(mpsc::Sender<AskedReload>);

impl Reloads {
    /// Takes the way.
    pub fn new(sender: mpsc::Sender<AskedReload>) -> Self {
        Self(sender)
    }
}

pub(super) async fn reload(
    State(api): State<LocalApi>,
    Json(request): Json<ReloadRequest>,
) -> Result<Json<Reloaded>, Failure> {
    let (answer, answered) = oneshot::channel();
    let asked = AskedReload {
        hand_over: request.hand_over,
        answer,
    };
    let busy = || Refusal::new(RefusalCode::Unavailable, "too many wait for a reload");
    api.reloads.0.try_send(asked).map_err(|_| busy())?;
    let ended = || Refusal::new(RefusalCode::Unavailable, "the daemon is stopping");
    Ok(Json(answered.await.map_err(|_| ended())??))
}
