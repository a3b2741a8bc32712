//! A coordinator that starts anew while it is asked.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use serde_json::json;

use crate::server::{Reaction, Server, errors, meshctl};

#[test]
fn a_question_is_asked_again() {
    let server = Server::start(|_, before| match before {
        0 | 1 => Reaction::HangUp,
        _ => Reaction::Answer(json!([])),
    });
    let output = server.meshctl(&["hosts", "list"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert_eq!(server.asked(), 3);
    let said = errors(&output);
    assert_eq!(said.matches("trying again").count(), 1, "{said}");
}

#[test]
fn metrics_are_asked_for_again() {
    let server = Server::start(|_, before| match before {
        0 => Reaction::HangUp,
        _ => Reaction::Answer(json!({ "text": "# EOF\n" })),
    });
    let output = server.meshctl(&["metrics", "--coordinator"]).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert_eq!(server.asked(), 2);
}

#[test]
fn metrics_are_waited_for_while_there_is_no_socket() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("later.sock");
    let mut command = meshctl(&socket, &["metrics", "--coordinator"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut notice = String::new();
    while !notice.contains("trying again") {
        assert!(said.read_line(&mut notice).unwrap() > 0, "{notice}");
    }
    let server = Server::start_at(&socket, |_, _| {
        Reaction::Answer(json!({ "text": "# EOF\n" }))
    });
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(server.asked(), 1);
}

#[test]
fn an_order_that_may_have_been_done_is_not_given_twice() {
    let server = Server::start(|_, _| Reaction::HangUp);
    let revoke = ["tokens", "revoke", "0101010101010101"];
    let output = server.meshctl(&revoke).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(server.asked(), 1);
    let said = errors(&output);
    assert!(
        said.contains("not known") && said.contains("meshctl audit"),
        "{said}"
    );
}

#[test]
fn an_order_that_did_not_leave_is_given_when_the_coordinator_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("later.sock");
    let revoke = ["tokens", "revoke", "0101010101010101"];
    let mut command = meshctl(&socket, &revoke);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut notice = String::new();
    while !notice.contains("trying again") {
        assert!(said.read_line(&mut notice).unwrap() > 0, "{notice}");
    }
    let server = Server::start_at(&socket, |_, _| {
        Reaction::Answer(json!({
            "id": "0101010101010101", "labels": {}, "uses": 1, "used": 0, "created_secs": 1,
            "expires_secs": 2, "revoked": true, "names": [], "comment": "",
        }))
    });
    said.read_to_string(&mut notice).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{notice}");
    assert_eq!(server.asked(), 1);
}

#[test]
fn what_was_done_already_is_said_when_the_coordinator_goes_then() {
    let server = Server::start(|request, _| match request {
        "POST /v1/hosts/vm-9/revoke" => Reaction::Answer(json!({
            "id": "01010101010101010101010101010101", "name": "vm-9", "labels": {},
            "v4": "100.64.0.9", "v6": "fd00::9", "wireguard_key": "A".repeat(43) + "=", "endpoints": [],
            "joined_secs": 0, "online": false, "last_seen_secs": null,
        })),
        _ => Reaction::HangUp,
    });
    let revoke = ["hosts", "revoke", "vm-9"];
    let output = server.meshctl(&revoke).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", errors(&output));
    let said = errors(&output);
    assert!(
        said.contains("vm-9 is revoked") && said.contains("hosts removed vm-9"),
        "{said}"
    );
}
