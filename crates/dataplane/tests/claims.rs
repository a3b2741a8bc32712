//! Rules about UDP that name workloads: packets wait until it is known who sends them, a claim goes
//! ahead, the receiver believes it as far as its own policy does, and no other flow is let in by it.

mod pair;

use std::time::Duration;

use dataplane::{Command, DropReason, Event, Extent, Limits, Sending, ShardConfig};
use model::name::Name;
use model::rule::{Bundle, Direction, Rule, Selector, Source, Workload};
use model::time::UnixTime;
use pair::{A, B, Pair, bundle, only, rule, udp_port};

const WEB: Option<&str> = Some("web");
const PORT: u16 = 53;
const FROM: u16 = 40_000;

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn workload(text: &str, host: usize) -> Workload {
    Workload {
        name: name(text),
        unit: Some(format!("{text}.service").parse().expect("a unit")),
        user: None,
        hosts: only(host),
        source: Source::default(),
    }
}

fn of_workload(id: &str, text: &str) -> Rule {
    Rule {
        from: vec![Selector::Workload(name(text))],
        ..rule(id, udp_port(PORT))
    }
}

/// The workload `web` of a host may ask port 53, `batch` is there too, and port 9 is open to all.
fn web_on(host: usize) -> Bundle {
    let allow = vec![of_workload("web-dns", "web"), rule("discard", udp_port(9))];
    Bundle {
        workloads: vec![workload("web", host), workload("batch", host)],
        ..bundle(allow, Vec::new())
    }
}

/// A session is there, and nothing was said yet.
fn connected(bundle: &Bundle) -> Pair {
    let mut pair = Pair::with_bundle(bundle);
    let packet = pair.udp(A, 1000, 9);
    pair.send(A, &packet);
    assert_eq!(pair.delivered(B).len(), 1);
    for host in [A, B] {
        pair.events(host);
    }
    pair
}

/// The same bundle with other bounds.
fn bounded(limits: Limits) -> Pair {
    let mut pair = Pair::strangers(ShardConfig {
        limits,
        ..ShardConfig::default()
    });
    for host in [A, B] {
        pair.introduce(host);
        pair.set_path(host, pair.hosts[1 - host].underlay);
    }
    pair.set_bundle(&web_on(A));
    pair
}

/// Returns which flows A asks about.
fn asked(pair: &mut Pair) -> Vec<Sending> {
    let asked = pair.events(A).into_iter().filter_map(|event| match event {
        Event::WhoSends(of) => Some(of),
        _ => None,
    });
    asked.collect()
}

/// A's kernel says who sends; the network stands still.
fn answer(pair: &mut Pair, of: Sending, workload: Option<&str>) {
    let workload = workload.map(name);
    pair.command(A, vec![Command::Sender { of, workload }]);
}

/// A sends from a port to another, and its kernel says who does.
fn send_as(pair: &mut Pair, workload: Option<&str>, from: u16) -> Sending {
    let packet = pair.udp(A, from, PORT);
    pair.send(A, &packet);
    let of = asked(pair);
    assert_eq!(of.len(), 1, "{of:?}");
    answer(pair, of[0], workload);
    pair.run();
    of[0]
}

fn send(pair: &mut Pair, from: u16) {
    let packet = pair.udp(A, from, PORT);
    pair.send(A, &packet);
}

fn reply(pair: &mut Pair, to: u16) {
    let packet = pair.udp(B, PORT, to);
    pair.send(B, &packet);
}

#[test]
fn what_the_named_workload_sends_arrives_from_its_first_packet_on_and_is_answered() {
    let mut pair = connected(&web_on(A));
    let of = send_as(&mut pair, WEB, FROM);
    let (source, destination) = pair.v4(A);
    assert_eq!((of.source.ip(), of.source.port()), (source, FROM));
    assert_eq!(
        (of.destination.ip(), of.destination.port()),
        (destination, PORT)
    );
    assert_eq!(pair.delivered(B).len(), 1);
    for _ in 0..3 {
        reply(&mut pair, FROM);
        send(&mut pair, FROM);
    }
    assert_eq!((pair.delivered(A).len(), pair.delivered(B).len()), (3, 3));
    assert!(asked(&mut pair).is_empty(), "it is asked once");
    assert_eq!(pair.dropped(B, DropReason::UnknownWorkload), 0);
}

