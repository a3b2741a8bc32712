//! `POST /v1/ping`: one echo through the tunnel, with what is known of the way.

use std::time::Duration;

use agent::ResolvedPeer;
use axum::Json;
use axum::extract::State;
use model::control::{Refusal, RefusalCode};
use model::local::{PingReply, PingRequest};

use super::{Failure, LocalApi};
use crate::brain::{BrainHandle, Input};
use crate::ping::{self, Outcome, PACKET_BYTES_MIN};

/// The longest that one ping may wait.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

pub(super) async fn ping_peer(
    State(api): State<LocalApi>,
    Json(request): Json<PingRequest>,
) -> Result<Json<PingReply>, Failure> {
    let peer = resolve(&api.brain, &request.host).await?;
    let address = peer.addresses.v4.into();
    let timeout = Duration::from_millis(request.timeout_millis).min(TIMEOUT_MAX);
    let packet_bytes = request.packet_bytes.unwrap_or(PACKET_BYTES_MIN);
    let identifier =
        u16::from_be_bytes([peer.id.as_bytes()[0], std::process::id().to_be_bytes()[3]]);
    let echo = move || ping::echo(address, identifier, packet_bytes, timeout);
    let outcome = tokio::task::spawn_blocking(echo).await.map_err(|error| {
        Refusal::new(
            RefusalCode::Unavailable,
            format!("the ping did not end: {error}"),
        )
    })?;
    let (round_trip, note) = match &outcome {
        Ok(Outcome::Answered(round_trip)) => (Some(*round_trip), None),
        Ok(Outcome::Unanswered) => (None, Some(silence(&peer, timeout))),
        Ok(Outcome::TooBig) => (
            None,
            Some(format!(
                "{packet_bytes} bytes are more than the interface or the way to it takes at once"
            )),
        ),
        Err(error) => (
            None,
            Some(format!(
                "{error}; `meshctl why` tells whether the policy denies it"
            )),
        ),
    };
    // The answer may have come over another path than the one that was known before.
    let endpoint = resolve(&api.brain, &request.host).await?.endpoint;
    Ok(Json(PingReply {
        name: peer.name,
        address,
        round_trip_micros: round_trip
            .map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
        endpoint,
        interface_mtu: api.interface_mtu,
        too_big: matches!(outcome, Ok(Outcome::TooBig)),
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
