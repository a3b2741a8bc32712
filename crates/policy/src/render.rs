//! A bundle written as an operator would have: for a policy of which only the rules are left, as
//! after a restore from a backup that is older than it.

use std::fmt::Write;

use model::name::Name;
use model::rule::{Bundle, CipherDemand, PortRange, Rule, Selector, Service, Traffic, Workload};

use crate::words;

/// Writes a bundle as one YAML file. What it says is what the bundle says; comments, tests and
/// lines are those of nobody.
pub fn render(bundle: &Bundle, fleet: &Name) -> String {
    let mut text = format!("fleet: {fleet}\n");
    match bundle.cipher {
        CipherDemand::AsOffered => {}
        CipherDemand::Standard => text += "cipher: standard\n",
    }
    if !bundle.workloads.is_empty() {
        text += "workloads:\n";
        bundle
            .workloads
            .iter()
            .for_each(|workload| write_workload(workload, &mut text));
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

fn write_workload(workload: &Workload, text: &mut String) {
    let said = words::mapping([
        (
            "unit",
            workload
                .unit
                .as_ref()
                .map(|unit| words::quote(unit.as_str())),
        ),
        (
            "user",
            workload
                .user
                .as_ref()
                .map(|user| words::quote(user.as_str())),
        ),
        ("hosts", Some(selectors(&workload.hosts))),
    ]);
    writeln!(text, "  {}: {said}", workload.name).expect("writing to a string does not fail");
}

fn write_service(service: &Service, text: &mut String) {
    let protocol = service.protocol.as_str();
    let workloads = service
        .workloads
        .iter()
        .map(|name| format!("\"workload:{name}\""));
    let hosts = service.endpoints.iter().map(selector);
    // The hosts of its workloads are among the endpoints, and stay that by being said once more.
    let endpoints: Vec<String> = workloads.chain(hosts).collect();
    let mut parts = vec![
        ("port", Some(service.port.to_string())),
        ("protocol", Some(protocol.to_owned())),
        ("endpoints", Some(format!("[{}]", endpoints.join(", ")))),
    ];
    let settings = words::settings(&service.settings).into_iter();
    parts.extend(settings.map(|(key, value)| (key, Some(value))));
    let said = words::mapping(parts);
    writeln!(text, "  {}: {said}", service.name).expect("writing to a string does not fail");
}

fn write_rule(rule: &Rule, text: &mut String) {
    let traffic = match &rule.traffic {
        Traffic::Service | Traffic::All => String::new(),
        Traffic::Ports { tcp, udp, icmp } => {
            let icmp = if *icmp { ", icmp: true" } else { "" };
            format!("{}{}{icmp}", ports("tcp", tcp), ports("udp", udp))
        }
    };
    let http: Vec<String> = rule.http.iter().map(words::http).collect();
    let http = match http.is_empty() {
        true => String::new(),
        false => format!(", http: [{}]", http.join(", ")),
    };
    let when = rule.when.as_ref();
    let when = when.map_or_else(String::new, |it| format!(", when: {}", words::when(it)));
    writeln!(
        text,
        "  - {{ id: \"{}\", from: {}, to: {}{traffic}{http}{when} }}",
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
workloads:
  web: { unit: web.service, hosts: \"role=web\" }
  report: { unit: \"report@*.service\", user: report, hosts: [web-1, \"role=batch\"] }
services:
  orders: { port: 8080, protocol: http, endpoints: [web, \"role=app\"], timeout: { request: 2s, per_try: auto },
    retry: { attempts: 2, budget: 20%, idempotent: true }, sticky: \"header:x-user\", health: \"http /healthz\",
    breaker: { failures: 3, success_rate: 90%, penalty: 2s, ejected_max: 40% }, residency: \"region=eu,env=prod\",
    limits: { in_flight: 9, waiting: 0, wait: 500ms }, fallback: { status: 503, body: \"back: {soon}\" } }
  reports: { port: 81, protocol: grpc, endpoints: [report], health: { check: unit, interval: 5s, timeout: 1s }, timeout: 90s }
  db: { port: 5432, protocol: tcp, endpoints: [\"role=db,env=prod\", db-9] }
  time: { port: 123, protocol: udp, endpoints: [any] }
allow:
  - { id: ping, from: any, to: any, icmp: true }
  - { id: sql, from: [\"role=web\", web-1], to: db }
  - { id: ops, from: bastion, to: \"env=prod\", tcp: [22, \"8000-8100\"], udp: any }
  - { id: read, from: [web, \"role=ops\"], to: orders, http: [\"GET,HEAD /v1/**\", { path: /x/*, host: \"*.example\", headers: { x-a: \"b*\", x-c: \"*\", x-d: e } }] }
  - { id: night, from: report, to: orders, http: \"* /export\", when: { days: \"mon-wed,sun\", time: \"22:00-06:00 Europe/Paris\" } }
deny:
  - { id: weekend, from: any, to: db, when: { days: [sat, sun], zone: UTC } }
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
        let workloads = bundle.workloads.iter_mut();
        workloads.for_each(|workload| workload.source = model::rule::Source::default());
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
