//! The admin API: JSON over the TLS port, where a bearer credential says who asks, and over the
//! local socket, where the kernel does. `operations` has them all; the types are `model::admin`'s.

mod answer;
mod asker;
mod body;
mod document;
mod operation;
mod operations;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, get, on};
use axum::{Extension, Json, Router};
use fleet::AdminRequest;
use model::admin::CoordinatorVersion;
use model::control::{Refusal, RefusalCode};
use runtime::local_socket::LocalPeer;

pub(crate) use self::answer::Failure;
use self::asker::Asker;
use self::operation::{Act, Given, Operation};
pub(crate) use self::operations::BACKUP;
use crate::brain::BrainHandle;

/// Returns the routes of the admin API, for both doors.
pub fn router(brain: BrainHandle) -> Router {
    let text = Bytes::from(openapi());
    let mut router = Router::new().route(operations::STATUS, get(status)).route(
        operations::DOCUMENT,
        get(move |asker| show_document(asker, text.clone())),
    );
    for operation in operations::all() {
        if matches!(operation.act, Act::Own) {
            continue;
        }
        let method = MethodFilter::try_from(operation.method.clone());
        let method = method.expect("operations have methods of HTTP");
        let operation = Arc::new(operation);
        let path = operation.path;
        let serve = move |asker, path, request| serve(Arc::clone(&operation), asker, path, request);
        router = router.route(path, on(method, serve));
    }
    router
        .fallback(|| async { Failure::no_such_request() })
        .method_not_allowed_fallback(|| async { Failure::no_such_method() })
        .with_state(brain)
}

/// Returns the OpenAPI document of the admin API, as JSON.
pub fn openapi() -> String {
    let document = document::document(&operations::all());
    let text = serde_json::to_string_pretty(&document).expect("the document is JSON");
    // Comments of our types speak Rust.
    let mut text = text.replace("`None`", "`null`");
    text.push('\n');
    text
}

type Answered = Result<Response, Failure>;

/// The body is read only once it is known who asks.
async fn serve(
    operation: Arc<Operation>,
    asker: Asker,
    path: Result<Path<BTreeMap<String, String>>, PathRejection>,
    request: Request,
) -> Answered {
    let invalid = |error: PathRejection| Refusal::new(RefusalCode::Invalid, error.body_text());
    let Path(path) = path.map_err(invalid)?;
    let given = Given {
        path,
        uri: request.uri().clone(),
        body: match operation.body {
            Some(_) => body::read(request).await?,
            None => Bytes::new(),
        },
    };
    match &operation.act {
        Act::Ask(make) => asker.ask(make(&given)?).await,
        Act::Own => Err(Failure::no_such_request()),
    }
}

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

async fn show_document(_: Asker, text: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
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
        for path in ["/v1/hosts", "/v1/tokens", "/v1/policy", "/v1/openapi.json"] {
            let (status, body) = ask(path).await;
            assert_eq!(status, StatusCode::FORBIDDEN);
            assert!(body.contains("group mesh"), "{body}");
        }
    }
}
