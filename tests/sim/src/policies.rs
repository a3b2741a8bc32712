//! Policies that operators apply: generated directories of YAML, some of them wrong.

use std::fmt::Write;

use model::admin::PolicyFile;

use crate::dice::Dice;

/// Labels that hosts have.
const ROLES: [&str; 4] = ["edge", "app", "db", "batch"];
pub(crate) const ENVIRONMENTS: [&str; 2] = ["prod", "test"];

/// Ports that applications try, whatever is allowed.
pub(crate) const TCP_PORTS: [u16; 6] = [22, 443, 5432, 8080, 8050, 9100];
pub(crate) const UDP_PORTS: [u16; 4] = [53, 123, 514, 4000];

const SERVICES: [(&str, u16, &str); 4] = [
    ("orders", 8080, "tcp"),
    ("postgres", 5432, "tcp"),
    ("resolver", 53, "udp"),
    ("logs", 514, "udp"),
];

/// Returns the roles of a fleet: four, or those once for each of its sites.
pub(crate) fn roles(sites: u32) -> Vec<String> {
    let at = |site: u32| ROLES.iter().map(move |role| format!("{role}-{site}"));
    match sites {
        0 | 1 => ROLES.map(str::to_owned).to_vec(),
        _ => (0..sites).flat_map(at).collect(),
    }
}

/// Writes a policy for a fleet with these hosts. Where there are many sites, no rule speaks of
/// everybody: each connects few, as in every fleet that is large.
pub(crate) fn generate(dice: &mut Dice, hosts: &[String], sites: u32) -> Vec<PolicyFile> {
    let mut draft = Draft {
        dice,
        hosts,
        roles: roles(sites),
        is_wide: sites > 1,
        services: Vec::new(),
        text: "fleet: sim\n".to_owned(),
        rules: 0,
    };
    draft.services();
    draft.allows();
    draft.denies();
    vec![PolicyFile {
        path: "policy.yaml".to_owned(),
        text: draft.text,
    }]
}

struct Draft<'a> {
    dice: &'a mut Dice,
    hosts: &'a [String],
    roles: Vec<String>,
    is_wide: bool,
    services: Vec<&'static str>,
    text: String,
    rules: u32,
}

impl Draft<'_> {
    fn services(&mut self) {
        let chosen: Vec<_> = SERVICES
            .into_iter()
            .filter(|_| self.dice.chance(500))
            .collect();
        if chosen.is_empty() {
            return;
        }
        self.text.push_str("services:\n");
        for (name, port, protocol) in chosen {
            let endpoints = self.host_selector();
            self.line(&format!(
                "  {name}: {{ port: {port}, protocol: {protocol}, endpoints: [{endpoints}] }}"
            ));
            self.services.push(name);
        }
    }

    fn allows(&mut self) {
        self.text.push_str("allow:\n");
        if !self.is_wide && self.dice.chance(700) {
            self.rule("from: any, to: any, icmp: true");
        }
        let rules_max = if self.is_wide { self.roles.len() } else { 6 };
        for _ in 0..1 + self.dice.below(rules_max) {
            let (from, to) = (self.selector(), self.host_selector());
            let traffic = self.traffic();
            self.rule(&format!("from: {from}, to: {to}, {traffic}"));
        }
        for service in self.services.clone() {
            if self.dice.chance(800) {
                let from = self.selector();
                self.rule(&format!("from: {from}, to: {service}"));
            }
        }
    }

    fn denies(&mut self) {
        let count = self.dice.below(4);
        if count == 0 {
            return;
        }
        self.text.push_str("deny:\n");
        for _ in 0..count {
            let from = self.selector();
            match self.dice.pick_any(&self.services) {
                Some(service) if self.dice.chance(300) => {
                    self.rule(&format!("from: {from}, to: {service}"));
                }
                _ => {
                    let (to, traffic) = (self.host_selector(), self.traffic());
                    let traffic = if self.dice.chance(400) {
                        String::new()
                    } else {
                        format!(", {traffic}")
                    };
                    self.rule(&format!("from: {from}, to: {to}{traffic}"));
                }
            }
        }
    }

    /// Returns hosts, or those that offer a service.
    fn selector(&mut self) -> String {
        match self.dice.pick_any(&self.services) {
            Some(service) if self.dice.chance(150) => service.to_owned(),
            _ => self.host_selector(),
        }
    }

    fn host_selector(&mut self) -> String {
        match self.dice.below(10) {
            0 | 1 | 6 if self.is_wide => format!("\"role={}\"", self.dice.pick(&self.roles)),
            0 | 1 => "any".to_owned(),
            2..6 => format!("\"role={}\"", self.dice.pick(&self.roles)),
            6 => format!("\"env={}\"", self.dice.pick(&ENVIRONMENTS)),
            _ if self.hosts.is_empty() => format!("\"role={}\"", self.dice.pick(&self.roles)),
            7 => format!(
                "\"role={},env={}\"",
                self.dice.pick(&self.roles),
                self.dice.pick(&ENVIRONMENTS)
            ),
            _ => self.dice.pick(self.hosts).clone(),
        }
    }

    fn traffic(&mut self) -> String {
        let tcp = *self.dice.pick(&TCP_PORTS);
        let udp = *self.dice.pick(&UDP_PORTS);
        match self.dice.below(7) {
            0 => "tcp: any".to_owned(),
            1 => format!("tcp: [{tcp}], udp: [{udp}]"),
            2 => "tcp: [\"8000-8100\"]".to_owned(),
            3 => "udp: any".to_owned(),
            4 => format!("udp: [{udp}]"),
            5 => format!("tcp: [{tcp}], icmp: true"),
            _ => format!("tcp: [{tcp}]"),
        }
    }

    fn rule(&mut self, what: &str) {
        self.rules += 1;
        let id = self.rules;
        self.line(&format!("  - {{ id: r{id}, {what} }}"));
    }

    fn line(&mut self, line: &str) {
        writeln!(self.text, "{line}").expect("a string takes everything");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_generated_policies_are_right() {
        let mut dice = Dice::new(1, "");
        let hosts = ["vm-1".to_owned(), "vm-2".to_owned()];
        for round in 0..300 {
            let files = generate(&mut dice, &hosts, round % 3);
            if let Err(faults) = policy::load(&files) {
                let rendered: Vec<String> =
                    faults.iter().map(|fault| format!("{fault:?}")).collect();
                panic!("{}\n{}", files[0].text, rendered.join("\n"));
            }
        }
    }
}
