//! A host that is no member of a fleet is asked for what only a member has.

use serde_json::json;

use crate::server::{Reaction, Server, errors};

#[test]
fn a_host_in_no_fleet_says_so_and_what_to_do() {
    let server = Server::start(|request, _| match request {
        "GET /v1/status" => Reaction::Answer(json!({
            "version": "1.0.0", "state": "unenrolled", "up": false, "detail": null,
        })),
        other => panic!("{other} is asked of a host in no fleet"),
    });
    for question in [
        &["ping", "beta"][..],
        &["peers"],
        &["services", "list"],
        &["services", "show", "web"],
    ] {
        let output = server.meshctl(question).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{question:?}");
        let said = errors(&output);
        assert!(
            said.contains("in no fleet") && said.contains("join TOKEN"),
            "{said}"
        );
    }
}

#[test]
fn a_stranger_learns_whether_the_overlay_is_up() {
    for (up, code) in [(true, 0), (false, 5)] {
        let server = Server::start(move |_, _| {
            Reaction::Answer(json!({
                "version": "1.0.0", "state": "autonomous", "up": up, "detail": null,
            }))
        });
        let output = server.meshctl(&["wait-online", "--timeout", "0"]).output();
        assert_eq!(output.unwrap().status.code(), Some(code), "{up}");
    }
}
