//! Two hosts on loopback: streams between them, with real TLS, over TCP and over QUIC, and what happens when
//! one of them is not whom it should be, goes away, or answers nothing.

// Helpers of tests are tests to us, though not to the lint.
#![allow(clippy::unwrap_used)]

mod crowding;
#[path = "../fleet/mod.rs"]
mod fleet;
mod pair;
mod rekeying;
mod stopping;
mod udp;

use std::rc::Rc;
use std::sync::Arc;

use fleet::Fleet;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use pair::{Pair, Ways, get, nobody, over_both, run, sessions, snapshot};
use proxy::{ProxyBody, SessionError, Snapshots, Transport};
use tokio::task::spawn_local;

#[test]
fn a_stream_arrives_with_the_identity_of_its_host() {
    over_both(async |over| {
        let pair = Pair::new(over).await;
        let answer = pair.call("/who").await.unwrap();
        let who = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(who, format!("{:?}", pair.caller.host));
        assert_eq!(
            pair.call("/else").await.unwrap().status(),
            StatusCode::NOT_FOUND
        );
    });
}

#[test]
fn bodies_pass_both_ways_at_once_and_whole() {
    over_both(async |over| {
        let pair = Pair::new(over).await;
        let through = pair.call("/who").await.unwrap().into_body();
        drop(through);
        // 24 MB, more than the windows hold: it moves only as it is read at the other end.
        let answer = pair.echo(7, 24 << 20).await;
        let echoed = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(echoed.len(), 24 << 20);
        assert!(echoed.iter().all(|byte| *byte == 7));
    });
}

#[test]
fn hundreds_of_streams_need_a_few_connections() {
    over_both(async |over| {
        let pair = Pair::new(over).await;
        let mut answers = Vec::new();
        for _ in 0..250 {
            let (sessions, to) = (Rc::clone(&pair.sessions), pair.target.host);
            answers.push(spawn_local(async move {
                let request = Request::builder().method(Method::GET);
                let request = request.uri("http://orders/never");
                sessions
                    .request(to, request.body(ProxyBody::Empty).unwrap())
                    .await
                    .map(drop)
            }));
        }
        // Behind them all there is still room for another.
        for _ in 0..20 {
            assert_eq!(pair.call("/who").await.unwrap().status(), StatusCode::OK);
        }
        assert!(answers.iter().all(|answer| !answer.is_finished()));
        for answer in &answers {
            answer.abort();
        }
    });
}

#[test]
fn connections_that_are_full_stand_though_no_other_comes_about() {
    run(async {
        let pair = Pair::new(Transport::Tcp).await;
        let mut unread = Vec::new();
        for _ in 0..100 {
            unread.push(pair.echo(1, 1).await);
        }
        pair.lead(Ways::over(Transport::Tcp, nobody().await));
        // The first finds out, and the others are told.
        for _ in 0..3 {
            assert_eq!(pair.call("/who").await.unwrap_err(), SessionError::Full);
            assert_eq!(pair.sessions.outages_seen().len(), 1);
        }
        unread.pop();
        assert_eq!(pair.call("/who").await.unwrap().status(), StatusCode::OK);
    });
}

#[test]
fn streams_that_nobody_reads_do_not_stop_the_others() {
    over_both(async |over| {
        let pair = Pair::new(over).await;
        let mut unread = Vec::new();
        // Each holds as much as its window, both ways.
        for _ in 0..99 {
            unread.push(pair.echo(1, 4 << 20).await);
        }
        for _ in 0..20 {
            let answer = pair.call("/who").await.unwrap();
            let who = answer.into_body().collect().await.unwrap().to_bytes();
            assert!(!who.is_empty());
        }
        drop(unread);
        assert_eq!(pair.call("/who").await.unwrap().status(), StatusCode::OK);
    });
}

#[test]
fn a_host_whose_key_is_not_the_records_is_not_believed() {
    over_both(async |over| {
        let pair = Pair::new(over).await;
        // A member of the same fleet, with a good certificate, at the address of another.
        let mut other = pair.fleet.member(2);
        other.key = pair.fleet.member(9).key;
        pair.snapshots.replace(snapshot(
            &pair.fleet,
            &pair.caller,
            &[(&other, pair.called.ways.clone())],
        ));
        let error = pair.call("/who").await.unwrap_err();
        assert!(matches!(error, SessionError::Untrusted(_)), "{error}");
    });
}

