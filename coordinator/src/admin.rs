//! The admin API: JSON over the TLS port, where a bearer credential says who asks, and over the
//! local socket, where the kernel does. The paths stand with the types in `model::admin`.

mod answer;
mod asker;
mod body;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Extension, Json, Router};
use fleet::AdminRequest;
use model::admin::{
    ApplyPolicy, AuditQuery, CoordinatorVersion, CreateAdmin, CreateToken, PlanRequest, RenameHost,
    RollbackPolicy, SetLabels, StartRecovery, WhyRequest,
};
use model::control::{Refusal, RefusalCode};
use model::ids::{HostId, PolicyVersion, TokenId};
use model::name::Name;
use runtime::local_socket::LocalPeer;

pub(crate) use self::answer::Failure;
use self::asker::Asker;
use self::body::Body;
use crate::brain::BrainHandle;

/// Returns the routes of the admin API, for both doors.
pub fn router(brain: BrainHandle) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/hosts", get(list_hosts))
        .route("/v1/hosts/{name}", get(show_host).delete(remove_host))
        .route("/v1/hosts/{name}/labels", put(set_labels))
        .route("/v1/hosts/{name}/name", put(rename_host))
        .route("/v1/hosts/{name}/rotate-key", post(rotate_host_key))
        .route("/v1/hosts/{name}/revoke", post(revoke_host))
        .route("/v1/recovery", get(show_recovery).post(start_recovery))
        .route("/v1/recovery/finish", post(finish_recovery))
        .route("/v1/removed", get(list_removed))
        .route("/v1/removed/{id}", get(show_removed))
        .route("/v1/tokens", get(list_tokens).post(create_token))
        .route("/v1/tokens/{id}", delete(revoke_token))
        .route("/v1/policy", get(show_policy).post(apply_policy))
        .route("/v1/policy/rollback", post(roll_policy_back))
        .route("/v1/policy/versions", get(list_policy_versions))
        .route("/v1/policy/versions/{version}", get(show_policy_version))
        .route("/v1/policy/plan", post(plan_policy))
        .route("/v1/policy/rollout", get(show_rollout))
        .route("/v1/why", post(why))
        .route("/v1/admins", get(list_admins).post(create_admin))
        .route("/v1/admins/{name}", delete(revoke_admin))
        .route("/v1/admins/{name}/credential", post(replace_credential))
        .route("/v1/audit", get(list_audit))
        .fallback(|| async { Failure::no_such_request() })
        .method_not_allowed_fallback(|| async { Failure::no_such_method() })
        .with_state(brain)
}

type Answered = Result<Response, Failure>;

/// Any local user sees that the coordinator is up, and its version.
async fn status(peer: Option<Extension<LocalPeer>>, asker: Result<Asker, Failure>) -> Answered {
    match peer {
        Some(Extension(peer)) if !peer.trusted => {
            let version = env!("CARGO_PKG_VERSION").into();
            Ok(Json(CoordinatorVersion { version }).into_response())
        }
        _ => asker?.ask(AdminRequest::Status).await,
    }
}

async fn list_hosts(asker: Asker) -> Answered {
    asker.ask(AdminRequest::ListHosts).await
}

async fn show_host(asker: Asker, Path(name): Path<String>) -> Answered {
    asker.ask(AdminRequest::ShowHost(parse(&name)?)).await
}

async fn remove_host(asker: Asker, Path(name): Path<String>) -> Answered {
    asker.ask(AdminRequest::RemoveHost(parse(&name)?)).await
}

async fn set_labels(
    asker: Asker,
    Path(name): Path<String>,
    Body(set): Body<SetLabels>,
) -> Answered {
    asker
        .ask(AdminRequest::SetLabels {
            host: parse(&name)?,
            set,
        })
        .await
}

async fn rename_host(
    asker: Asker,
    Path(name): Path<String>,
    Body(rename): Body<RenameHost>,
) -> Answered {
    asker
        .ask(AdminRequest::RenameHost {
            host: parse(&name)?,
            name: rename.name,
        })
        .await
}

async fn rotate_host_key(asker: Asker, Path(name): Path<String>) -> Answered {
    asker.ask(AdminRequest::RotateHostKey(parse(&name)?)).await
}

async fn revoke_host(asker: Asker, Path(name): Path<String>) -> Answered {
    asker.ask(AdminRequest::RevokeHost(parse(&name)?)).await
}

async fn show_recovery(asker: Asker) -> Answered {
    asker.ask(AdminRequest::ShowRecovery).await
}

async fn start_recovery(asker: Asker, Body(start): Body<StartRecovery>) -> Answered {
    asker.ask(AdminRequest::StartRecovery(start.why)).await
}

async fn finish_recovery(asker: Asker) -> Answered {
    asker.ask(AdminRequest::FinishRecovery).await
}

