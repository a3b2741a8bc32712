//! Joining, and every way in which it can fail, each with a message that a person can act on.

use std::time::Duration;

use agent::{ChannelError, ChannelErrorKind, ChannelEvent, EnrolError, Output, Reply, RequestId};
use model::control::{Refusal, RefusalCode};
use model::local::{HostState, JoinRequest};

use crate::coordinator::Coordinator;
use crate::host::Host;

fn refusal(host: &mut Host, request: RequestId) -> Refusal {
    host.reply(request)
        .expect("the join is answered")
        .expect_err("the join is refused")
}

fn unreachable() -> ChannelError {
    ChannelError::new(
        ChannelErrorKind::Unreachable,
        "cannot reach 10.0.0.1:7443 (refused)",
    )
}

#[test]
fn a_join_is_answered_when_the_first_map_is_in_force() {
    let mut coordinator = Coordinator::new(1);
    let peer = coordinator.add_host("db");
    let mut host = Host::new();
    assert_eq!(host.state(), HostState::Unenrolled);
    let request = host.enrol(&mut coordinator);
    assert_eq!(host.reply(request), None, "the map is still missing");
    assert_eq!(host.connect(&coordinator), None);
    host.map(coordinator.whole_map(host.id()));
    let Some(Ok(Reply::Joined(joined))) = host.reply(request) else {
        panic!("not joined")
    };
    assert_eq!(
        (joined.name.as_str(), joined.fleet.as_str()),
        ("web-1", "prod")
    );
    assert_eq!(joined.note, None);
    assert_eq!(host.state(), HostState::Online);
    assert_eq!(host.agent.peers(host.now)[0].id, peer);
}

#[test]
fn a_summary_has_the_state_and_no_detail() {
    let mut coordinator = Coordinator::new(1);
    let host = Host::member_of(&mut coordinator);
    let summary = host.agent.summary();
    let status = host.agent.status(host.now);
    assert_eq!(
        (summary.state, &summary.version),
        (HostState::Online, &status.version)
    );
    assert!(summary.detail.is_none() && status.detail.is_some());
}

#[test]
fn a_late_first_map_is_said_to_be_late() {
    let mut coordinator = Coordinator::new(1);
    let mut host = Host::new();
    let request = host.enrol(&mut coordinator);
    host.advance(Duration::from_secs(9));
    assert_eq!(host.reply(request), None);
    host.advance(Duration::from_secs(2));
    let Some(Ok(Reply::Joined(joined))) = host.reply(request) else {
        panic!("not joined")
    };
    assert!(
        joined
            .note
            .unwrap()
            .contains("first map is not in force yet")
    );
}

#[test]
fn the_keys_are_on_the_disk_before_the_coordinator_sees_them() {
    let coordinator = Coordinator::new(1);
    let mut host = Host::new();
    host.holds_writes = true;
    host.join(&coordinator.token());
    host.channel(ChannelEvent::Described(Ok(coordinator.description())));
    assert!(!host.has_said(|output| matches!(output, Output::Enrol { .. })));
    host.write_held();
    host.drain();
    assert!(host.has_said(|output| matches!(output, Output::Enrol { .. })));
}

#[test]
fn a_crash_after_the_offer_makes_no_second_host() {
    let mut coordinator = Coordinator::new(1);
    let mut host = Host::new();
    host.join(&coordinator.token());
    host.channel(ChannelEvent::Described(Ok(coordinator.description())));
    // The coordinator takes it in; the answer is lost in the crash.
    let offers = host.take(|output| match output {
        Output::Enrol { request, .. } => Some(request.clone()),
        _ => None,
    });
    coordinator.enrol(&offers[0]);
    host.restart();
    assert_eq!(host.state(), HostState::Joining);
    host.channel(ChannelEvent::Described(Ok(coordinator.description())));
    host.answer_enrol(&mut coordinator);
    assert_eq!(coordinator.enrolments, 1);
    host.connect(&coordinator);
    host.map(coordinator.whole_map(host.id()));
    assert_eq!(host.state(), HostState::Online);
    let token = coordinator.token();
    let identity = host.disk.identity.clone().unwrap();
    let has_token = identity
        .windows(token.len())
        .any(|window| window == token.as_bytes());
    assert!(!has_token, "the token is gone from the disk");
}

#[test]
fn a_user_who_repeats_the_join_waits_with_the_one_that_was_cut_short() {
    let mut coordinator = Coordinator::new(1);
    let mut host = Host::new();
    host.join(&coordinator.token());
    host.channel(ChannelEvent::Described(Ok(coordinator.description())));
    host.restart();
    let request = host.join(&coordinator.token());
    host.channel(ChannelEvent::Described(Ok(coordinator.description())));
    host.answer_enrol(&mut coordinator);
    host.connect(&coordinator);
    host.map(coordinator.whole_map(host.id()));
    assert!(matches!(host.reply(request), Some(Ok(Reply::Joined(_)))));
    assert_eq!(coordinator.enrolments, 1);
}

