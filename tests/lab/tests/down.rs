//! Services of which no endpoint is left: what their callers are answered, that nobody waits for what is
//! known to be gone, and what operators see of it.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]

use lab::fleet::{CHANGE_DEADLINE, Fleet, Host};
use lab::metrics::MetricsPage;
use lab::{Lab, LabError, Process, wait_until};
use serde_json::Value;

const POLICY: &str = "\
fleet: test
services:
  orders:
    port: 8080
    protocol: http
    endpoints: [\"role=app\"]
    health: { check: tcp, interval: 1s }
    fallback: { status: 203, type: text/plain, body: later }
  plain: { port: 8080, protocol: http, endpoints: [\"role=app\"] }
allow:
  - { id: ping, from: any, to: any, icmp: true }
  - { id: web-orders, from: \"role=web\", to: [orders, plain] }
";
const ORDERS: &str = "http://orders.mesh.internal:8080/";
const PLAIN: &str = "http://plain.mesh.internal:8080/";
/// Calls in a row that are all to be answered alike.
const MANY: usize = 12;

/// A host that calls, and two that offer what it calls.
struct Place {
    _fleet: Fleet,
    web: Host,
    apps: [Host; 2],
    programs: Vec<Process>,
}

/// What a program got for an answer.
#[derive(Debug)]
struct Answer {
    status: String,
    reason: Option<String>,
    id: String,
    body: String,
}

impl Place {
    fn start(lab: &Lab) -> Result<Self, LabError> {
        let fleet = Fleet::start(lab, "test")?;
        fleet.coordinator.apply_policy_text(POLICY)?;
        let web = fleet.member("web-1", &["role=web"])?;
        let apps = [
            fleet.member("app-1", &["role=app"])?,
            fleet.member("app-2", &["role=app"])?,
        ];
        let mut place = Self {
            _fleet: fleet,
            web,
            apps,
            programs: Vec::new(),
        };
        place.start_programs()?;
        place.wait_until_it_works()?;
        Ok(place)
    }

    fn start_programs(&mut self) -> Result<(), LabError> {
        for app in &self.apps {
            self.programs
                .push(app.namespace().serve_http(8080, "here")?);
        }
        Ok(())
    }

    fn wait_until_it_works(&self) -> Result<(), LabError> {
        for service in [ORDERS, PLAIN] {
            wait_until("the service answers", CHANGE_DEADLINE, || {
                let curl = self.web.namespace().launch("curl");
                let ran = curl.args(["-s", "--max-time", "10", service]).run()?;
                Ok(ran.stdout.contains("here").then_some(()))
            })?;
        }
        Ok(())
    }

    fn call(&self, service: &str) -> Result<Answer, LabError> {
        let curl = self.web.namespace().launch("curl");
        let ran = curl.args(["-sSi", "--max-time", "10", service]).run()?;
        let ran = ran.success()?;
        let (head, body) = ran.stdout.split_once("\r\n\r\n").unwrap();
        let header = |name: &str| {
            let mut lines = head.lines();
            lines.find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
        };
        Ok(Answer {
            status: head.split(' ').nth(1).unwrap().to_owned(),
            reason: header("mesh-reason:"),
            id: header("mesh-call:").unwrap_or_default(),
            body: body.to_owned(),
        })
    }

    /// Who was asked before a call was answered.
    fn tried(&self, answer: &Answer) -> Result<Vec<Value>, LabError> {
        let calls = self.web.ask(&["explain", &answer.id])?;
        Ok(calls[0]["tried"].as_array().unwrap().clone())
    }

    /// The endpoints of a service as their caller sees them, once they are as they should be.
    fn wait_endpoints(
        &self,
        service: &str,
        what: &str,
        is_it: impl Fn(&Value) -> bool,
    ) -> Result<Vec<Value>, LabError> {
        wait_until(what, CHANGE_DEADLINE, || {
            let shown = self.web.ask(&["services", "show", service])?;
            let endpoints = shown["live"]["endpoints"].as_array().cloned();
            let endpoints = endpoints.filter(|all| all.len() == 2 && all.iter().all(&is_it));
            Ok(endpoints)
        })
    }
}

fn metric(host: &Host, series: &str) -> Result<f64, LabError> {
    let told = host.meshctl(&["metrics"]).run()?.success()?;
    MetricsPage::parse(&told.stdout)?.value(series)
}

#[test]
fn where_all_programs_are_gone_the_fallback_is_answered_and_operators_see_why()
-> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut place = Place::start(&lab)?;
    place.programs.drain(..).for_each(Process::kill);
    // From the first call on, whoever knows of it by then.
    for _ in 0..MANY {
        let answer = place.call(ORDERS)?;
        assert_eq!(
            (&*answer.status, &*answer.body),
            ("203", "later"),
            "{answer:?}"
        );
        assert!(answer.reason.is_some(), "{answer:?}");
    }
    let app = &place.apps[0];
    let alarm = wait_until("its own host has an alarm", CHANGE_DEADLINE, || {
        let status = app.ask(&["status"])?;
        let alarms = status["daemon"]["detail"]["alarms"].as_array().cloned();
        let mut alarms = alarms.unwrap_or_default().into_iter();
        Ok(alarms.find(|it| it.as_str().unwrap().contains("service orders")))
    })?;
    let alarm = alarm.as_str().unwrap();
    assert!(
        alarm.contains("(tcp: port 8080 takes no connection"),
        "{alarm}"
    );
    let passing = "meshd_service_check_passing{service=\"orders\"}";
    assert_eq!(metric(app, passing)?, 0.0);
    let shown = app.ask(&["services", "show", "orders"])?;
    let own = shown["endpoints"].as_array().unwrap();
    let own = own.iter().find(|it| it["here"] == true).unwrap();
    assert!(
        own["failing"].as_str().unwrap().starts_with("tcp: "),
        "{own}"
    );

    // Callers learn it from their calls, and need no more of them after that.
    let nobody = wait_until("nobody is asked any more", CHANGE_DEADLINE, || {
        let answer = place.call(ORDERS)?;
        assert_eq!(answer.status, "203", "{answer:?}");
        Ok((answer.reason.as_deref() == Some("no-endpoint")).then_some(answer))
    })?;
    assert_eq!(place.tried(&nobody)?, Vec::<Value>::new());
    place.wait_endpoints("orders", "both are shown to be unhealthy", |endpoint| {
        endpoint["down"] == true && endpoint["unhealthy_secs"].is_u64()
    })?;
    let down = "meshd_service_endpoints{to=\"orders\",state=\"down\"}";
    assert_eq!(metric(&place.web, down)?, 2.0);

    place.start_programs()?;
    place.wait_until_it_works()?;
    for app in &place.apps {
        wait_until("the alarm is gone", CHANGE_DEADLINE, || {
            Ok((metric(app, passing)? == 1.0).then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn where_all_daemons_are_gone_calls_are_refused_before_anybody_is_asked() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut place = Place::start(&lab)?;
    place.apps.iter_mut().for_each(Host::kill);
    // The first ones find out. Their connections broke, and so may calls that were on them.
    let mut found_out = Vec::new();
    loop {
        let answer = place.call(PLAIN)?;
        assert!(["502", "503"].contains(&&*answer.status), "{answer:?}");
        if answer.reason.as_deref() == Some("no-endpoint") {
            break;
        }
        found_out.push(answer);
        assert!(found_out.len() < MANY, "{found_out:?}");
    }
    for number in 0..MANY {
        // The other service has the same hosts, and has learned it without a call.
        let (service, status) = [(PLAIN, "503"), (ORDERS, "203")][number % 2];
        let answer = place.call(service)?;
        let reason = answer.reason.as_deref();
        assert_eq!((&*answer.status, reason), (status, Some("no-endpoint")));
        assert_eq!(place.tried(&answer)?, Vec::<Value>::new(), "{answer:?}");
    }
    let endpoints = place.wait_endpoints("plain", "both are shown as gone", |endpoint| {
        endpoint["unreachable"]["secs"].is_u64()
    })?;
    for endpoint in &endpoints {
        let why = endpoint["unreachable"]["why"].as_str().unwrap();
        assert!(why.contains("TCP ") && why.contains(":7444"), "{why}");
        assert_eq!(endpoint["over"], Value::Null, "{endpoint}");
    }
    let shown = place.web.meshctl(&["services", "show", "plain"]);
    let shown = shown.run()?.success()?.stdout;
    assert!(shown.contains("host not reached for "), "{shown}");
    let gone = "meshd_service_endpoints{to=\"plain\",state=\"unreachable\"}";
    assert_eq!(metric(&place.web, gone)?, 2.0);

    for app in &mut place.apps {
        app.start()?;
    }
    place.wait_until_it_works()
}
