//! `meshctl why`: whether a flow is allowed, and which rule says so. Asks the coordinator, which
//! asks both ends; where none is reachable, this host's daemon alone.

mod text;

use std::net::Ipv6Addr;
use std::time::Duration;

use model::admin::{WhyReport, WhyRequest};
use model::local::{LocalWhyReport, LocalWhyRequest};
use runtime::api_client::ApiClient;

use crate::arguments::{Targets, Why};
use crate::connect;
use crate::failure::Failure;
use crate::output::Output;
use text::{local_text, report_text};

/// How long a coordinator may take: it waits for both ends itself, for a few seconds.
const PATIENCE: Duration = Duration::from_secs(15);

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
    let answered = match connect::coordinator(targets) {
        Ok(client) => {
            // This host's daemon is asked instead.
            let client = client.with_patience(PATIENCE).with_persistence(None);
            ask_coordinator(&client, &arguments.from, &target, output).await
        }
        Err(failure) => Err(failure),
    };
    let allowed = match answered {
        // A host that is an end of the flow knows what it enforces itself.
        Err(Failure::Unreachable(why)) => {
            let answered = ask_daemon(&arguments.from, &target, targets, output).await;
            let allowed = answered.map_err(|failure| both_failed(&why, failure))?;
            output.remark(&format!("this host's own view only: {why}"));
            allowed
        }
        answered => answered?,
    };
    if allowed {
        Ok(())
    } else {
        Err(Failure::Wanting(String::new()))
    }
}

async fn ask_coordinator(
    client: &ApiClient,
    from: &str,
    target: &Target,
    output: &Output,
) -> Result<bool, Failure> {
    let request = WhyRequest {
        from: from.to_owned(),
        to: target.name.clone(),
        protocol: target.protocol.into(),
        port: target.port,
    };
    let report: WhyReport = client.query("/v1/why", &request).await?;
    output.show("WhyReport", &report, |output| report_text(&report, output));
    Ok(report.policy.allowed)
}

async fn ask_daemon(
    from: &str,
    target: &Target,
    targets: &Targets,
    output: &Output,
) -> Result<bool, Failure> {
    let request = LocalWhyRequest {
        from: from.to_owned(),
        to: target.name.clone(),
        protocol: target.protocol.into(),
        port: target.port,
    };
    let report: LocalWhyReport = connect::daemon(targets).query("/v1/why", &request).await?;
    output.show("LocalWhyReport", &report, |output| {
        local_text(&report, target.protocol, output)
    });
    Ok(report.decision.allowed)
}

/// Neither could answer; what the daemon says counts, unless it is not there either.
fn both_failed(why: &str, failure: Failure) -> Failure {
    match failure {
        Failure::Unreachable(daemon) => Failure::Unreachable(format!("{why}; and {daemon}")),
        Failure::Failed(daemon) => Failure::Failed(format!("{daemon} ({why})")),
        other => other,
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
    let (rest, port) = match rest.rsplit_once(':') {
        // Colons of an IPv6 address; with a port it stands in brackets.
        _ if rest.ends_with(']') || rest.parse::<Ipv6Addr>().is_ok() => (rest, None),
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
    let bare = rest.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let name = match bare {
        Some(address) if address.parse::<Ipv6Addr>().is_ok() => address,
        Some(_) => return Err(bad()),
        None if rest.contains(['[', ']']) => return Err(bad()),
        None => rest,
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
        assert_eq!(
            parse_target("100.64.0.17:22").unwrap(),
            target("100.64.0.17", "tcp", Some(22))
        );
        assert_eq!(
            parse_target("[fd12::1]:22").unwrap(),
            target("fd12::1", "tcp", Some(22))
        );
        for bare in ["fd12::1/icmp", "[fd12::1]/icmp"] {
            assert_eq!(parse_target(bare).unwrap(), target("fd12::1", "icmp", None));
        }
        for bad in [
            "[db]:1",
            "[fd12::1:1",
            "",
            ":1",
            "a:0",
            "a:x",
            "a:1/sctp",
            "a:1/icmp",
            "a:99999",
        ] {
            assert!(parse_target(bad).is_err(), "{bad}");
        }
    }
}
