//! Standard output that takes nothing, or whose reader is gone.

use std::fs::File;
use std::process::{Output, Stdio};

use serde_json::json;

use crate::server::{Reaction, Server, errors};

fn answers() -> Server {
    Server::start(|request, _| {
        Reaction::Answer(match request {
            "GET /v1/status" => json!({
                "state": "online", "version": "1.0.0", "fleet": "01010101010101010101010101010101",
                "fleet_name": "prod", "dns_suffix": "mesh.internal",
                "overlay_v4": "100.64.0.0/16", "overlay_v6": "fd00::/48",
                "root_pin": "01".repeat(32), "revision": {"epoch": 1, "counter": 1},
                "hosts": 1, "hosts_online": 1, "policy": 1, "addresses": ["c:7443"],
            }),
            "POST /v1/admins/ops/credential" => json!({
                "credential": "hunter2", "name": "ops", "role": "operator",
                "created_secs": 1, "created_by": "admin",
            }),
            "POST /v1/tokens" => json!({
                "token": "mesh1abc", "id": "0101010101010101", "labels": {}, "uses": 1, "used": 0,
                "created_secs": 1, "expires_secs": 2, "revoked": false, "names": [], "comment": "",
            }),
            "GET /v1/peers" | "GET /v1/hosts" => json!([]),
            other => panic!("{other} is not played"),
        })
    })
}

fn with_output(server: &Server, arguments: &[&str], output: impl Into<Stdio>) -> Output {
    let mut command = server.meshctl(arguments);
    let started = command.stdout(output).stderr(Stdio::piped()).spawn();
    started.unwrap().wait_with_output().unwrap()
}

fn into_full(server: &Server, arguments: &[&str]) -> Output {
    let full = File::options().write(true).open("/dev/full").unwrap();
    with_output(server, arguments, full)
}

/// A pipe whose other end is closed.
fn closed_pipe() -> std::io::PipeWriter {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer
}

#[test]
fn an_answer_that_cannot_be_written_is_a_failure() {
    let server = answers();
    for arguments in [
        &["peers"][..],
        &["hosts", "list"],
        &["--json", "hosts", "list"],
        &["policy", "schema"],
        &["completion", "bash"],
        &["--help"],
        &["--version"],
    ] {
        let output = into_full(&server, arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = errors(&output);
        assert!(said.contains("standard output"), "{arguments:?}: {said}");
        assert!(said.contains("No space left"), "{arguments:?}: {said}");
    }
}

#[test]
fn a_secret_that_is_lost_is_told_with_the_way_to_another() {
    let server = answers();
    for (arguments, advice) in [
        (
            &["admins", "replace", "ops"][..],
            "meshctl admins replace ops --out FILE",
        ),
        (
            &["--json", "admins", "replace", "ops"],
            "meshctl admins replace ops --out FILE",
        ),
        (
            &["tokens", "create"],
            "meshctl tokens revoke 0101010101010101",
        ),
    ] {
        for output in [
            into_full(&server, arguments),
            with_output(&server, arguments, closed_pipe()),
        ] {
            assert_eq!(output.status.code(), Some(1), "{arguments:?}");
            let said = errors(&output);
            assert!(said.contains(advice), "{arguments:?}: {said}");
            assert!(!said.contains("hunter2") && !said.contains("mesh1abc"));
        }
    }
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let server = answers();
    for arguments in [&["peers"][..], &["completion", "bash"], &["--help"]] {
        let output = with_output(&server, arguments, closed_pipe());
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert_eq!(errors(&output), "", "{arguments:?}");
    }
}