#[test]
fn a_caller_that_no_record_names_gets_nothing() {
    over_both(async |over| {
        let pair = Pair::new(over).await;
        pair.called
            .snapshots
            .replace(snapshot(&pair.fleet, &pair.target, &[]));
        let error = pair.call("/who").await.unwrap_err();
        assert!(
            matches!(
                error,
                SessionError::Connect(_) | SessionError::Refused(_) | SessionError::Broken(_)
            ),
            "{error}"
        );
    });
}

#[test]
fn another_fleets_host_is_not_let_in() {
    over_both(async |over| {
        let pair = Pair::new(over).await;
        let stranger = Fleet::new(9);
        let me = stranger.member(1);
        let mut known = snapshot(&stranger, &me, &[]);
        let ways = pair.called.ways.clone();
        let of_other = snapshot(&pair.fleet, &pair.caller, &[(&pair.target, ways)]);
        let hosts = of_other.catalogue.hosts.values().cloned();
        known.catalogue = Arc::new(stranger.catalogue(&me, hosts.collect()));
        let sessions = sessions(&Snapshots::new(known));
        let error = sessions
            .request(pair.target.host, get("/who"))
            .await
            .unwrap_err();
        assert!(error.is_unsent(), "{error}");
    });
}

#[test]
fn a_host_that_is_removed_loses_its_open_streams() {
    over_both(async |over| {
        let pair = Pair::new(over).await;
        let mut body = pair.echo(1, 16 << 20).await.into_body();
        assert!(body.frame().await.is_some_and(|frame| frame.is_ok()));
        pair.called
            .snapshots
            .replace(snapshot(&pair.fleet, &pair.target, &[]));
        let mut ended = Ok(());
        while let Some(frame) = body.frame().await {
            ended = frame.map(drop);
        }
        assert!(ended.is_err(), "the body came to its end");
    });
}

#[test]
fn the_caller_too_drops_whom_it_does_not_know_any_more() {
    over_both(async |over| {
        let pair = Pair::new(over).await;
        let waiting = {
            let (sessions, to) = (Rc::clone(&pair.sessions), pair.target.host);
            spawn_local(async move { sessions.request(to, get("/never")).await.map(drop) })
        };
        assert_eq!(pair.call("/who").await.unwrap().status(), StatusCode::OK);
        pair.snapshots
            .replace(snapshot(&pair.fleet, &pair.caller, &[]));
        pair.sessions.review();
        let error = waiting.await.unwrap().unwrap_err();
        assert!(matches!(error, SessionError::Broken(_)), "{error}");
        let error = pair.call("/who").await.unwrap_err();
        assert_eq!(error, SessionError::NoAddress);
    });
}

#[test]
fn the_next_address_is_tried_when_one_does_not_answer() {
    over_both(async |over| {
        let pair = Pair::new(over).await;
        let mut ways = Ways::over(over, nobody().await);
        ways.streams.extend(&pair.called.ways.streams);
        ways.datagrams.extend(&pair.called.ways.datagrams);
        pair.lead(ways);
        assert_eq!(pair.call("/who").await.unwrap().status(), StatusCode::OK);
    });
}

#[test]
fn who_cannot_be_reached_is_told_of_at_once_for_a_while() {
    over_both(async |over| {
        let pair = Pair::new(over).await;
        pair.lead(Ways::over(over, nobody().await));
        let first = pair.call("/who").await.unwrap_err();
        assert!(matches!(first, SessionError::Connect(_)), "{first}");
        assert_eq!(pair.call("/who").await.unwrap_err(), first);
        assert!(first.to_string().contains("vm-2"), "{first}");
    });
}

#[test]
fn streams_under_way_end_before_a_stop() {
    over_both(async |over| {
        let pair = Pair::new(over).await;
        let mut answer = pair.echo(3, 8 << 20).await.into_body();
        let first = answer.frame().await.unwrap().unwrap();
        let first = first.into_data().unwrap().len();
        pair.called.stop.send_replace(true);
        let rest = answer.collect().await.unwrap().to_bytes().len();
        assert_eq!(first + rest, 8 << 20);
    });
}
