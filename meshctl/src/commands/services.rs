//! `meshctl services`: the services that this host may reach or offers, where, and how calls of them
//! go.

use std::collections::BTreeSet;
use std::net::IpAddr;

use model::local::{LiveEndpoint, ServiceEndpoint, ServiceView};

use super::live::{self, Lately, millis};
use crate::arguments::{Services, Targets};
use crate::failure::Failure;
use crate::membership::member;
use crate::output::{Output, Table, Tone};

/// Runs a verb of `meshctl services`.
///
/// # Errors
/// The daemon does not answer or refuses, or there is no such service here.
pub async fn run(verb: Services, targets: &Targets, output: &Output) -> Result<(), Failure> {
    let services: Vec<ServiceView> = member(targets).await?.get("/v1/services").await?;
    match verb {
        Services::List => {
            output.show("ServiceList", &services, |output| table(&services, output));
        }
        Services::Show { service } => {
            let found = services
                .iter()
                .find(|it| service == it.name.as_str() || service == it.dns_name)
                .ok_or_else(|| not_here(&service))?;
            output.show("Service", found, |output| description(found, output));
        }
    }
    Ok(())
}

fn not_here(service: &str) -> Failure {
    Failure::Failed(format!(
        "this host neither reaches nor offers a service {service:?}; `meshctl services list` shows those that it does"
    ))
}

fn table(services: &[ServiceView], output: &Output) -> String {
    let headings = [
        "NAME",
        "PORT",
        "ADDRESS",
        "ENDPOINTS",
        "ALLOWED FROM HERE",
        "CALLS/S",
        "FAILED",
        "P50",
        "P99",
    ];
    let mut table = Table::new(&headings);
    for service in services {
        let others = service.endpoints.iter().filter(|it| !it.here);
        let (allowed, all) = others.fold((0, 0), |(allowed, all), it| {
            (allowed + u32::from(it.allowed), all + 1)
        });
        let tone = if allowed < all {
            Tone::Doubtful
        } else {
            Tone::Good
        };
        let mut reach = if all == 0 {
            output.paint(Tone::Faint, "-")
        } else {
            output.paint(tone, &format!("{allowed} of {all}"))
        };
        if service.endpoints.iter().any(|it| it.here) {
            reach += ", offered here";
        }
        let known = [
            service.dns_name.clone(),
            format!("{}/{}", service.port, service.protocol),
            match service.addresses.first() {
                Some(address) => address.to_string(),
                None => output.paint(Tone::Faint, "endpoints"),
            },
            endpoints(service, output),
            reach,
        ];
        table.row(known.into_iter().chain(lately(service, output)));
    }
    table.text("no rule lets this host reach a service, and it offers none")
}

/// Returns how many there are, and how many get calls where that is known and not all.
fn endpoints(service: &ServiceView, output: &Output) -> String {
    let all = service.endpoints.len();
    let live = service.live.iter().flat_map(|live| &live.endpoints);
    let out = live.filter(|it| !live::is_ready(it));
    let failing = service.endpoints.iter().filter(|it| it.failing.is_some());
    let out: BTreeSet<&str> = out
        .map(|it| &*it.host)
        .chain(failing.map(|it| it.host.as_str()))
        .collect();
    match out.len() {
        0 => all.to_string(),
        out => output.paint(Tone::Bad, &format!("{all}, {out} not ready")),
    }
}

fn lately(service: &ServiceView, output: &Output) -> [String; 4] {
    match Lately::of(&service.callers) {
        None => ["-", "-", "-", "-"].map(|none| output.paint(Tone::Faint, none)),
        Some(lately) => [
            format!("{:.1}", lately.calls_per_second),
            live::failed(lately.failed_percent, output),
            millis(lately.p50_micros),
            millis(lately.p99_micros),
        ],
    }
}

fn description(service: &ServiceView, output: &Output) -> String {
    let mut text = format!(
        "{}  {}/{}\n  written at  {}\n  endpoints   {}\n",
        service.dns_name,
        service.port,
        service.protocol,
        service.source,
        service.selectors.join(" or "),
    );
    if !service.addresses.is_empty() {
        text += &format!("  resolves to {}\n", list(&service.addresses));
    }
    text += &endpoints_table(service, output);
    if !service.callers.is_empty() {
        text += "\n\n";
        text += &callers_table(service, output);
    }
    text
}

