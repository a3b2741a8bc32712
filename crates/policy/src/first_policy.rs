//! Version 1 of every fleet: ping from any to any, and nothing else.

use model::name::Name;
use model::rule::{Bundle, Rule, Selector, Source, Traffic};

use crate::SourceFile;

/// Returns the bundle that a new fleet starts with: any host may ping any host, everything else
/// is denied.
pub fn first_policy() -> Bundle {
    let ping = Rule {
        id: "ping".parse().expect("a valid rule id"),
        from: vec![Selector::Any],
        to: vec![Selector::Any],
        traffic: Traffic::Ports {
            tcp: Vec::new(),
            udp: Vec::new(),
            icmp: true,
        },
        http: Vec::new(),
        when: None,
        source: Source::default(),
    };
    Bundle {
        allow: vec![ping],
        ..Bundle::default()
    }
}

/// Returns the same as an operator would have written it, for the history and as a start.
pub fn first_policy_files(fleet: &Name) -> Vec<SourceFile> {
    vec![SourceFile {
        path: "policy.yaml".to_owned(),
        text: FIRST_POLICY_YAML.replace("FLEET", fleet.as_str()),
    }]
}

const FIRST_POLICY_YAML: &str = "\
# The first policy of a new fleet: hosts may ping each other, everything else is denied.
fleet: FLEET
allow:
  - { id: ping, from: any, to: any, icmp: true }
tests:
  - { allow: \"any -> any icmp\" }
  - { deny: \"any -> any:22\" }
";
