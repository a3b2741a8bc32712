//! What an operator sees of calls of services: who calls what and how it goes, what became of one call
//! and why, at both of its ends, in `meshctl`, metrics, logs and traces.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use lab::fleet::{CHANGE_DEADLINE, Fleet, Host};
use lab::metrics::MetricsPage;
use lab::{Lab, LabError, Namespace, Ran, wait_until};
use serde_json::Value;

const POLICY: &str = "\
fleet: test
services:
  orders: { port: 8080, protocol: http, endpoints: [\"role=app\"] }
allow:
  - { id: ping, from: any, to: any, icmp: true }
  - { id: web-orders, from: \"role=web\", to: orders, http: [\"GET /v1/**\"] }
";
const ORDERS: &str = "http://orders.mesh.internal:8080/v1/items";
/// Where a collector of OpenTelemetry listens.
const OTLP_PORT: u16 = 4318;

/// Reads the head of a message of HTTP and its body, if it says how long that is.
fn read_message(stream: &TcpStream) -> std::io::Result<(String, String)> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head += &line;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((head, String::from_utf8(body).unwrap()))
}

fn answer(mut stream: &TcpStream, status: &str, body: &str) -> std::io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nmesh-timing: 1,1\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// A program that answers each request with its head, so that its caller sees what it was given.
fn serve_heads(machine: &Namespace, status: &'static str) -> Result<(), LabError> {
    let bind = || TcpListener::bind((Ipv6Addr::UNSPECIFIED, 8080));
    let listener = machine.inside(bind)?.unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            // Who asks whether it is there says nothing.
            let asked = read_message(&stream);
            let _ = asked.and_then(|(head, _)| answer(&stream, status, &head));
        }
    });
    Ok(())
}

/// A collector on a host: the spans that it was sent.
type Spans = Arc<Mutex<Vec<Value>>>;

fn collect(machine: &Namespace) -> Result<Spans, LabError> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, OTLP_PORT));
    let listener = machine.inside(bind)?.unwrap();
    let spans = Spans::default();
    let taken = Arc::clone(&spans);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let (head, body) = read_message(&stream).unwrap();
            assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
            let batch: Value = serde_json::from_str(&body).unwrap();
            let sent = &batch["resourceSpans"][0]["scopeSpans"][0]["spans"];
            taken
                .lock()
                .unwrap()
                .extend(sent.as_array().unwrap().clone());
            answer(&stream, "200 OK", "").unwrap();
        }
    });
    Ok(spans)
}

fn attribute<'v>(span: &'v Value, key: &str) -> &'v Value {
    let attributes = span["attributes"].as_array().unwrap();
    let found = attributes.iter().find(|it| it["key"] == key);
    &found.unwrap_or_else(|| panic!("no {key} in {span}"))["value"]
}

/// A fleet whose hosts with `role=app` offer what those with `role=web` call.
struct Place {
    fleet: Fleet,
    web: Host,
    log: PathBuf,
}

impl Place {
    fn start(lab: &Lab) -> Result<Self, LabError> {
        let fleet = Fleet::start(lab, "test")?;
        fleet.coordinator.apply_policy_text(POLICY)?;
        let log = lab.directory().join("access.log");
        let web = member(
            &fleet,
            ("web-1", "role=web"),
            &[
                "--access-log-file",
                log.to_str().unwrap(),
                "--services-threads",
                "1",
            ],
        )?;
        Ok(Self { fleet, web, log })
    }

    fn app(&self, name: &str, status: &'static str) -> Result<Host, LabError> {
        let app = member(&self.fleet, (name, "role=app"), &[])?;
        serve_heads(app.namespace(), status)?;
        Ok(app)
    }

    fn call(&self, arguments: &[&str]) -> Result<Ran, LabError> {
        let curl = self.web.namespace().launch("curl");
        curl.args(["-sS", "--max-time", "10"]).args(arguments).run()
    }

    fn wait_until_it_works(&self) -> Result<(), LabError> {
        wait_until("the service answers", CHANGE_DEADLINE, || {
            let ran = self.call(&["--fail", ORDERS])?;
            Ok(ran.status.success().then_some(()))
        })
    }

    /// The lines of the access log.
    fn logged(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        // The last one may not be written whole yet.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn wait_logged(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Result<Value, LabError> {
        wait_until(what, CHANGE_DEADLINE, || {
            Ok(self.logged().into_iter().find(|line| is_it(line)))
        })
    }
}

fn member(
    fleet: &Fleet,
    (name, label): (&str, &str),
    arguments: &[&str],
) -> Result<Host, LabError> {
    let token = fleet.coordinator.create_token(&[label])?;
    let otlp = format!("http://127.0.0.1:{OTLP_PORT}");
    let mut all = vec!["--access-log", "all", "--otlp", &otlp];
    all.extend(arguments);
    let host = fleet.machine_with(name, &all)?;
    host.join(&token)?;
    Ok(host)
}