fn endpoints_table(service: &ServiceView, output: &Output) -> String {
    let headings = [
        "HOST",
        "ADDRESSES",
        "CALLS GO TO",
        "FROM HERE",
        "UNDER WAY",
        "LATENCY",
        "STATE",
    ];
    let mut table = Table::new(&headings);
    for endpoint in &service.endpoints {
        let calls_go_to = match (endpoint.here, endpoint.streams.first()) {
            (false, Some(stream)) => stream.to_string(),
            _ => output.paint(Tone::Faint, "-"),
        };
        let known = [
            endpoint.host.to_string(),
            list(&endpoint.addresses),
            calls_go_to,
            reach(endpoint, output),
        ];
        let live = seen(service, endpoint, output);
        table.row(known.into_iter().chain(live));
    }
    table.text("no host that this one knows offers it")
}

/// What those who call it from here see of an endpoint; nobody may have called it yet.
fn seen(service: &ServiceView, endpoint: &ServiceEndpoint, output: &Output) -> [String; 3] {
    let live = service.live.as_ref().and_then(|live| {
        let is_it = |it: &&LiveEndpoint| it.host == endpoint.host.as_str();
        let found = live.endpoints.iter().find(is_it)?;
        Some((live, found))
    });
    let known = endpoint.failing.as_ref().map(|why| {
        let state = format!("unhealthy, its check fails: {why}");
        output.paint(Tone::Bad, &state)
    });
    match live {
        None => {
            let none = |text| output.paint(Tone::Faint, text);
            [
                none("-"),
                none("-"),
                known.unwrap_or_else(|| none("not called yet")),
            ]
        }
        Some((live, endpoint)) => [
            endpoint.in_flight.to_string(),
            millis(endpoint.latency_micros),
            known.unwrap_or_else(|| live::state(live, endpoint, output)),
        ],
    }
}

/// Who has called it within the last minute or so.
fn callers_table(service: &ServiceView, output: &Output) -> String {
    let headings = [
        "CALLED BY",
        "PART",
        "CALLS/S",
        "FAILED",
        "DENIED",
        "P50",
        "P99",
    ];
    let mut table = Table::new(&headings);
    for caller in &service.callers {
        let Some(lately) = Lately::of([caller]) else {
            continue;
        };
        table.row([
            caller.from.clone(),
            live::part(Some(caller.part)).to_owned(),
            format!("{:.1}", lately.calls_per_second),
            live::failed(lately.failed_percent, output),
            live::failed(lately.denied_percent, output),
            millis(lately.p50_micros),
            millis(lately.p99_micros),
        ]);
    }
    table.text("nobody has called it of late")
}

fn reach(endpoint: &ServiceEndpoint, output: &Output) -> String {
    match (endpoint.here, endpoint.allowed, &endpoint.rule) {
        (true, ..) => output.paint(Tone::Faint, "this host"),
        (_, true, Some(rule)) if !endpoint.only.is_empty() => {
            let some = format!("allowed by {rule}: {}", endpoint.only.join(", "));
            output.paint(Tone::Good, &some)
        }
        (_, true, Some(rule)) => output.paint(Tone::Good, &format!("allowed by {rule}")),
        (_, true, None) => output.paint(Tone::Good, "allowed"),
        (_, false, Some(rule)) => output.paint(Tone::Bad, &format!("denied by {rule}")),
        (_, false, None) => output.paint(Tone::Bad, "no rule allows it"),
    }
}

fn list(addresses: &[IpAddr]) -> String {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    addresses.join(" ")
}

#[cfg(test)]
mod tests {
    use model::local::{CallPart, LateEdge, LiveService, UnreachableHost};

    use super::*;
    use crate::output::Color;

    fn endpoint(host: &str, here: bool, rule: Option<&str>) -> ServiceEndpoint {
        ServiceEndpoint {
            host: host.parse().unwrap(),
            addresses: vec![[100, 64, 0, 17].into()],
            here,
            allowed: here || rule.is_some(),
            rule: rule.map(str::to_owned),
            only: Vec::new(),
            failing: None,
            streams: if here {
                Vec::new()
            } else {
                vec!["192.0.2.7:7444".parse().unwrap()]
            },
        }
    }

    fn orders() -> ServiceView {
        ServiceView {
            name: "orders".parse().unwrap(),
            dns_name: "orders.mesh.internal".into(),
            protocol: "tcp".into(),
            addresses: vec![[100, 64, 240, 9].into()],
            port: 8080,
            source: "policy.yaml:3".into(),
            selectors: vec!["role=app".into()],
            endpoints: vec![
                endpoint("app-1", false, Some("web-orders")),
                endpoint("app-2", false, None),
                endpoint("me", true, None),
            ],
            live: None,
            callers: Vec::new(),
        }
    }

    #[test]
    fn a_list_tells_how_many_endpoints_may_be_reached() {
        let output = Output::new(false, Color::Never);
        assert_eq!(
            table(&[orders()], &output),
            "\
NAME                  PORT      ADDRESS       ENDPOINTS  ALLOWED FROM HERE     CALLS/S  FAILED  P50  P99
orders.mesh.internal  8080/tcp  100.64.240.9  3          1 of 2, offered here  -        -       -    -"
        );
    }

