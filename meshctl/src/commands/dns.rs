//! `meshctl dns`: what mesh DNS answers on this host, how programs come to ask it, and what one
//! name gets.

use std::collections::BTreeSet;
use std::net::{IpAddr, ToSocketAddrs};

use model::local::{DnsAnswer, DnsQuestion, DnsView, NamedThing, ResolverState};
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::{Dns, DnsQuery, Targets};
use crate::connect;
use crate::failure::Failure;
use crate::output::{Output, Table, Tone};

/// Runs a verb of `meshctl dns`.
///
/// # Errors
/// The daemon does not answer or refuses, or the name does not resolve.
pub async fn run(verb: Dns, targets: &Targets, output: &Output) -> Result<(), Failure> {
    match verb {
        Dns::Show => {
            let view: DnsView = connect::daemon(targets).get("/v1/dns").await?;
            output.show("Dns", &view, |output| view_text(&view, output));
            Ok(())
        }
        Dns::Query(question) => query(question, targets, output).await,
    }
}

/// What the daemon says of a name, and what programs of this host get for it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Resolution {
    answers: Vec<DnsAnswer>,
    /// What the host's own resolver says; `null`: it was not asked, since it knows addresses only.
    system: Option<System>,
}

/// What programs of this host get for a name.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct System {
    addresses: BTreeSet<IpAddr>,
    /// They get what mesh DNS says.
    agrees: bool,
    /// Why they get nothing.
    error: Option<String>,
}

async fn query(arguments: DnsQuery, targets: &Targets, output: &Output) -> Result<(), Failure> {
    let client = connect::daemon(targets);
    let mut answers = Vec::new();
    for record_type in types_to_ask(&arguments) {
        let question = DnsQuestion {
            name: arguments.name.clone(),
            record_type,
        };
        let answer: DnsAnswer = client.query("/v1/dns/query", &question).await?;
        answers.push(answer);
    }
    let asks_addresses = answers
        .iter()
        .all(|it| ["A", "AAAA"].contains(&it.record_type.as_str()));
    let system = match answers.first() {
        Some(first) if asks_addresses => Some(ask_system(first.name.clone(), &answers).await),
        _ => None,
    };
    let found = answers.iter().any(|answer| !answer.records.is_empty());
    let resolution = Resolution { answers, system };
    output.show("DnsResolution", &resolution, |output| {
        resolution_text(&resolution, output)
    });
    if found {
        Ok(())
    } else {
        Err(Failure::Failed(String::new()))
    }
}

/// Both families of addresses, unless something else is asked for.
fn types_to_ask(arguments: &DnsQuery) -> Vec<Option<String>> {
    let is_plain = !arguments.name.starts_with('_') && arguments.name.parse::<IpAddr>().is_err();
    match &arguments.record_type {
        Some(record_type) => vec![Some(record_type.clone())],
        None if is_plain => vec![Some("A".into()), Some("AAAA".into())],
        None => vec![None],
    }
}

/// Asks as every program does, by the C library.
async fn ask_system(name: String, answers: &[DnsAnswer]) -> System {
    let asked = format!("{name}.");
    let looked = tokio::task::spawn_blocking(move || (asked.as_str(), 0).to_socket_addrs()).await;
    let (addresses, error) = match looked {
        Ok(Ok(found)) => (found.map(|at| at.ip()).collect(), None),
        Ok(Err(error)) => (BTreeSet::new(), Some(error.to_string())),
        Err(error) => (BTreeSet::new(), Some(error.to_string())),
    };
    let said = answers.iter().flat_map(|it| &it.records);
    let said: BTreeSet<IpAddr> = said.filter_map(|it| it.data.parse().ok()).collect();
    System {
        // A host without IPv6 is given no IPv6 addresses.
        agrees: addresses.is_subset(&said) && addresses.is_empty() == said.is_empty(),
        addresses,
        error,
    }
}

fn resolution_text(resolution: &Resolution, output: &Output) -> String {
    let mut lines = Vec::new();
    for answer in &resolution.answers {
        let by = match (answer.authoritative, answer.code.as_str()) {
            (true, _) => "mesh DNS",
            (false, "Refused") => "refused: not a name of the mesh, and nobody else is asked",
            (false, _) => "the host's own servers",
        };
        lines.push(output.paint(
            Tone::Faint,
            &format!(
                "; {} {}: {}, {by}",
                answer.name, answer.record_type, answer.code
            ),
        ));
        lines.extend(answer.records.iter().map(|record| {
            format!(
                "{} {} {} {}",
                record.name, record.ttl_secs, record.record_type, record.data
            )
        }));
    }
    if let Some(system) = &resolution.system {
        lines.push(system_text(system, output));
    }
    lines.join("\n")
}

fn system_text(system: &System, output: &Output) -> String {
    let got: Vec<String> = system.addresses.iter().map(ToString::to_string).collect();
    match (&system.error, system.agrees) {
        (_, true) if got.is_empty() => "programs of this host get nothing either".into(),
        (_, true) => output.paint(Tone::Good, "programs of this host get the same"),
        (Some(error), _) => output.paint(
            Tone::Bad,
            &format!("programs of this host get nothing: {error}; see `meshctl dns show`"),
        ),
        (None, _) => output.paint(
            Tone::Bad,
            &format!(
                "programs of this host get {} instead; see `meshctl dns show`",
                got.join(" ")
            ),
        ),
    }
}