fn page(host: &Host) -> Result<MetricsPage, LabError> {
    MetricsPage::parse(&host.meshctl(&["metrics"]).run()?.success()?.stdout)
}

#[test]
fn a_refused_call_is_explained_by_its_id_where_it_was_decided() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let place = Place::start(&lab)?;
    let app = place.app("app-1", "200 OK")?;
    place.wait_until_it_works()?;
    let ran = place.call(&["-i", "-XDELETE", ORDERS])?.success()?;
    assert!(
        ran.stdout.starts_with("HTTP/1.1 403 Forbidden\r\n"),
        "{ran:?}"
    );
    let header = |name: &str| {
        let mut lines = ran.stdout.lines();
        lines.find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
    };
    assert_eq!(header("mesh-reason:").as_deref(), Some("denied"));
    let id = header("mesh-call:").unwrap();
    assert!(ran.stdout.contains(&format!("(call {id})")), "{ran:?}");

    let calls = place.web.ask(&["explain", &id])?;
    let call = &calls[0];
    for (key, value) in [
        ("part", "source"),
        ("from", "web-1"),
        ("to", "orders"),
        ("method", "DELETE"),
        ("path", "/v1/items"),
        ("reason", "denied"),
        ("decision", "denied: no rule allows it"),
    ] {
        assert_eq!(call[key], value, "{key}");
    }
    assert_eq!(call["status"], 403);
    // The one rule that could help, and neither ping nor anything else.
    let near = call["near_misses"].as_array().unwrap();
    let [near] = &near[..] else {
        panic!("{near:?}")
    };
    let near = near.as_str().unwrap();
    assert!(near.contains("`web-orders`"), "{near}");
    assert!(
        near.contains("the method: it allows GET, not DELETE"),
        "{near}"
    );
    // It never came to the other end, which says so, and whom to ask.
    let there = app.meshctl(&["explain", &id]).run()?;
    assert!(!there.status.success());
    assert!(
        there.stderr.contains("ask at the caller's host"),
        "{there:?}"
    );

    let line = place.wait_logged("the refusal is logged", |line| line["id"] == *id)?;
    assert_eq!(line["reason"], "denied");
    assert_eq!(line["part"], "source");
    let counted = "meshd_service_calls_total{part=\"source\",from=\"web-1\",to=\"orders\",\
                   status=\"4xx\",reason=\"denied\"}";
    assert_eq!(page(&place.web)?.value(counted)?, 1.0);
    Ok(())
}