    #[test]
    fn a_rule_for_some_requests_says_which() {
        let output = Output::new(false, Color::Never);
        let some = ServiceEndpoint {
            only: vec!["GET /v1/**".into()],
            ..endpoint("app-1", false, Some("web-orders-read"))
        };
        assert_eq!(
            reach(&some, &output),
            "allowed by web-orders-read: GET /v1/**"
        );
    }

    #[test]
    fn one_service_tells_which_rule_lets_which_endpoint_be_reached() {
        let output = Output::new(false, Color::Never);
        assert_eq!(
            description(&orders(), &output),
            "\
orders.mesh.internal  8080/tcp
  written at  policy.yaml:3
  endpoints   role=app
  resolves to 100.64.240.9
HOST   ADDRESSES    CALLS GO TO     FROM HERE              UNDER WAY  LATENCY  STATE
app-1  100.64.0.17  192.0.2.7:7444  allowed by web-orders  -          -        not called yet
app-2  100.64.0.17  192.0.2.7:7444  no rule allows it      -          -        not called yet
me     100.64.0.17  -               this host              -          -        not called yet"
        );
    }

    #[test]
    fn who_is_down_says_so_and_why_and_counts_as_not_ready() {
        let output = Output::new(false, Color::Never);
        let unreachable = LiveEndpoint {
            host: "app-1".into(),
            down: true,
            unreachable: Some(UnreachableHost {
                secs: 12,
                why: "app-1 cannot be reached (TCP 192.0.2.7:7444: refused)".into(),
            }),
            over: vec!["quic".into()],
            ..LiveEndpoint::default()
        };
        let unhealthy = LiveEndpoint {
            host: "app-2".into(),
            down: true,
            unhealthy_secs: Some(3),
            ..LiveEndpoint::default()
        };
        let mut service = ServiceView {
            live: Some(LiveService {
                endpoints: vec![unreachable, unhealthy],
                ..LiveService::default()
            }),
            ..orders()
        };
        service.endpoints[2].failing = Some("tcp: refused".into());
        let shown = description(&service, &output);
        for wanted in [
            "host not reached for 12 s, and tried again: app-1 cannot be reached (TCP 192.0.2.7:7444: refused)\n",
            "unhealthy for 3 s, as its host says that checks it\n",
            "unhealthy, its check fails: tcp: refused",
        ] {
            assert!(shown.contains(wanted), "{shown}");
        }
        let listed = table(std::slice::from_ref(&service), &output);
        assert!(listed.contains("3, 3 not ready"), "{listed}");
    }

    #[test]
    fn a_service_that_is_called_tells_how_it_goes_and_who_is_left_out_and_why() {
        let output = Output::new(false, Color::Never);
        let live = |host: &str, ejected_by| LiveEndpoint {
            host: host.into(),
            in_flight: 2,
            latency_micros: Some(2_500),
            known_by: 2,
            ejected_by,
            ejected_for_millis: (ejected_by > 0).then_some(800),
            why: (ejected_by > 0).then(|| "5 calls in a row failed".into()),
            ..LiveEndpoint::default()
        };
        let caller = LateEdge {
            part: CallPart::Source,
            from: "web".into(),
            within_micros: 50_000_000,
            calls: 5_000,
            failed: 50,
            denied: 0,
            latencies: vec![(2_000, 4_900), (9_000, 100)],
        };
        let service = ServiceView {
            live: Some(LiveService {
                service: "orders".into(),
                endpoints: vec![live("app-1", 0), live("app-2", 2)],
                ..LiveService::default()
            }),
            callers: vec![caller],
            ..orders()
        };
        let listed = table(std::slice::from_ref(&service), &output);
        let (_, row) = listed.split_once('\n').unwrap();
        let cells: Vec<&str> = row.split("  ").filter(|it| !it.is_empty()).collect();
        assert_eq!(
            cells[3..].iter().map(|it| it.trim()).collect::<Vec<_>>(),
            [
                "3, 1 not ready",
                "1 of 2, offered here",
                "100.0",
                "1.0 %",
                "2.0 ms",
                "9.0 ms"
            ]
        );
        let shown = description(&service, &output);
        for wanted in [
            "2          2.5 ms   ready\n",
            "ejected by 2 of 2 threads for 0.8 s more: 5 calls in a row failed\n",
            "web        source  100.0    1.0 %   0.0 %   2.0 ms  9.0 ms",
        ] {
            assert!(shown.contains(wanted), "{shown}");
        }
    }
}