fn view_text(view: &DnsView, output: &Output) -> String {
    let list = |servers: &[std::net::SocketAddr]| -> String {
        let shown: Vec<String> = servers.iter().map(ToString::to_string).collect();
        shown.join(" ")
    };
    let (tone, state) = match view.resolver.state {
        ResolverState::Waiting => (Tone::Faint, "not set up yet"),
        ResolverState::Off => (Tone::Faint, "left alone by the settings"),
        ResolverState::Set => (Tone::Good, "asks mesh DNS"),
        ResolverState::AsksUs => (Tone::Good, "asks mesh DNS by itself"),
        ResolverState::LeftAlone => (Tone::Doubtful, "left alone"),
        ResolverState::Failed => (Tone::Bad, "could not be set up"),
        ResolverState::Changed => (Tone::Bad, "changed by another program"),
    };
    let suffix = if view.suffix.is_empty() {
        "this host is no member of a fleet".to_owned()
    } else {
        format!("*.{}", view.suffix)
    };
    let mut text = format!("answers    {suffix}\n  at       {}\n", list(&view.listens));
    if !view.reverse_zones.is_empty() {
        text += &format!("  reverse  {}\n", view.reverse_zones.join(" "));
    }
    let others = if view.forwards_to.is_empty() {
        "refused".to_owned()
    } else {
        format!("asked of {}", list(&view.forwards_to))
    };
    text += &format!(
        "  others   {others}\nresolver   {}",
        output.paint(tone, state)
    );
    if !view.resolver.detail.is_empty() {
        text += &format!("\n  {}", view.resolver.detail);
    }
    let mut table = Table::new(&["NAME", "KIND", "PORT", "ADDRESSES"]);
    for entry in &view.names {
        let addresses: Vec<String> = entry.addresses.iter().map(ToString::to_string).collect();
        table.row([
            entry.name.to_string(),
            match entry.kind {
                NamedThing::Host => "host".into(),
                NamedThing::Service => "service".into(),
            },
            match (entry.port, &entry.protocol) {
                (Some(port), Some(protocol)) => format!("{port}/{protocol}"),
                _ => "-".into(),
            },
            if addresses.is_empty() {
                output.paint(Tone::Doubtful, "no endpoint")
            } else {
                addresses.join(" ")
            },
        ]);
    }
    format!("{text}\n\n{}", table.text("no names"))
}

#[cfg(test)]
mod tests {
    use model::local::{DnsRecord, NameView, ResolverView};

    use super::*;
    use crate::output::Color;

    fn answer(record_type: &str, data: &[&str]) -> DnsAnswer {
        DnsAnswer {
            name: "db.mesh.internal".into(),
            record_type: record_type.into(),
            code: if data.is_empty() {
                "NXDomain".into()
            } else {
                "NoError".into()
            },
            authoritative: true,
            records: data
                .iter()
                .map(|data| DnsRecord {
                    name: "db.mesh.internal".into(),
                    ttl_secs: 5,
                    record_type: record_type.into(),
                    data: (*data).to_owned(),
                })
                .collect(),
        }
    }

    #[test]
    fn a_view_tells_what_is_answered_where_and_how_it_is_asked() {
        let view = DnsView {
            suffix: "mesh.internal".into(),
            listens: vec!["127.0.0.150:53".parse().unwrap()],
            forwards_to: vec!["192.0.2.53:53".parse().unwrap()],
            resolver: ResolverView {
                state: ResolverState::Changed,
                detail: "another program took it away".into(),
            },
            reverse_zones: vec!["64.100.in-addr.arpa".into()],
            names: vec![
                NameView {
                    name: "db".parse().unwrap(),
                    kind: NamedThing::Service,
                    addresses: Vec::new(),
                    port: Some(5432),
                    protocol: Some("tcp".into()),
                },
                NameView {
                    name: "vm-1".parse().unwrap(),
                    kind: NamedThing::Host,
                    addresses: vec![[100, 64, 0, 17].into()],
                    port: None,
                    protocol: None,
                },
            ],
        };
        assert_eq!(
            view_text(&view, &Output::new(false, Color::Never)),
            "\
answers    *.mesh.internal
  at       127.0.0.150:53
  reverse  64.100.in-addr.arpa
  others   asked of 192.0.2.53:53
resolver   changed by another program
  another program took it away

NAME  KIND     PORT      ADDRESSES
db    service  5432/tcp  no endpoint
vm-1  host     -         100.64.0.17"
        );
    }

    #[test]
    fn a_resolution_tells_both_what_the_mesh_says_and_what_programs_get() {
        let resolution = Resolution {
            answers: vec![answer("A", &["100.64.0.17"]), answer("AAAA", &[])],
            system: Some(System {
                addresses: BTreeSet::new(),
                agrees: false,
                error: Some("no such name".into()),
            }),
        };
        assert_eq!(
            resolution_text(&resolution, &Output::new(false, Color::Never)),
            "\
; db.mesh.internal A: NoError, mesh DNS
db.mesh.internal 5 A 100.64.0.17
; db.mesh.internal AAAA: NXDomain, mesh DNS
programs of this host get nothing: no such name; see `meshctl dns show`"
        );
    }

    #[test]
    fn services_and_addresses_are_asked_for_what_they_have() {
        let types = |name: &str, record_type: Option<&str>| {
            types_to_ask(&DnsQuery {
                name: name.into(),
                record_type: record_type.map(str::to_owned),
            })
        };
        assert_eq!(types("db", None), [Some("A".into()), Some("AAAA".into())]);
        assert_eq!(types("_db._tcp", None), [None]);
        assert_eq!(types("100.64.0.17", None), [None]);
        assert_eq!(types("db", Some("SRV")), [Some("SRV".into())]);
    }
}
