//! `meshctl why`: whether calls are allowed, and which rule says so, as far as it is known what they
//! are. Asks the coordinator, which asks both ends; where none is reachable, this host's daemon alone.

mod text;

use std::net::Ipv6Addr;
use std::time::Duration;

use model::admin::{WhyReport, WhyRequest};
use model::local::{LocalWhyReport, LocalWhyRequest};
use model::name::InvalidName;
use model::question::{CallFacts, HeaderFact};
use model::rule::{Method, RequestPath};
use model::time::UnixTime;
use runtime::api_client::ApiClient;

use crate::arguments::{Targets, Why};
use crate::connect;
use crate::failure::Failure;
use crate::output::{Output, now_secs};
use text::{local_text, report_text};

/// How long a coordinator may take: it waits for both ends itself, for a few seconds.
const PATIENCE: Duration = Duration::from_secs(15);

/// What the right side of the question says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    name: String,
    /// Empty: as the service says, or else TCP.
    protocol: &'static str,
    port: Option<u16>,
}

/// What is asked.
struct Question {
    from: String,
    target: Target,
    call: CallFacts,
}

/// Answers a question about calls.
///
/// # Errors
/// The question makes no sense, nobody can answer, or not all of them are allowed (exit code 5).
pub async fn why(arguments: Why, targets: &Targets, output: &Output) -> Result<(), Failure> {
    let target = parse_target(&arguments.to)?;
    let call = CallFacts {
        service: None,
        workload: arguments.workload,
        method: arguments.method,
        path: arguments.path,
        host: arguments.host,
        headers: arguments.headers,
        at_secs: arguments.at,
    };
    if call.is_of_request() && matches!(target.protocol, "udp" | "icmp") {
        return Err(Failure::Usage(format!(
            "a request goes over TCP, and {} is asked about",
            target.protocol
        )));
    }
    let question = Question {
        from: arguments.from,
        target,
        call,
    };
    let answered = match connect::coordinator(targets) {
        Ok(client) => {
            // This host's daemon is asked instead.
            let client = client.with_patience(PATIENCE).with_persistence(None);
            ask_coordinator(&client, &question, output).await
        }
        Err(failure) => Err(failure),
    };
    let allowed = match answered {
        // A host that is an end of the flow knows what it enforces itself.
        Err(Failure::Unreachable(why)) => {
            let answered = ask_daemon(&question, targets, output).await;
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
    question: &Question,
    output: &Output,
) -> Result<bool, Failure> {
    let request = WhyRequest {
        from: question.from.clone(),
        to: question.target.name.clone(),
        protocol: question.target.protocol.into(),
        port: question.target.port,
        call: question.call.clone(),
    };
    let report: WhyReport = client.query("/v1/why", &request).await?;
    output.show("WhyReport", &report, |output| report_text(&report, output));
    Ok(report.policy.allowed)
}

async fn ask_daemon(
    question: &Question,
    targets: &Targets,
    output: &Output,
) -> Result<bool, Failure> {
    let request = LocalWhyRequest {
        from: question.from.clone(),
        to: question.target.name.clone(),
        protocol: question.target.protocol.into(),
        port: question.target.port,
        call: question.call.clone(),
    };
    let report: LocalWhyReport = connect::daemon(targets).query("/v1/why", &request).await?;
    output.show("LocalWhyReport", &report, |output| {
        local_text(&report, output)
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
        None => (text, ""),
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

/// Reads a method in any case.
///
/// # Errors
/// It is none.
pub fn parse_method(text: &str) -> Result<Method, InvalidName> {
    text.to_ascii_uppercase().parse()
}

/// Reads a path, and leaves a query out.
///
/// # Errors
/// Requests with such a path are refused, or it stands for several.
pub fn parse_path(text: &str) -> Result<RequestPath, InvalidName> {
    text.split_once('?').map_or(text, |(path, _)| path).parse()
}

/// Reads `x-user: ada`, or `x-user:` of a header that is not there.
///
/// # Errors
/// It is neither.
pub fn parse_header(text: &str) -> Result<HeaderFact, String> {
    let (name, value) = text.split_once(':').ok_or_else(|| {
        format!("{text:?} is no header: write \"NAME: VALUE\", or \"NAME:\" if it is not there")
    })?;
    let name = name.trim().to_ascii_lowercase().parse();
    let value = match value.trim() {
        "" => Ok(None),
        value => value.parse().map(Some),
    };
    Ok(HeaderFact {
        name: name.map_err(|error: InvalidName| error.to_string())?,
        value: value.map_err(|error: InvalidName| error.to_string())?,
    })
}

/// Reads `now`, or a local time with its zone.
///
/// # Errors
/// It is neither.
pub fn parse_time(text: &str) -> Result<u64, String> {
    let moment = match text {
        "now" => Some(now_secs()),
        _ => policy::moment(text).map(UnixTime::as_secs),
    };
    let wrong = || format!("{text:?} is no time: write now, or \"2026-11-23 23:30 Europe/Paris\"");
    moment.ok_or_else(wrong)
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
            workload: None,
            method: None,
            path: None,
            host: None,
            headers: Vec::new(),
            at: None,
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
            target("db", "", Some(5432))
        );
        assert_eq!(
            parse_target("vm-1:53/udp").unwrap(),
            target("vm-1", "udp", Some(53))
        );
        assert_eq!(
            parse_target("vm-1/icmp").unwrap(),
            target("vm-1", "icmp", None)
        );
        assert_eq!(parse_target("db").unwrap(), target("db", "", None));
        assert_eq!(
            parse_target("100.64.0.17:22").unwrap(),
            target("100.64.0.17", "", Some(22))
        );
        assert_eq!(
            parse_target("[fd12::1]:22").unwrap(),
            target("fd12::1", "", Some(22))
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

    #[test]
    fn headers_are_said_to_be_there_or_not() {
        let there = parse_header("X-User: ada").unwrap();
        assert_eq!(there.name.as_str(), "x-user");
        assert_eq!(there.value.unwrap().as_str(), "ada");
        assert_eq!(parse_header("x-user:").unwrap().value, None);
        for bad in ["x-user", ": a", "host: a"] {
            assert!(parse_header(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_request_is_asked_about_as_it_is_written() {
        assert_eq!(parse_method("get").unwrap().as_str(), "GET");
        assert_eq!(
            parse_path("/v1/items?page=2").unwrap().as_str(),
            "/v1/items"
        );
        for bad in ["v1", "/v1/*", "/a//b"] {
            assert!(parse_path(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_time("1970-01-01 01:30 Europe/Paris"), Ok(1800));
        assert!(parse_time("noon").is_err());
    }
}