#[test]
fn tokens_that_are_none_are_refused_at_once() {
    let coordinator = Coordinator::new(1);
    let mut truncated = coordinator.token();
    truncated.pop();
    for (token, expected) in [
        ("hello", "not a join token"),
        (&truncated, "truncated or mistyped"),
        ("mesh2aaaa", "version"),
        ("", "not a join token"),
    ] {
        let mut host = Host::new();
        let request = host.join(token);
        let refusal = refusal(&mut host, request);
        assert_eq!(refusal.code, RefusalCode::Invalid);
        assert!(refusal.message.contains(expected), "{token}: {refusal}");
        assert_eq!(host.state(), HostState::Unenrolled);
        assert!(host.disk.identity.is_none());
    }
}

#[test]
fn names_that_are_none_are_refused_with_what_to_do() {
    let coordinator = Coordinator::new(1);
    let mut host = Host::new();
    let join = JoinRequest {
        token: coordinator.token(),
        name: Some("Web 1".to_owned()),
    };
    host.agent.handle_join(RequestId(9), join, host.now);
    host.drain();
    let refusal = refusal(&mut host, RequestId(9));
    assert!(refusal.message.contains("--name"), "{refusal}");
}

#[test]
fn an_unreachable_coordinator_is_tried_a_few_times_then_named() {
    let coordinator = Coordinator::new(1);
    let mut host = Host::new();
    let request = host.join(&coordinator.token());
    let mut attempts = 0;
    let answer = loop {
        attempts += host
            .take(|o| matches!(o, Output::Describe { .. }).then_some(()))
            .len();
        host.channel(ChannelEvent::Described(Err(unreachable())));
        host.advance(Duration::from_secs(5));
        if let Some(answer) = host.reply(request) {
            break answer;
        }
    };
    assert_eq!(attempts, 3);
    assert!(answer.unwrap_err().message.contains("10.0.0.1:7443"));
    assert_eq!(host.state(), HostState::Unenrolled);
}

#[test]
fn a_program_that_never_answers_does_not_hang_the_join() {
    let coordinator = Coordinator::new(1);
    let mut host = Host::new();
    let request = host.join(&coordinator.token());
    host.advance(Duration::from_secs(200));
    assert!(
        refusal(&mut host, request)
            .message
            .contains("no coordinator answered")
    );
}

#[test]
fn what_no_retry_can_mend_is_told_at_once_in_the_words_of_the_channel() {
    for kind in [ChannelErrorKind::Untrusted, ChannelErrorKind::Clock] {
        let coordinator = Coordinator::new(1);
        let mut host = Host::new();
        let request = host.join(&coordinator.token());
        let sentence = "this machine's clock says 1999; set the clock";
        let error = ChannelError::new(kind, sentence);
        host.channel(ChannelEvent::Described(Err(error)));
        assert_eq!(refusal(&mut host, request).message, sentence);
    }
}

#[test]
fn another_fleet_behind_the_address_is_refused() {
    let (coordinator, other) = (Coordinator::new(1), Coordinator::new(2));
    let mut host = Host::new();
    let request = host.join(&coordinator.token());
    host.channel(ChannelEvent::Described(Ok(other.description())));
    let refusal = refusal(&mut host, request);
    assert!(
        refusal.message.contains("not the one that the token names"),
        "{refusal}"
    );
    assert!(
        host.disk.identity.is_none(),
        "nothing was offered, nothing is kept"
    );
}

#[test]
fn the_coordinator_s_refusal_is_passed_on_and_the_token_forgotten() {
    let coordinator = Coordinator::new(1);
    let mut host = Host::new();
    let request = host.join(&coordinator.token());
    host.channel(ChannelEvent::Described(Ok(coordinator.description())));
    let refused = Refusal::new(RefusalCode::Conflict, "the name web-1 is taken; use --name");
    host.channel(ChannelEvent::Enrolled(Err(EnrolError::Refused(
        refused.clone(),
    ))));
    assert_eq!(refusal(&mut host, request), refused);
    host.restart();
    assert_eq!(
        host.state(),
        HostState::Unenrolled,
        "it is not tried again by itself"
    );
}

#[test]
fn a_lost_enrolment_is_repeated_with_the_same_keys_and_then_given_up() {
    let coordinator = Coordinator::new(1);
    let mut host = Host::new();
    let request = host.join(&coordinator.token());
    host.channel(ChannelEvent::Described(Ok(coordinator.description())));
    let mut offers = Vec::new();
    let answer = loop {
        offers.extend(host.take(|output| match output {
            Output::Enrol { request, .. } => Some(request.clone()),
            _ => None,
        }));
        host.channel(ChannelEvent::Enrolled(Err(EnrolError::Channel(
            unreachable(),
        ))));
        host.advance(Duration::from_secs(5));
        if let Some(answer) = host.reply(request) {
            break answer;
        }
    };
    assert!(answer.is_err());
    assert_eq!(offers.len(), 6);
    assert!(offers.iter().all(|offer| *offer == offers[0]));
    // The next join, also after a restart, offers the same keys again.
    host.restart();
    host.join(&coordinator.token());
    host.channel(ChannelEvent::Described(Ok(coordinator.description())));
    assert!(host.has_said(|output| matches!(
        output,
        Output::Enrol { request, .. } if request.wireguard_key == offers[0].wireguard_key
    )));
}

