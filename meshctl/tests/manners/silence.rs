//! A daemon or a coordinator that takes requests and does not answer, as one that is stopped.

use std::process::{Child, Stdio};

use crate::server::{Reaction, Server, errors};

fn start(server: &Server, arguments: &[&str]) -> Child {
    let mut command = server.meshctl(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[test]
fn nobody_waits_for_ever_for_one_that_is_silent() {
    let server = Server::start(|_, _| Reaction::Silence);
    let commands = [
        (&["peers"][..], "journalctl -u meshd "),
        (&["join", "mesh1abc"], "journalctl -u meshd "),
        (&["leave"], "journalctl -u meshd "),
        (&["keys", "rotate"], "journalctl -u meshd "),
        (&["drops"], "journalctl -u meshd "),
        (&["services", "list"], "journalctl -u meshd "),
        (&["hosts", "list"], "journalctl -u mesh-coordinator "),
        (&["--json", "audit"], ""),
    ];
    let started = commands.map(|(arguments, look)| (arguments, look, start(&server, arguments)));
    for (arguments, look, child) in started {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
        let said = errors(&output);
        assert!(said.contains(look), "{arguments:?}: {said}");
        assert!(!said.contains("not known"), "{arguments:?}: {said}");
    }
}

#[test]
fn an_order_that_was_not_answered_may_have_been_done() {
    let server = Server::start(|_, _| Reaction::Silence);
    let output = start(&server, &["tokens", "revoke", "0101010101010101"]);
    let output = output.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let said = errors(&output);
    assert!(
        said.contains("not known") && said.contains("meshctl audit"),
        "{said}"
    );
}

#[test]
fn waiting_for_the_overlay_ends_when_its_time_has_passed() {
    let server = Server::start(|_, _| Reaction::Silence);
    let child = start(&server, &["wait-online", "--timeout", "0"]);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    // The time that it says is the one that it took: the daemon was waited for no longer.
    let said = errors(&output);
    assert!(said.contains("did not answer within 0 s"), "{said}");
}
