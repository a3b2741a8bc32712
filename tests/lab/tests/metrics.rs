//! Metrics of both daemons as a scraper sees them: every name of the catalogues is on the page, the
//! numbers tell what happens, and no counter goes back.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};

use lab::fleet::{CHANGE_DEADLINE, Host, Pair};
use lab::metrics::MetricsPage;
use lab::{Lab, LabError, Namespace, wait_until};

/// Its tables are written from the catalogues in the code.
const DOCUMENT: &str = include_str!("../../../docs/metrics.md");
const OF_MESHD: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 7445);
const OF_COORDINATOR: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 7446);

/// Asks as Prometheus does, for one format or the other.
fn scrape(
    machine: &Namespace,
    at: impl Into<SocketAddr>,
    accept: &str,
) -> Result<String, LabError> {
    let mut stream = machine.dial(at)?.connected()?;
    let head = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n");
    let mut answer = String::new();
    let asked = stream.write_all(head.as_bytes());
    let answered = asked.and_then(|()| stream.read_to_string(&mut answer));
    answered.map_err(|error| LabError::new(format!("no answer: {error}")))?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => Err(LabError::new(format!("no page: {answer:?}"))),
    }
}

fn page(machine: &Namespace, at: (Ipv4Addr, u16)) -> Result<MetricsPage, LabError> {
    MetricsPage::parse(&scrape(machine, at, "text/plain")?)
}

/// The names of a catalogue that a page lacks.
fn missing(page: &MetricsPage, section: &str) -> Vec<&'static str> {
    let table = |section: &str| {
        let begin = format!("<!-- begin {section} -->");
        let (_, rest) = DOCUMENT.split_once(&begin).unwrap();
        rest.split_once("<!-- end").unwrap().0
    };
    let rows = table(section).lines().chain(table("process").lines());
    let names = rows.filter_map(|row| row.strip_prefix("| `")?.split('`').next());
    let names: Vec<&str> = names.collect();
    assert!(names.len() > 30, "{names:?}");
    names.into_iter().filter(|name| !page.has(name)).collect()
}

#[test]
fn every_metric_of_the_catalogues_is_there_and_tells_what_happens() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    let (alpha, coordinator) = (pair.alpha.namespace(), &pair.fleet.coordinator);
    let before = page(alpha, OF_MESHD)?;
    assert_eq!(missing(&before, "meshd"), Vec::<&str>::new());
    pair.alpha.wait_reaches("beta")?;
    pair.alpha
        .namespace()
        .run("getent", ["hosts", "beta.mesh.internal"])?;
    let after = page(alpha, OF_MESHD)?;
    assert_eq!(after.gone_back_since(&before), Vec::<String>::new());
    for series in [
        "meshd_overlay_packets_total{direction=\"out\"}",
        "meshd_overlay_packets_total{direction=\"in\"}",
        "meshd_offered_bytes_total",
        "meshd_datagrams_received_total",
        "meshd_handshakes_completed_total",
        "meshd_dns_queries_total{outcome=\"answered\"}",
        "meshd_flows",
        "meshd_policy_version",
        "meshd_certificate_expires_timestamp_seconds",
        "meshd_coordinator_last_contact_timestamp_seconds",
    ] {
        assert!(after.value(series)? > 0.0, "{series}");
    }
    for (series, value) in [
        ("meshd_state{state=\"online\"}", 1.0),
        ("meshd_state{state=\"autonomous\"}", 0.0),
        ("meshd_overlay_up", 1.0),
        ("meshd_coordinator_connected", 1.0),
        ("meshd_peers{state=\"known\"}", 1.0),
        ("meshd_peers{state=\"session\"}", 1.0),
        ("meshd_hand_overs_total{outcome=\"taken_over\"}", 0.0),
    ] {
        assert_eq!(after.value(series)?, value, "{series}");
    }
    // However many peers there are, so many series and no more.
    assert!(after.series_count() < 160, "{}", after.series_count());

    let fleet = page(coordinator.namespace(), OF_COORDINATOR)?;
    assert_eq!(missing(&fleet, "coordinator"), Vec::<&str>::new());
    for (series, value) in [
        ("coordinator_hosts{state=\"online\"}", 2.0),
        ("coordinator_hosts{state=\"offline\"}", 0.0),
        ("coordinator_enrolments_total{outcome=\"done\"}", 2.0),
        ("coordinator_streams", 2.0),
        ("coordinator_recovery_under_way", 0.0),
        ("coordinator_authority_roots", 1.0),
    ] {
        assert_eq!(fleet.value(series)?, value, "{series}");
    }
    for series in [
        "coordinator_admin_requests_total{outcome=\"done\"}",
        "coordinator_sent_bytes_total{kind=\"map\"}",
        "coordinator_store_commit_seconds_count",
        "coordinator_store_written_bytes_total",
        "coordinator_store_file_bytes",
        "coordinator_audit_last_number",
    ] {
        assert!(fleet.value(series)? > 0.0, "{series}");
    }
    Ok(())
}