#[test]
fn a_call_is_seen_at_both_ends_with_where_its_time_went() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let place = Place::start(&lab)?;
    let app = place.app("app-1", "200 OK")?;
    let (at_web, at_app) = (collect(place.web.namespace())?, collect(app.namespace())?);
    place.wait_until_it_works()?;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let given = format!("traceparent: 00-{trace}-00f067aa0ba902b7-01");
    let ran = place
        .call(&["-i", "--fail", "-H", &given, ORDERS])?
        .success()?;
    let (answered, program) = ran.stdout.split_once("\r\n\r\n").unwrap();
    // What is between the hosts is theirs, and what a program says in their name is not believed.
    assert!(!answered.contains("mesh-"), "{answered}");

    let span_of = |spans: &Spans, what: &str| {
        wait_until(what, CHANGE_DEADLINE, || {
            let spans = spans.lock().unwrap();
            Ok(spans.iter().find(|it| it["traceId"] == trace).cloned())
        })
    };
    let source = span_of(&at_web, "the caller's host has sent its span")?;
    let destination = span_of(&at_app, "the endpoint's host has sent its span")?;
    assert_eq!(source["parentSpanId"], "00f067aa0ba902b7");
    assert_eq!(destination["parentSpanId"], source["spanId"]);
    let own = destination["spanId"].as_str().unwrap();
    let passed_on = format!("traceparent: 00-{trace}-{own}-01");
    assert!(program.contains(&passed_on), "{program}");
    let id = attribute(&source, "mesh.call")["stringValue"].clone();
    assert_eq!(attribute(&destination, "mesh.call")["stringValue"], id);
    assert_eq!(attribute(&source, "mesh.part")["stringValue"], "source");
    attribute(&source, "mesh.tunnel_us");
    attribute(&destination, "mesh.first_byte_us");

    let id = id.as_str().unwrap();
    let here = &place.web.ask(&["explain", id])?[0];
    let there = &app.ask(&["explain", id])?[0];
    assert_eq!(
        (&here["part"], &there["part"]),
        (&"source".into(), &"destination".into())
    );
    for call in [here, there] {
        assert_eq!(call["rule"], "web-orders");
        assert_eq!(call["tried"][0], "app-1");
        assert_eq!(call["status"], 200);
    }
    let micros = |call: &Value, stage: &str| call[format!("{stage}_micros")].as_u64();
    let told = ["connect", "tunnel", "server_queue", "first_byte"].map(|it| micros(here, it));
    // Each was rounded down.
    let (all, answer) = (
        told.iter().flatten().sum::<u64>(),
        micros(here, "answer").unwrap(),
    );
    assert!((all..all + 4).contains(&answer), "{here}");
    assert!(told.iter().all(Option::is_some), "{here}");
    // The source knows what the destination measured, and no clock but its own was asked for the rest.
    assert_eq!(micros(here, "first_byte"), micros(there, "first_byte"));
    assert_eq!(
        (micros(there, "tunnel"), micros(there, "connect")),
        (None, None)
    );

    let line = place.wait_logged("the call is logged", |line| line["id"] == *id)?;
    assert_eq!(line["first_byte_micros"], here["first_byte_micros"]);
    for (host, part, stages) in [
        (
            &place.web,
            "source",
            &["queue", "connect", "tunnel", "server_queue", "first_byte"][..],
        ),
        (&app, "destination", &["server_queue", "first_byte"][..]),
    ] {
        let page = page(host)?;
        let edge = format!("part=\"{part}\",from=\"web-1\",to=\"orders\"");
        let of_edge = format!("meshd_service_calls_total{{{edge},");
        let (all, good) = (
            page.sum(&of_edge),
            page.sum(&format!("{of_edge}status=\"2xx\",")),
        );
        assert!(good > 0.0);
        for stage in stages {
            let series =
                format!("meshd_service_call_stage_seconds_count{{{edge},stage=\"{stage}\"}}");
            let count = page.value(&series)?;
            // Every call waits for its turn. Those from before the app was there went no further, and
            // those that it answered came to each stage.
            let least = if *stage == "queue" { all } else { good };
            assert!(
                (least..=all).contains(&count),
                "{part} {stage}: {count} of {all}, {good} of them answered"
            );
        }
    }
    Ok(())
}

#[test]
fn edges_and_endpoints_are_seen_as_they_are_now() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let place = Place::start(&lab)?;
    let _apps = ["app-1", "app-2"].map(|name| place.app(name, "503 Service Unavailable").unwrap());
    // Each look follows calls: as long as there are none nothing is learned.
    let ejected = wait_until("one of two that fail is left out", CHANGE_DEADLINE, || {
        place.call(&["-o", "/dev/null", ORDERS])?;
        let service = place.web.ask(&["services", "show", "orders"])?;
        let endpoints = service["live"]["endpoints"].as_array().cloned();
        let mut out = endpoints.unwrap_or_default().into_iter();
        Ok(out.find(|it| it["ejected_by"] == 1 && it["ejected_for_millis"].is_u64()))
    })?;
    let why = ejected["why"].as_str().unwrap();
    assert!(why.contains("failed") || why.contains("succeeded"), "{why}");
    let shown = place
        .web
        .meshctl(&["services", "show", "orders"])
        .run()?
        .success()?;
    assert!(shown.stdout.contains("CALLED BY"), "{shown:?}");

    let edge = wait_until("calls are in the rates of top", CHANGE_DEADLINE, || {
        let asking = thread::scope(|scope| {
            let top = scope.spawn(|| place.web.ask(&["top", "-n", "1", "--interval", "1"]));
            while !top.is_finished() {
                place.call(&["-o", "/dev/null", ORDERS])?;
            }
            top.join().unwrap()
        });
        let edges = asking?["edges"].as_array().cloned().unwrap_or_default();
        let edge = edges.into_iter().find(|edge| edge["to"] == "orders");
        Ok(edge.filter(|edge| edge["calls_per_second"].as_f64() > Some(0.0)))
    })?;
    assert_eq!(
        (&edge["from"], &edge["part"]),
        (&"web-1".into(), &"source".into())
    );
    assert!(
        edge["p50_micros"].as_u64() <= edge["p99_micros"].as_u64(),
        "{edge}"
    );
    assert_eq!(edge["failed_percent"], 100.0, "{edge}");
    let stages = edge["stages"].as_array().unwrap();
    let names: Vec<&str> = stages
        .iter()
        .map(|it| it["stage"].as_str().unwrap())
        .collect();
    let all = [
        "queue",
        "connect",
        "tunnel",
        "server_queue",
        "first_byte",
        "body",
    ];
    assert_eq!(names, all);
    let listed = place.web.meshctl(&["services", "list"]).run()?.success()?;
    assert!(listed.stdout.contains("orders.mesh.internal"), "{listed:?}");
    Ok(())
}