async fn list_removed(asker: Asker) -> Answered {
    asker.ask(AdminRequest::ListRemoved).await
}

async fn show_removed(asker: Asker, Path(id): Path<String>) -> Answered {
    asker
        .ask(AdminRequest::ShowRemoved(parse::<HostId>(&id)?))
        .await
}

async fn list_tokens(asker: Asker) -> Answered {
    asker.ask(AdminRequest::ListTokens).await
}

async fn create_token(asker: Asker, Body(create): Body<CreateToken>) -> Answered {
    asker.ask(AdminRequest::CreateToken(create)).await
}

async fn revoke_token(asker: Asker, Path(id): Path<String>) -> Answered {
    asker
        .ask(AdminRequest::RevokeToken(parse::<TokenId>(&id)?))
        .await
}

async fn show_policy(asker: Asker) -> Answered {
    asker.ask(AdminRequest::ShowPolicy(None)).await
}

async fn apply_policy(asker: Asker, Body(apply): Body<ApplyPolicy>) -> Answered {
    asker.ask(AdminRequest::ApplyPolicy(apply)).await
}

async fn roll_policy_back(asker: Asker, Body(back): Body<RollbackPolicy>) -> Answered {
    asker.ask(AdminRequest::RollbackPolicy(back)).await
}

async fn list_policy_versions(asker: Asker) -> Answered {
    asker.ask(AdminRequest::ListPolicyVersions).await
}

async fn show_policy_version(asker: Asker, Path(version): Path<String>) -> Answered {
    let version = PolicyVersion(parse(&version)?);
    asker.ask(AdminRequest::ShowPolicy(Some(version))).await
}

/// Made off the threads that answer: it takes a while for large fleets.
async fn plan_policy(asker: Asker, Body(request): Body<PlanRequest>) -> Answered {
    let reply = asker.reply(AdminRequest::PlanPolicy(request)).await?;
    let made = tokio::task::spawn_blocking(move || answer::to_json(reply)).await;
    made.map_err(|error| {
        let text = format!("the plan could not be made: {error}");
        Refusal::new(RefusalCode::Unavailable, text).into()
    })
}

async fn show_rollout(asker: Asker) -> Answered {
    asker.ask(AdminRequest::ShowRollout).await
}

async fn why(asker: Asker, Body(question): Body<WhyRequest>) -> Answered {
    asker.ask(AdminRequest::Why(question)).await
}

async fn list_admins(asker: Asker) -> Answered {
    asker.ask(AdminRequest::ListAdmins).await
}

async fn create_admin(asker: Asker, Body(create): Body<CreateAdmin>) -> Answered {
    asker.ask(AdminRequest::CreateAdmin(create)).await
}

async fn revoke_admin(asker: Asker, Path(name): Path<String>) -> Answered {
    asker
        .ask(AdminRequest::RevokeAdmin(parse::<Name>(&name)?))
        .await
}

async fn replace_credential(asker: Asker, Path(name): Path<String>) -> Answered {
    asker
        .ask(AdminRequest::ReplaceCredential(parse::<Name>(&name)?))
        .await
}

async fn list_audit(asker: Asker, query: Result<Query<AuditQuery>, QueryRejection>) -> Answered {
    let invalid = |error: QueryRejection| Refusal::new(RefusalCode::Invalid, error.body_text());
    let Query(query) = query.map_err(invalid)?;
    asker.ask(AdminRequest::ListAudit(query)).await
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Failure> {
    let invalid = |error: T::Err| Refusal::new(RefusalCode::Invalid, error.to_string());
    text.parse().map_err(invalid).map_err(Failure::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body as RawBody, to_bytes};
    use axum::http::{Request, StatusCode};
    use tower::ServiceExt;

    /// Asks as a local user without rights; the brain is not there and must not be asked.
    async fn ask(path: &str) -> (StatusCode, String) {
        let peer = LocalPeer {
            uid: 65534,
            groups: vec![65534],
            trusted: false,
        };
        let request = Request::get(path)
            .extension(peer)
            .body(RawBody::empty())
            .unwrap();
        let response = router(BrainHandle::nobody())
            .oneshot(request)
            .await
            .unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 4096).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn any_local_user_sees_the_version_and_nothing_else() {
        let (status, body) = ask("/v1/status").await;
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            (status, body),
            (StatusCode::OK, format!("{{\"version\":\"{version}\"}}"))
        );
    }

    #[tokio::test]
    async fn the_rest_is_for_root_and_group_mesh() {
        for path in ["/v1/hosts", "/v1/tokens", "/v1/policy", "/v1/admins"] {
            let (status, body) = ask(path).await;
            assert_eq!(status, StatusCode::FORBIDDEN);
            assert!(body.contains("group mesh"), "{body}");
        }
    }
}