#[test]
fn whoever_asks_for_openmetrics_gets_it() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
    let text = scrape(pair.alpha.namespace(), OF_MESHD, accept)?;
    assert!(
        text.contains("# TYPE meshd_overlay_packets counter\n"),
        "{text}"
    );
    assert!(
        text.contains("# UNIT meshd_overlay_bytes bytes\n"),
        "{text}"
    );
    assert!(text.ends_with("# EOF\n"), "{text}");
    Ok(())
}

#[test]
fn the_local_socket_tells_the_same_and_the_port_can_be_closed() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    let closed = pair.fleet.machine_with("closed", &["--metrics", "off"])?;
    assert!(closed.namespace().dial(OF_MESHD)?.connected().is_err());
    let told = |host: &Host| host.meshctl(&["metrics"]).run()?.success();
    let of_nobody = MetricsPage::parse(&told(&closed)?.stdout)?;
    assert_eq!(of_nobody.value("meshd_state{state=\"unenrolled\"}")?, 1.0);
    assert_eq!(of_nobody.value("meshd_overlay_up")?, 0.0);
    let coordinator = &pair.fleet.coordinator;
    let told = coordinator.meshctl(&["metrics", "--coordinator"]).run()?;
    let fleet = MetricsPage::parse(&told.success()?.stdout)?;
    assert_eq!(fleet.value("coordinator_hosts{state=\"online\"}")?, 2.0);
    // Who else is at the network does not reach the port.
    let from_outside = (pair.alpha.attachment().v4, OF_MESHD.1);
    let dialled = pair.beta.namespace().dial(from_outside)?;
    assert!(dialled.connected().is_err());
    Ok(())
}

#[test]
fn a_setting_that_is_no_address_is_refused_and_a_port_that_is_taken_is_waited_for()
-> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    let wrong = pair.alpha.daemon().args(["--metrics", "7445"]).run()?;
    assert!(wrong.stderr.contains("IP:PORT"), "{}", wrong.stderr);
    // Both daemons of a machine want the port; the second one serves all the same, and tells.
    let path = |name: &str| lab.directory().join(name);
    let mut second = pair
        .beta
        .daemon()
        .option("--state-dir", path("second-state"))
        .option("--socket", path("second.sock"))
        .option("--listen-port", "51821")
        .option("--dns-listen", "127.0.0.54:53")
        .spawn("second")?;
    second.wait_ready(CHANGE_DEADLINE)?;
    second.wait_for_line("another program has it", CHANGE_DEADLINE)?;
    let told = pair.beta.meshctl(&["metrics"]);
    let told = told.option("--socket", path("second.sock")).run()?;
    let of_second = MetricsPage::parse(&told.success()?.stdout)?;
    assert_eq!(of_second.value("meshd_alarms")?, 1.0);
    assert!(pair.beta.stop()?.success());
    second.wait_for_line("metrics are answered now", CHANGE_DEADLINE)?;
    wait_until("the port is the second one's", CHANGE_DEADLINE, || {
        let dialled = pair.beta.namespace().dial(OF_MESHD)?;
        Ok(dialled.connected().ok())
    })?;
    assert!(second.terminate(CHANGE_DEADLINE)?.success());
    Ok(())
}

#[test]
fn a_successor_takes_the_port_and_says_that_it_took_over() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    let reload = pair.alpha.meshctl(&["reload", "--hand-over"]);
    reload.run()?.success()?;
    let there = pair.alpha.namespace();
    wait_until("the successor answers", CHANGE_DEADLINE, || {
        // Nobody does for a moment.
        let Ok(page) = page(there, OF_MESHD) else {
            return Ok(None);
        };
        let taken_over = page.value("meshd_hand_overs_total{outcome=\"taken_over\"}")?;
        Ok((taken_over > 0.0).then_some(()))
    })
}
