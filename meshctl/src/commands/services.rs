//! `meshctl services`: the services that this host may reach or offers, and where.

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
    let mut table = Table::new(&["NAME", "PORT", "ENDPOINTS", "ALLOWED FROM HERE"]);
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
    let mut table = Table::new(&["HOST", "ADDRESSES", "FROM HERE"]);
    for endpoint in &service.endpoints {
        let addresses: Vec<String> = endpoint.addresses.iter().map(ToString::to_string).collect();
        table.row([
            endpoint.host.to_string(),
            addresses.join(" "),
            reach(endpoint, output),
        ]);
    }
    text += &table.text("  no host that this one knows offers it");
    text
}

fn reach(endpoint: &ServiceEndpoint, output: &Output) -> String {
    match (endpoint.here, endpoint.allowed, &endpoint.rule) {
        (true, ..) => output.paint(Tone::Faint, "this host"),
        (_, true, Some(rule)) => output.paint(Tone::Good, &format!("allowed by {rule}")),
        (_, true, None) => output.paint(Tone::Good, "allowed"),
        (_, false, Some(rule)) => output.paint(Tone::Bad, &format!("denied by {rule}")),
        (_, false, None) => output.paint(Tone::Bad, "no rule allows it"),
    }
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
        }
    }

    fn orders() -> ServiceView {
        ServiceView {
            name: "orders".parse().unwrap(),
            dns_name: "orders.mesh.internal".into(),
            protocol: "tcp".into(),
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
NAME                  PORT      ENDPOINTS  ALLOWED FROM HERE
orders.mesh.internal  8080/tcp  3          1 of 2, offered here"
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
HOST   ADDRESSES    FROM HERE
app-1  100.64.0.17  allowed by web-orders
app-2  100.64.0.17  no rule allows it
me     100.64.0.17  this host"
        );
    }
}
