//! The admin API: JSON over the TLS port, where a bearer credential says who asks, and over the
//! local socket, where the kernel does. The paths stand with the types in `model::admin`.

mod answer;
mod asker;
mod body;

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Extension, Json, Router};
use fleet::AdminRequest;
use model::admin::{
    ApplyPolicy, CoordinatorVersion, CreateAdmin, CreateToken, RollbackPolicy, SetLabels,
    WhyRequest,
};
use model::control::{Refusal, RefusalCode};
use model::ids::{PolicyVersion, TokenId};
use model::name::Name;
use runtime::local_socket::LocalPeer;

use self::answer::Failure;
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
        .route("/v1/tokens", get(list_tokens).post(create_token))
        .route("/v1/tokens/{id}", delete(revoke_token))
        .route("/v1/policy", get(show_policy).post(apply_policy))
        .route("/v1/policy/rollback", post(roll_policy_back))
        .route("/v1/policy/versions", get(list_policy_versions))
        .route("/v1/policy/versions/{version}", get(show_policy_version))
        .route("/v1/policy/rollout", get(show_rollout))
        .route("/v1/why", post(why))
        .route("/v1/admins", get(list_admins).post(create_admin))
        .route("/v1/admins/{name}", delete(revoke_admin))
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
