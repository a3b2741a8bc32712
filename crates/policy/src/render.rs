//! A bundle written as an operator would have: for a policy of which only the rules are left, as
//! after a restore from a backup that is older than it.

use std::fmt::Write;

use model::name::Name;
use model::rule::{Bundle, CipherDemand, PortRange, Rule, Selector, Service, Traffic};

/// Writes a bundle as one YAML file. What it says is what the bundle says; comments, tests and
/// lines are those of nobody.
pub fn render(bundle: &Bundle, fleet: &Name) -> String {
    let mut text = format!("fleet: {fleet}\n");
    match bundle.cipher {
        CipherDemand::AsOffered => {}
        CipherDemand::Standard => text += "cipher: standard\n",
    }
    if !bundle.services.is_empty() {
        text += "services:\n";
        bundle
            .services
            .iter()
            .for_each(|service| write_service(service, &mut text));
    }
    for (key, rules) in [("allow", &bundle.allow), ("deny", &bundle.deny)] {
        if !rules.is_empty() {
            text += key;
            text += ":\n";
            rules.iter().for_each(|rule| write_rule(rule, &mut text));
        }
    }
    text
}

fn write_service(service: &Service, text: &mut String) {
    let protocol = service.protocol.as_str();
    let endpoints = selectors(&service.endpoints);
    writeln!(
        text,
        "  {}: {{ port: {}, protocol: {protocol}, endpoints: {endpoints} }}",
        service.name, service.port
    )
    .expect("writing to a string does not fail");
}

fn write_rule(rule: &Rule, text: &mut String) {
    let traffic = match &rule.traffic {
        Traffic::Service | Traffic::All => String::new(),
        Traffic::Ports { tcp, udp, icmp } => {
            let icmp = if *icmp { ", icmp: true" } else { "" };
            format!("{}{}{icmp}", ports("tcp", tcp), ports("udp", udp))
        }
    };
    writeln!(
        text,
        "  - {{ id: \"{}\", from: {}, to: {}{traffic} }}",
        rule.id,
        selectors(&rule.from),
        selectors(&rule.to)
    )
    .expect("writing to a string does not fail");
}

fn selectors(selectors: &[Selector]) -> String {
    let words: Vec<String> = selectors.iter().map(selector).collect();
    format!("[{}]", words.join(", "))
}

/// With its kind, so that no name is taken for another's.
fn selector(selector: &Selector) -> String {
    match selector {
        Selector::Any => "any".to_owned(),
        Selector::Host { name, .. } => format!("\"host:{name}\""),
        Selector::Service(name) => format!("\"service:{name}\""),
        Selector::Workload(name) => format!("\"workload:{name}\""),
        Selector::Labels(_) => format!("\"{selector}\""),
    }
}

fn ports(key: &str, ranges: &[PortRange]) -> String {
    if ranges.is_empty() {
        return String::new();
    }
    if ranges.contains(&PortRange::ALL) {
        return format!(", {key}: any");
    }
    let words: Vec<String> = ranges.iter().map(|range| format!("\"{range}\"")).collect();
    format!(", {key}: [{}]", words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SourceFile, load};

    const POLICY: &str = "fleet: prod
cipher: standard
services:
  db: { port: 5432, protocol: tcp, endpoints: [\"role=db,env=prod\", db-9] }
  time: { port: 123, protocol: udp, endpoints: [any] }
allow:
  - { id: ping, from: any, to: any, icmp: true }
  - { id: sql, from: [\"role=web\", web-1], to: db }
  - { id: ops, from: bastion, to: \"env=prod\", tcp: [22, \"8000-8100\"], udp: any }
deny:
  - { id: no-batch, from: \"role=batch\", to: service:db }
  - { id: nobody, from: \"role=guest\", to: any }
";

    fn bundle(text: &str) -> Bundle {
        let file = SourceFile {
            path: "policy.yaml".to_owned(),
            text: text.to_owned(),
        };
        let mut bundle = load(&[file]).unwrap().bundle;
        let rules = bundle.allow.iter_mut().chain(&mut bundle.deny);
        rules.for_each(|rule| rule.source = model::rule::Source::default());
        let services = bundle.services.iter_mut();
        services.for_each(|service| service.source = model::rule::Source::default());
        bundle
    }

    #[test]
    fn what_is_written_says_what_the_bundle_says() {
        let before = bundle(POLICY);
        let written = render(&before, &"prod".parse().unwrap());
        assert_eq!(bundle(&written), before, "{written}");
    }
}
