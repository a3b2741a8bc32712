//! Certificates and clocks: renewals happen, storms do not, expiry stops nothing.

use std::time::Duration;

use agent::{ChannelErrorKind, Output};
use model::control::{FromHost, ToHost};
use model::key::Secret;
use model::local::HostState;
use trust::enrolment::TlsKey;

use crate::coordinator::Coordinator;
use crate::host::Host;

const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// Lets time pass with a coordinator that answers; returns how many renewals were asked for.
fn live(host: &mut Host, coordinator: &mut Coordinator, time: Duration) -> usize {
    let end = host.now.monotonic + time;
    let mut renewals = 0;
    while host.now.monotonic < end {
        let step = Duration::from_secs(10);
        host.advance(step);
        coordinator.clock = coordinator.clock + step;
        let messages = host.sent(|message| Some(message.clone()));
        for message in messages {
            match message {
                FromHost::Ping(nonce) => host.told(ToHost::Pong(nonce)),
                FromHost::Renew(request) => {
                    renewals += 1;
                    let record = coordinator.hosts[&host.id()].clone();
                    let chain = coordinator.certify(&record, &request);
                    host.told(ToHost::Certificate(Ok(chain)));
                }
                _ => {}
            }
        }
        host.said.clear();
    }
    renewals
}

#[test]
fn a_certificate_is_renewed_at_half_life_and_kept() {
    let mut coordinator = Coordinator::new(1);
    let mut host = Host::member_of(&mut coordinator);
    let first = host.detail().certificate_expires_secs.unwrap();
    assert_eq!(live(&mut host, &mut coordinator, 8 * HOUR), 0);
    assert_eq!(live(&mut host, &mut coordinator, 8 * HOUR), 1);
    let second = host.detail().certificate_expires_secs.unwrap();
    assert!(second > first + 8 * 3600);
    host.restart();
    assert_eq!(host.detail().certificate_expires_secs, Some(second));
}

#[test]
fn a_year_forward_makes_no_storm_and_stops_nothing() {
    let mut coordinator = Coordinator::new(1);
    let mut host = Host::member_of(&mut coordinator);
    live(&mut host, &mut coordinator, HOUR);
    host.now.unix = host.now.unix + YEAR;
    let renewals = live(&mut host, &mut coordinator, 6 * HOUR);
    assert!(
        (1..60).contains(&renewals),
        "{renewals} renewals in six hours"
    );
    assert_eq!(host.state(), HostState::Online);
    assert!(
        host.detail()
            .alarms
            .iter()
            .any(|alarm| alarm.contains("expired"))
    );
    // The clock is set right: the alarm ends by itself.
    host.now.unix = coordinator.clock;
    live(&mut host, &mut coordinator, HOUR);
    assert!(
        host.detail().alarms.is_empty(),
        "{:?}",
        host.detail().alarms
    );
}

#[test]
fn a_year_back_misses_no_renewal() {
    let mut coordinator = Coordinator::new(1);
    let mut host = Host::member_of(&mut coordinator);
    live(&mut host, &mut coordinator, HOUR);
    host.now.unix = model::time::UnixTime::from_duration(host.now.unix.since_epoch() - YEAR);
    let renewals = live(&mut host, &mut coordinator, 36 * HOUR);
    assert!(
        (2..6).contains(&renewals),
        "{renewals} renewals in a day and a half"
    );
    assert!(host.detail().certificate_expires_secs.unwrap() > coordinator.clock.as_secs());
}

#[test]
fn a_clock_that_differs_from_the_coordinator_s_is_an_alarm_with_advice() {
    let mut coordinator = Coordinator::new(1);
    let mut host = Host::new();
    host.enrol(&mut coordinator);
    host.now.unix = host.now.unix + 2 * HOUR;
    host.connect(&coordinator);
    let alarms = host.detail().alarms;
    assert!(alarms[0].contains("120 minutes ahead") && alarms[0].contains("timedatectl"));
    let ahead = host.detail().clock_ahead_secs;
    assert!(
        ahead.is_some_and(|it| (7195..=7205).contains(&it)),
        "{ahead:?}"
    );
}

#[test]
fn the_alarm_about_a_clock_ends_when_the_clock_is_set() {
    let mut coordinator = Coordinator::new(1);
    let mut host = Host::member_of(&mut coordinator);
    host.now.unix = host.now.unix + 2 * HOUR;
    live(&mut host, &mut coordinator, Duration::from_secs(60));
    assert!(host.detail().alarms[0].contains("120 minutes ahead"));
    host.now.unix = coordinator.clock;
    live(&mut host, &mut coordinator, Duration::from_secs(60));
    assert!(
        host.detail().alarms.is_empty(),
        "{:?}",
        host.detail().alarms
    );
}

#[test]
fn a_channel_that_fails_for_the_clock_is_an_alarm_in_its_words() {
    let mut coordinator = Coordinator::new(1);
    let mut host = Host::member_of(&mut coordinator);
    let sentence = "this machine's clock says 1999; set the clock";
    host.closed(ChannelErrorKind::Clock, sentence);
    assert!(host.detail().alarms[0].contains(sentence));
    assert_eq!(host.detail().coordinator_error.as_deref(), Some(sentence));
    host.connect(&coordinator);
    assert!(host.detail().alarms.is_empty());
}

#[test]
fn a_host_that_was_off_for_a_year_renews_with_what_expired() {
    let mut coordinator = Coordinator::new(1);
    let mut host = Host::member_of(&mut coordinator);
    host.now.unix = host.now.unix + YEAR;
    coordinator.clock = coordinator.clock + YEAR;
    host.restart();
    assert_eq!(
        host.revision(),
        Some(coordinator.revision),
        "it has its peers meanwhile"
    );
    host.connect(&coordinator);
    assert!(host.has_said(|output| matches!(output, Output::Send(FromHost::Renew(_)))));
}

#[test]
fn a_host_whose_clock_stood_still_while_it_was_off_renews_by_the_coordinator_s() {
    let mut coordinator = Coordinator::new(1);
    let mut host = Host::member_of(&mut coordinator);
    coordinator.clock = coordinator.clock + YEAR;
    host.restart();
    host.connect(&coordinator);
    assert!(host.has_said(|output| matches!(output, Output::Send(FromHost::Renew(_)))));
    host.said.clear();
    // An answer that is late, or lies about the time, makes no storm.
    let renewals = live(&mut host, &mut coordinator, HOUR);
    assert!(renewals < 20, "{renewals}");
}

#[test]
fn a_certificate_for_another_key_is_refused() {
    let mut coordinator = Coordinator::new(1);
    let mut host = Host::member_of(&mut coordinator);
    let before = host.detail().certificate_expires_secs;
    coordinator.clock = coordinator.clock + HOUR;
    let record = coordinator.hosts[&host.id()].clone();
    let other_key = TlsKey::from_seed(Secret::from_bytes([3; 32]));
    let chain = coordinator.certify(&record, &other_key.certificate_request(&record.name));
    host.told(ToHost::Certificate(Ok(chain)));
    host.notice_with("certificate that does not hold");
    assert_eq!(host.detail().certificate_expires_secs, before);
}