#[test]
fn a_claim_waits_for_a_session_as_its_packets_do() {
    let mut pair = Pair::with_bundle(&web_on(A));
    let packet = pair.udp(A, FROM, PORT);
    pair.offer(A, &packet);
    let of = asked(&mut pair);
    answer(&mut pair, of[0], WEB);
    pair.run();
    assert_eq!(pair.delivered(B).len(), 1);
}

#[test]
fn who_is_no_workload_or_another_is_refused_at_once_and_told_why() {
    for (sender, rule) in [(None, Some("web-dns")), (Some("batch"), None)] {
        let mut pair = connected(&web_on(A));
        send_as(&mut pair, sender, FROM);
        assert!(pair.delivered(B).is_empty());
        assert_eq!(pair.delivered(A).len(), 1, "an ICMP error");
        let denials = pair.denials(A);
        let denial = &denials[0];
        assert_eq!(denial.direction, Direction::Outbound);
        assert_eq!(denial.rule.as_ref().map(|it| it.as_str()), rule);
        assert_eq!(denial.needs_workload, rule.is_some());
        assert_eq!(denial.workload, sender.map(name));
        send(&mut pair, FROM);
        assert!(asked(&mut pair).is_empty(), "the answer holds for a moment");
        assert_eq!(pair.dropped(A, DropReason::DeniedOutbound), 2);
    }
}

#[test]
fn a_deny_of_a_workload_lets_others_through() {
    let rules = bundle(
        vec![rule("dns", udp_port(PORT)), rule("discard", udp_port(9))],
        vec![of_workload("no-batch", "batch")],
    );
    let rules = Bundle {
        workloads: vec![workload("web", A), workload("batch", A)],
        ..rules
    };
    let mut pair = connected(&rules);
    send_as(&mut pair, WEB, FROM);
    assert_eq!(pair.delivered(B).len(), 1);
    send_as(&mut pair, Some("batch"), FROM + 1);
    assert!(pair.delivered(B).is_empty());
    let denials = pair.denials(A);
    assert_eq!(denials[0].rule.as_ref().unwrap().as_str(), "no-batch");
    assert!(!denials[0].needs_workload);
    send_as(&mut pair, None, FROM + 2);
    assert!(
        pair.delivered(B).is_empty(),
        "a deny closes for who is not known"
    );
}

#[test]
fn a_claim_that_was_lost_is_missed_and_told_again() {
    let mut pair = connected(&web_on(A));
    let packet = pair.udp(A, FROM, PORT);
    pair.send(A, &packet);
    let of = asked(&mut pair);
    answer(&mut pair, of[0], WEB);
    assert_eq!(pair.network.len(), 2, "a claim and the packet");
    pair.network.pop_front();
    pair.run();
    assert!(pair.delivered(B).is_empty());
    assert_eq!(pair.dropped(B, DropReason::UnknownWorkload), 1);
    let denial = pair.denials(B).remove(0);
    assert_eq!(denial.rule.as_ref().unwrap().as_str(), "web-dns");
    assert!(denial.needs_workload);
    send(&mut pair, FROM);
    assert_eq!(pair.delivered(B).len(), 1);
    send(&mut pair, FROM);
    assert_eq!(pair.delivered(B).len(), 1);
}

