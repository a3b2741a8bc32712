//! `meshctl why`: whether a flow is allowed, and which rule says so. Asks the coordinator, which
//! asks both ends; without a coordinator, this host's daemon alone.

mod text;

use model::admin::{WhyReport, WhyRequest};
use model::local::{LocalWhyReport, LocalWhyRequest};

use crate::arguments::{Targets, Why};
use crate::connect;
use crate::failure::Failure;
use crate::output::Output;
use text::{local_text, report_text};

/// What the right side of the question says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    name: String,
    protocol: &'static str,
    port: Option<u16>,
}

/// Answers a question about a flow.
///
/// # Errors
/// The question makes no sense, nobody can answer, or the flow is denied (exit code 5).
pub async fn why(arguments: Why, targets: &Targets, output: &Output) -> Result<(), Failure> {
    let target = parse_target(&arguments.to)?;
    let allowed = match connect::coordinator(targets) {
        Ok(client) => {
            let request = WhyRequest {
                from: arguments.from,
                to: target.name,
                protocol: target.protocol.into(),
                port: target.port,
            };
            let report: WhyReport = client.post("/v1/why", &request).await?;
            output.show("WhyReport", &report, |output| report_text(&report, output));
            report.policy.allowed
        }
        Err(Failure::Unreachable(_)) => {
            let request = LocalWhyRequest {
                from: arguments.from,
                to: target.name,
                protocol: target.protocol.into(),
                port: target.port,
            };
            let report: LocalWhyReport = connect::daemon(targets).post("/v1/why", &request).await?;
            output.show("LocalWhyReport", &report, |output| {
                local_text(&report, target.protocol, output)
            });
            report.decision.allowed
        }
        Err(failure) => return Err(failure),
    };
    if allowed {
        Ok(())
    } else {
        Err(Failure::Wanting(String::new()))
    }
}

fn parse_target(text: &str) -> Result<Target, Failure> {
    let bad = || {
        Failure::Usage(format!(
            "{text:?} is not understood: write HOST:PORT, HOST:PORT/udp, HOST/icmp, or a service"
        ))
    };
    let (rest, protocol) = match text.rsplit_once('/') {
        Some((rest, "tcp")) => (rest, "tcp"),
        Some((rest, "udp")) => (rest, "udp"),
        Some((rest, "icmp")) => (rest, "icmp"),
        Some(_) => return Err(bad()),
        None => (text, "tcp"),
    };
    let (name, port) = match rest.split_once(':') {
        Some((name, port)) => (
            name,
            Some(
                port.parse::<u16>()
                    .ok()
                    .filter(|port| *port > 0)
                    .ok_or_else(bad)?,
            ),
        ),
        None => (rest, None),
    };
    if name.is_empty() || (protocol == "icmp" && port.is_some()) {
        return Err(bad());
    }
    Ok(Target {
        name: name.to_owned(),
        protocol,
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bad_credential_is_told_and_not_passed_over() {
        let targets = Targets {
            credential: Some("/dev/null/none".into()),
            ..Targets::default()
        };
        let question = Why {
            from: "a".into(),
            to: "b:22".into(),
        };
        let output = Output::new(false, crate::output::Color::Never);
        let failure = why(question, &targets, &output).await.unwrap_err();
        assert!(
            failure.to_string().contains("cannot use the credential"),
            "{failure}"
        );
    }

    #[test]
    fn targets_are_hosts_with_ports_or_services() {
        let target = |name: &str, protocol, port| Target {
            name: name.into(),
            protocol,
            port,
        };
        assert_eq!(
            parse_target("db:5432").unwrap(),
            target("db", "tcp", Some(5432))
        );
        assert_eq!(
            parse_target("vm-1:53/udp").unwrap(),
            target("vm-1", "udp", Some(53))
        );
        assert_eq!(
            parse_target("vm-1/icmp").unwrap(),
            target("vm-1", "icmp", None)
        );
        assert_eq!(parse_target("db").unwrap(), target("db", "tcp", None));
        for bad in ["", ":1", "a:0", "a:x", "a:1/sctp", "a:1/icmp", "a:99999"] {
            assert!(parse_target(bad).is_err(), "{bad}");
        }
    }
}
