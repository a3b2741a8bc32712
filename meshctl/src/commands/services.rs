//! `meshctl services`: the services that this host may reach or offers, and where.

use std::net::IpAddr;

use model::local::{ServiceEndpoint, ServiceView};

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
    let mut table = Table::new(&["NAME", "PORT", "ADDRESS", "ENDPOINTS", "ALLOWED FROM HERE"]);
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
        table.row([
            service.dns_name.clone(),
            format!("{}/{}", service.port, service.protocol),
            match service.addresses.first() {
                Some(address) => address.to_string(),
                None => output.paint(Tone::Faint, "endpoints"),
            },
            service.endpoints.len().to_string(),
            reach,
        ]);
    }
    table.text("no rule lets this host reach a service, and it offers none")
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
    let mut table = Table::new(&["HOST", "ADDRESSES", "CALLS GO TO", "FROM HERE"]);
    for endpoint in &service.endpoints {
        let calls_go_to = match (endpoint.here, endpoint.streams.first()) {
            (false, Some(stream)) => stream.to_string(),
            _ => output.paint(Tone::Faint, "-"),
        };
        table.row([
            endpoint.host.to_string(),
            list(&endpoint.addresses),
            calls_go_to,
            reach(endpoint, output),
        ]);
    }
    text += &table.text("  no host that this one knows offers it");
    text
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
        }
    }

    #[test]
    fn a_list_tells_how_many_endpoints_may_be_reached() {
        let output = Output::new(false, Color::Never);
        assert_eq!(
            table(&[orders()], &output),
            "\
NAME                  PORT      ADDRESS       ENDPOINTS  ALLOWED FROM HERE
orders.mesh.internal  8080/tcp  100.64.240.9  3          1 of 2, offered here"
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
HOST   ADDRESSES    CALLS GO TO     FROM HERE
app-1  100.64.0.17  192.0.2.7:7444  allowed by web-orders
app-2  100.64.0.17  192.0.2.7:7444  no rule allows it
me     100.64.0.17  -               this host"
        );
    }
}
