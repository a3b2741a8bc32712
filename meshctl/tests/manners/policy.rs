//! A policy that the coordinator refuses.

use serde_json::json;

use crate::server::{Reaction, Server, errors};

#[test]
fn what_is_wrong_with_a_rollback_is_said_once() {
    const NONE: &str = "there is no policy version 99";
    let server = Server::start(|request, _| match request {
        "GET /v1/status" => Reaction::Answer(json!({})),
        _ => Reaction::Refuse(404, json!({ "code": "not_found", "message": NONE })),
    });
    let output = server
        .meshctl(&["policy", "rollback", "99"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = errors(&output);
    assert_eq!(said.matches(NONE).count(), 1, "{said}");
}