#[test]
fn a_claim_is_repeated_until_it_is_heard_and_then_now_and_then() {
    let mut pair = connected(&web_on(A));
    let packet = pair.udp(A, FROM, PORT);
    pair.send(A, &packet);
    let of = asked(&mut pair);
    answer(&mut pair, of[0], WEB);
    pair.network.clear();
    let offered = |pair: &mut Pair| {
        pair.offer(A, &packet);
        let sent = pair.network.len();
        pair.network.clear();
        sent
    };
    assert_eq!(offered(&mut pair), 1, "at once, the claim is not repeated");
    pair.pass(Duration::from_millis(5));
    assert_eq!(offered(&mut pair), 2);
    pair.pass(Duration::from_millis(5));
    send(&mut pair, FROM);
    assert_eq!(pair.delivered(B).len(), 1);
    pair.pass(Duration::from_millis(5));
    assert_eq!(offered(&mut pair), 1, "it was heard");
    pair.pass(Duration::from_secs(20));
    answer(&mut pair, of[0], WEB);
    assert_eq!(
        offered(&mut pair),
        2,
        "it is told again while the flow lives"
    );
}

#[test]
fn who_only_listens_goes_on_hearing() {
    let mut pair = connected(&web_on(A));
    let of = send_as(&mut pair, WEB, FROM);
    reply(&mut pair, FROM);
    assert_eq!(pair.delivered(A).len(), 1);
    for _ in 0..10 {
        pair.pass(Duration::from_secs(30));
        reply(&mut pair, FROM);
        assert_eq!(pair.delivered(A).len(), 1);
        assert_eq!(asked(&mut pair), [of], "as often as it may");
        answer(&mut pair, of, WEB);
    }
    pair.pass(Duration::from_secs(30));
    reply(&mut pair, FROM);
    answer(&mut pair, of, None);
    pair.delivered(A);
    reply(&mut pair, FROM);
    assert!(pair.delivered(A).is_empty(), "another program has the port");
}

#[test]
fn a_claim_opens_one_flow_and_no_other() {
    let mut pair = connected(&web_on(A));
    send_as(&mut pair, WEB, FROM);
    assert_eq!(pair.delivered(B).len(), 1);
    // A believes now that everything is allowed, and sends without a claim.
    let all = bundle(vec![rule("all", udp_port(PORT))], Vec::new());
    pair.set_bundle_at(A, &all);
    send(&mut pair, FROM + 1);
    assert!(pair.delivered(B).is_empty());
    assert_eq!(pair.dropped(B, DropReason::UnknownWorkload), 1);
}

#[test]
fn a_host_vouches_only_for_what_the_policy_places_on_it() {
    let mut pair = connected(&web_on(A));
    pair.set_bundle_at(B, &web_on(B));
    send_as(&mut pair, WEB, FROM);
    assert!(pair.delivered(B).is_empty());
    assert_eq!(
        pair.dropped(B, DropReason::DeniedInbound),
        1,
        "A runs no web"
    );
    let mut elsewhere = web_on(B);
    elsewhere.allow[0]
        .from
        .push(Selector::Workload(name("batch")));
    elsewhere.workloads[1].hosts = only(A);
    pair.set_bundle_at(B, &elsewhere);
    send_as(&mut pair, WEB, FROM + 1);
    assert!(pair.delivered(B).is_empty());
    let denial = pair.denials(B).pop().unwrap();
    assert!(denial.needs_workload, "{denial:?}");
    assert_eq!(pair.rejections(A).len(), 1, "its daemon is told");
}

#[test]
fn open_flows_are_decided_again_when_the_policy_changes() {
    let mut pair = connected(&web_on(A));
    send_as(&mut pair, WEB, FROM);
    assert_eq!(pair.delivered(B).len(), 1);
    let mut closed = web_on(A);
    closed.allow.remove(0);
    pair.set_bundle_at(B, &closed);
    send(&mut pair, FROM);
    assert!(pair.delivered(B).is_empty(), "the receiver enforces");
    pair.set_bundle(&web_on(A));
    pair.pass(Duration::from_secs(1));
    send_as_again(&mut pair);
    assert_eq!(pair.delivered(B).len(), 1);
    pair.set_bundle_at(A, &closed);
    send(&mut pair, FROM);
    assert!(pair.delivered(B).is_empty(), "so does the sender");
    reply(&mut pair, FROM);
    assert!(
        pair.delivered(A)
            .iter()
            .all(|it| it[9] == pair::packets::ICMP)
    );
}

