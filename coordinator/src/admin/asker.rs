//! Who asks: found out before anything else of a request is looked at.

use std::net::{IpAddr, Ipv4Addr};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Method, Uri, header};
use axum::response::Response;
use fleet::{AdminRequest, Caller, Reply, Unwelcome};
use model::admin::Role;
use model::control::{Refusal, RefusalCode};
use model::limits::Limits;
use runtime::local_socket::LocalPeer;
use runtime::tls_server::Connection;

use super::answer::{Failure, to_json};
use crate::brain::{BrainHandle, Input};

/// An operator who may ask something; what exactly is decided by the fleet.
pub(super) struct Asker {
    brain: BrainHandle,
    caller: Caller,
    method: Method,
    uri: Uri,
}

impl Asker {
    /// Asks the fleet. Changes, and attempts at them, are logged.
    pub(super) async fn ask(self, request: AdminRequest) -> Result<Response, Failure> {
        self.reply(request).await.map(to_json)
    }

    async fn reply(self, request: AdminRequest) -> Result<Reply, Failure> {
        let Self {
            brain,
            caller,
            method,
            uri,
        } = self;
        let name = caller.name.clone();
        let asked = brain
            .ask(|answer| Input::Admin(caller, request, answer))
            .await;
        let outcome = match asked {
            Ok(outcome) => outcome.map_err(Failure::from),
            Err(gone) => Err(Failure::from(gone)),
        };
        match &outcome {
            Ok(_) if method == Method::GET => {
                tracing::debug!(by = name, %method, path = uri.path(), "asked")
            }
            Ok(_) => tracing::info!(by = name, %method, path = uri.path(), "done"),
            Err(why) => {
                tracing::info!(by = name, %method, path = uri.path(), why = why.message(), "refused")
            }
        }
        outcome
    }
}

impl FromRequestParts<BrainHandle> for Asker {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, brain: &BrainHandle) -> Result<Self, Failure> {
        let caller = match parts.extensions.get::<LocalPeer>() {
            Some(peer) => local(peer)?,
            None => bearer(parts, brain).await?,
        };
        let caller = Caller {
            from: origin(parts),
            reason: reason(parts)?,
            ..caller
        };
        Ok(Self {
            brain: brain.clone(),
            caller,
            method: parts.method.clone(),
            uri: parts.uri.clone(),
        })
    }
}

fn local(peer: &LocalPeer) -> Result<Caller, Failure> {
    if peer.trusted {
        return Ok(Caller::new(format!("local:{}", peer.uid), Role::Admin));
    }
    let message = "only root and members of group mesh may do this; try sudo";
    Err(Refusal::new(RefusalCode::Denied, message).into())
}

/// Where a request comes from, for the audit log.
fn origin(parts: &Parts) -> String {
    match address(parts) {
        Some(address) => address.to_string(),
        None => "local socket".to_owned(),
    }
}

fn address(parts: &Parts) -> Option<IpAddr> {
    let connection = parts.extensions.get::<Connection>()?;
    Some(connection.remote.ip())
}

/// Why the operator asks, if they say so.
fn reason(parts: &Parts) -> Result<String, Failure> {
    let Some(header) = parts.headers.get(runtime::reason::HEADER) else {
        return Ok(String::new());
    };
    runtime::reason::decode(header.as_bytes()).ok_or_else(|| {
        let max = Limits::TEXT_CHARS;
        let text = format!("the reason cannot be read, or has more than {max} characters");
        Refusal::new(RefusalCode::Invalid, text).into()
    })
}

async fn bearer(parts: &Parts, brain: &BrainHandle) -> Result<Caller, Failure> {
    let header = parts
        .headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let Some(header) = header else {
        return Err(Failure::unauthenticated(
            "this needs an operator's credential (Authorization: Bearer ...); \
             give meshctl one with --credential FILE",
        ));
    };
    let credential = header
        .split_once(' ')
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("Bearer"))
        .map(|(_, credential)| credential.trim().to_owned());
    let Some(credential) = credential else {
        return Err(Failure::unauthenticated(
            "a credential is understood as Authorization: Bearer CREDENTIAL only",
        ));
    };
    let from = address(parts).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let caller = brain
        .ask(|answer| Input::Authenticate(credential, from, answer))
        .await?;
    caller.map_err(|why| match why {
        Unwelcome::Unknown => Failure::unauthenticated(
            "this credential is nobody's; was it withdrawn, or is it another fleet's? \
             an admin makes a new one with `meshctl admins create`",
        ),
        Unwelcome::Expired { at_secs } => Failure::unauthenticated(&format!(
            "this credential expired at {}; an admin makes a new one with `meshctl admins create`",
            fleet::time_text(at_secs)
        )),
    })
}