#[test]
fn a_member_is_told_to_leave_first_and_a_second_join_to_wait() {
    let mut coordinator = Coordinator::new(1);
    let mut host = Host::member_of(&mut coordinator);
    let elsewhere = JoinRequest {
        token: Coordinator::new(2).token(),
        name: None,
    };
    let renamed = JoinRequest {
        token: coordinator.token(),
        name: Some("web-2".to_owned()),
    };
    for (id, join) in (90..).map(RequestId).zip([elsewhere, renamed]) {
        host.agent.handle_join(id, join, host.now);
        host.drain();
        let answer = refusal(&mut host, id);
        assert_eq!(answer.code, RefusalCode::Conflict);
        assert!(answer.message.contains("meshctl leave"), "{answer}");
    }

    let mut host = Host::new();
    host.join(&coordinator.token());
    let second = host.join(&coordinator.token());
    assert!(refusal(&mut host, second).message.contains("under way"));
}

#[test]
fn a_join_that_is_repeated_succeeds_and_changes_nothing() {
    let mut coordinator = Coordinator::new(1);
    let mut host = Host::member_of(&mut coordinator);
    host.said.clear();
    for name in [None, Some("web-1".to_owned())] {
        let join = JoinRequest {
            token: coordinator.token(),
            name,
        };
        host.agent.handle_join(RequestId(9), join, host.now);
        host.drain();
        let Some(Ok(Reply::Joined(joined))) = host.reply(RequestId(9)) else {
            panic!("the same join is refused")
        };
        assert_eq!(joined.name.as_str(), "web-1");
        assert_eq!(joined.addresses.len(), 2);
        assert!(joined.note.unwrap().contains("nothing was changed"));
        assert!(host.said.is_empty(), "{:?}", host.said);
    }
    assert_eq!(coordinator.enrolments, 1);

    // Also while it has no map, which is said.
    host.disk.map = None;
    host.restart();
    let request = host.join(&coordinator.token());
    let Some(Ok(Reply::Joined(joined))) = host.reply(request) else {
        panic!("the same join is refused")
    };
    assert!(joined.note.unwrap().contains("not in force yet"));
}

#[test]
fn a_disk_that_cannot_keep_the_keys_stops_the_join_before_anything_is_sent() {
    let coordinator = Coordinator::new(1);
    let mut host = Host::new();
    host.disk_error = Some("No space left on device");
    let request = host.join(&coordinator.token());
    host.channel(ChannelEvent::Described(Ok(coordinator.description())));
    let answer = refusal(&mut host, request);
    assert!(
        answer.message.contains("No space left on device"),
        "{answer}"
    );
    assert!(!host.has_said(|output| matches!(output, Output::Enrol { .. })));
    host.disk_error = None;
    host.advance(Duration::from_secs(120));
    assert_eq!(host.state(), HostState::Unenrolled);
    let request = host.join(&coordinator.token());
    assert_eq!(
        host.reply(request),
        None,
        "with room on the disk it goes on"
    );
    assert_eq!(host.state(), HostState::Joining);
}

#[test]
fn a_disk_that_fills_up_after_the_enrolment_is_told_and_the_membership_follows() {
    let mut coordinator = Coordinator::new(1);
    let mut host = Host::new();
    let request = host.join(&coordinator.token());
    host.channel(ChannelEvent::Described(Ok(coordinator.description())));
    host.disk_error = Some("No space left on device");
    host.answer_enrol(&mut coordinator);
    let answer = refusal(&mut host, request);
    assert!(
        answer.message.contains("has taken this host in"),
        "{answer}"
    );
    assert_eq!(host.state(), HostState::Joining);
    host.disk_error = None;
    host.advance(Duration::from_secs(60));
    assert_eq!(host.state(), HostState::Autonomous);
}

#[test]
fn an_answer_for_another_host_is_refused() {
    let mut coordinator = Coordinator::new(1);
    let mut host = Host::new();
    let request = host.join(&coordinator.token());
    host.channel(ChannelEvent::Described(Ok(coordinator.description())));
    let offer = host.take(|output| match output {
        Output::Enrol { request, .. } => Some(request.clone()),
        _ => None,
    });
    let mut enrolled = coordinator.enrol(&offer[0]);
    let other = coordinator.add_host("other");
    enrolled.record = coordinator.entry(other).record;
    host.channel(ChannelEvent::Enrolled(Ok(enrolled)));
    assert!(
        refusal(&mut host, request)
            .message
            .contains("does not hold")
    );
}