/// Whatever is asked, `web` sends it.
fn send_as_again(pair: &mut Pair) {
    send(pair, FROM);
    for of in asked(pair) {
        answer(pair, of, WEB);
    }
    pair.run();
}

#[test]
fn a_program_that_takes_the_port_of_another_is_found_out() {
    let mut pair = connected(&web_on(A));
    let of = send_as(&mut pair, WEB, FROM);
    pair.delivered(B);
    pair.pass(Duration::from_secs(1));
    send(&mut pair, FROM);
    assert_eq!(
        asked(&mut pair),
        [of],
        "asked again, and nothing waits for it"
    );
    assert_eq!(pair.delivered(B).len(), 1);
    answer(&mut pair, of, None);
    send(&mut pair, FROM);
    assert!(pair.delivered(B).is_empty());
    assert_eq!(pair.dropped(A, DropReason::DeniedOutbound), 1);
    pair.delivered(A);
    reply(&mut pair, FROM);
    assert!(
        pair.delivered(A).is_empty(),
        "replies to it are not its own"
    );
}

#[test]
fn an_answer_of_two_seconds_ago_lets_nothing_out() {
    let mut pair = connected(&web_on(A));
    let of = send_as(&mut pair, WEB, FROM);
    pair.delivered(B);
    pair.pass(Duration::from_secs(2));
    send(&mut pair, FROM);
    assert!(pair.delivered(B).is_empty(), "it waits");
    assert_eq!(asked(&mut pair), [of]);
    answer(&mut pair, of, WEB);
    pair.run();
    assert_eq!(pair.delivered(B).len(), 1);
    pair.pass(Duration::from_secs(2));
    send(&mut pair, FROM);
    answer(&mut pair, of, None);
    pair.run();
    assert!(pair.delivered(B).is_empty(), "another program has the port");
}

#[test]
fn another_policy_asks_anew_however_late_the_answer_to_the_question_before_comes() {
    let mut pair = connected(&web_on(A));
    send(&mut pair, FROM);
    let before = asked(&mut pair)[0];
    pair.set_bundle_at(A, &web_on(A));
    answer(&mut pair, before, WEB);
    pair.run();
    assert_eq!(pair.delivered(B).len(), 1);
    let after = asked(&mut pair);
    assert_eq!(after.len(), 1, "the workloads may be others");
    assert!(after[0].under > before.under);
    answer(&mut pair, after[0], None);
    send(&mut pair, FROM);
    assert!(pair.delivered(B).is_empty());
    assert!(asked(&mut pair).is_empty());
}

#[test]
fn what_nobody_tells_is_dropped_in_a_second_and_asked_anew() {
    let mut pair = connected(&web_on(A));
    send(&mut pair, FROM);
    send(&mut pair, FROM);
    let of = asked(&mut pair);
    assert_eq!((of.len(), pair.hosts[A].counters.queued()), (1, 2));
    pair.pass(Duration::from_secs(1));
    assert_eq!(pair.hosts[A].counters.queued(), 0);
    assert_eq!(pair.dropped(A, DropReason::UnknownWorkload), 2);
    answer(&mut pair, of[0], WEB);
    pair.run();
    assert!(pair.delivered(B).is_empty());
    send_as(&mut pair, WEB, FROM);
    assert_eq!(pair.delivered(B).len(), 1);
}

#[test]
fn the_other_end_may_start_again() {
    let rules = web_on(A);
    let mut pair = connected(&rules);
    send_as(&mut pair, WEB, FROM);
    assert_eq!(pair.delivered(B).len(), 1);
    pair.restart(B, &rules, UnixTime::default());
    // Its first packet leads to a session with the new daemon, and what comes then to a claim.
    for _ in 0..3 {
        send_as_again(&mut pair);
        pair.pass(Duration::from_secs(6));
    }
    send_as_again(&mut pair);
    assert!(!pair.delivered(B).is_empty());
}

#[test]
fn who_only_listens_hears_again_after_the_other_end_was_taken_over() {
    const FLOWS: u16 = 100;
    let rules = web_on(A);
    let mut pair = connected(&rules);
    for from in FROM..FROM + FLOWS {
        send_as(&mut pair, WEB, from);
        reply(&mut pair, from);
    }
    pair.pass(Duration::from_secs(30));
    let left = pair.hosts[B]
        .shard
        .bequeath(Extent::PeersAndFlows, pair.now);
    pair.restart(B, &rules, pair.now.unix);
    let now = pair.now;
    pair.hosts[B].with(|shard, _| assert!(shard.inherit_flows(&left, now) >= FLOWS.into()));
    let hello = pair.udp(B, 1000, 9);
    pair.send(B, &hello);
    for host in [A, B] {
        pair.delivered(host);
        pair.events(host);
    }
    // The first of each shows that its claim is missed; nothing but that brings it.
    for expected in [0, usize::from(FLOWS)] {
        for from in FROM..FROM + FLOWS {
            reply(&mut pair, from);
        }
        assert_eq!(pair.delivered(A).len(), expected);
    }
    assert!(pair.denials(B).is_empty(), "the rules deny none of them");
}

#[test]
fn a_flood_of_flows_waits_within_bounds_and_is_counted() {
    let asked_max = 4;
    let limits = Limits {
        senders_asked: asked_max,
        ..Limits::default()
    };
    let mut pair = bounded(limits);
    for from in FROM..FROM + 10 {
        for _ in 0..20 {
            send(&mut pair, from);
        }
    }
    assert_eq!(asked(&mut pair).len(), asked_max);
    assert_eq!(pair.hosts[A].counters.queued(), 16 * asked_max as u64);
    let dropped = pair.dropped(A, DropReason::UnknownWorkload);
    assert_eq!(dropped, 200 - 16 * asked_max as u64);
    pair.command(A, vec![Command::RemovePeer { index: pair::PEER }]);
    assert_eq!(pair.hosts[A].counters.queued(), 0);
}

#[test]
fn a_new_port_for_each_question_fills_no_table_for_good() {
    for (claims, claims_per_peer) in [(8, 8), (8, 4)] {
        let mut pair = bounded(Limits {
            claims,
            claims_per_peer,
            ..Limits::default()
        });
        for from in FROM..FROM + 50 {
            send_as(&mut pair, WEB, from);
            reply(&mut pair, from);
            assert_eq!((pair.delivered(A).len(), pair.delivered(B).len()), (1, 1));
        }
        assert_eq!(pair.dropped(B, DropReason::ClaimTableFull), 0);
        assert_eq!(pair.dropped(A, DropReason::UnknownWorkload), 0);
    }
}

#[test]
fn who_is_denied_shuts_nobody_out() {
    let mut pair = bounded(Limits {
        claims: 8,
        claims_per_peer: 8,
        ..Limits::default()
    });
    let mut open = web_on(A);
    open.allow[0].from.push(Selector::Workload(name("batch")));
    send_as(&mut pair, WEB, FROM);
    reply(&mut pair, FROM);
    // A believes that `batch` may, and claims it; this host's programs are denied at once.
    pair.set_bundle_at(A, &open);
    for from in FROM + 1..FROM + 20 {
        send_as(&mut pair, Some("batch"), from);
    }
    pair.set_bundle_at(A, &web_on(A));
    for from in FROM + 20..FROM + 40 {
        send_as(&mut pair, None, from);
    }
    pair.delivered(A);
    pair.delivered(B);
    send_as(&mut pair, WEB, FROM + 40);
    reply(&mut pair, FROM + 40);
    reply(&mut pair, FROM);
    assert_eq!((pair.delivered(A).len(), pair.delivered(B).len()), (2, 1));
}

#[test]
fn a_flow_that_no_such_rule_concerns_asks_nothing() {
    let mut pair = connected(&web_on(A));
    for port in [9, 54] {
        let packet = pair.udp(A, FROM, port);
        pair.send(A, &packet);
        assert!(asked(&mut pair).is_empty(), "{port}");
    }
    assert_eq!(pair.delivered(B).len(), 1);
    assert_eq!(pair.dropped(A, DropReason::DeniedOutbound), 1);
}
