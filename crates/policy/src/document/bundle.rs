//! All files of a directory as one bundle: the sections merged, every name once.

use std::collections::BTreeMap;

use model::limits::Limits;
use model::name::{Name, RuleId};
use model::rule::{Bundle, CipherDemand, Rule, Service};

use super::expectation::{self, RuleIds};
use super::reader::{self, Fields, Section};
use super::{Described, Names, Nouns, Test, rule, service, warnings, workload};
use crate::diagnostic::{Complaint, Place, Report, quoted};
use crate::reference::Effect;
use crate::yaml::{Entry, Node, Value};

/// What the files say; parts that could not be read are missing, and reported.
pub(super) struct Contents {
    pub(super) fleet: Option<Name>,
    pub(super) bundle: Bundle,
    pub(super) tests: Vec<Test>,
    pub(super) names: Names,
}

/// Tests of a bundle.
const TESTS_MAX: usize = 10_000;

/// Reads the roots of all files.
pub(super) fn read(roots: &[Option<Node>], report: &mut Report<'_>) -> Contents {
    let sections: Vec<_> = roots
        .iter()
        .flatten()
        .filter_map(|root| Fields::read(root, Section::TopLevel, report))
        .collect();
    let fleet = fleet(&sections, report);
    let mut names = Names::default();
    let mut nouns = Nouns::default();
    let workloads = entries(&sections, &WORKLOADS, &mut nouns.workloads, report);
    let services = entries(&sections, &SERVICES, &mut nouns.services, report);
    names.services = services
        .iter()
        .map(|(name, it)| (name.clone(), it.key_place))
        .collect();
    let mut bundle = Bundle {
        cipher: cipher(&sections, report),
        ..Bundle::default()
    };
    for (name, entry) in workloads {
        if report.is_hopeless() {
            break;
        }
        let workload = workload::read(entry, name, &nouns, &mut names, report);
        bundle.workloads.extend(workload);
    }
    for (name, entry) in services {
        if report.is_hopeless() {
            break;
        }
        let service = service::read(entry, name, &nouns, &bundle.workloads, &mut names, report);
        bundle.services.extend(service);
    }
    let mut rules = Rules {
        nouns: &nouns,
        services: &bundle.services,
        ids: RuleIds::default(),
    };
    let allow = rules.read(&sections, Effect::Allow, &mut names, report);
    let deny = rules.read(&sections, Effect::Deny, &mut names, report);
    let ids = rules.ids;
    (bundle.allow, bundle.deny) = (allow, deny);
    let (allows, denies) = (bundle.allow.len(), bundle.deny.len());
    check_count(allows + denies, Limits::RULES, "rules", report);
    check_count(bundle.services.len(), Limits::SERVICES, "services", report);
    check_count(
        bundle.workloads.len(),
        Limits::WORKLOADS,
        "workloads",
        report,
    );
    let tests = tests(&sections, &nouns, &ids, report);
    warnings::add(&bundle, &ids, report);
    Contents {
        fleet,
        bundle,
        tests,
        names,
    }
}

fn check_count(count: usize, count_max: usize, what: &str, report: &mut Report<'_>) {
    if count > count_max {
        let message = format!("{count} {what} are too many: a bundle has at most {count_max}");
        report.error_of_bundle(Complaint::new(message).help("join rules by selecting with labels"));
    }
}

fn fleet(sections: &[Fields<'_>], report: &mut Report<'_>) -> Option<Name> {
    if !sections.iter().any(|section| section.has("fleet")) {
        let complaint = Complaint::new("no file says which fleet this policy is for")
            .help("add `fleet: NAME` to one of them; `meshctl status` shows the name");
        report.error_of_bundle(complaint);
    }
    let mut fleet: Option<(Name, Place)> = None;
    for section in sections {
        let Some(node) = section.optional("fleet", report) else {
            continue;
        };
        let Some(text) = reader::text(node, "`fleet`", report) else {
            continue;
        };
        let parsed = text
            .parse::<Name>()
            .map_err(|error| Complaint::new(error.to_string()));
        let Some(name) = report.check(node.place, parsed) else {
            continue;
        };
        match &fleet {
            Some((first, place)) if *first != name => {
                let first = format!("`{first}` at {}", report.named(*place));
                let message = format!("this says fleet `{name}`, and another file says {first}");
                let help = "a directory is the policy of one fleet";
                report.error(node.place, Complaint::new(message).help(help));
            }
            Some(_) => {}
            None => fleet = Some((name, node.place)),
        }
    }
    fleet.map(|(name, _)| name)
}

/// One file that demands it demands it for all.
fn cipher(sections: &[Fields<'_>], report: &mut Report<'_>) -> CipherDemand {
    let mut demand = CipherDemand::AsOffered;
    for section in sections {
        let Some(node) = section.optional("cipher", report) else {
            continue;
        };
        match reader::text(node, "`cipher`", report) {
            Some("standard") => demand = CipherDemand::Standard,
            Some(other) => {
                let message = format!("a policy cannot demand the cipher {}", quoted(other));
                let help = "write `cipher: standard`, which is ChaCha20-Poly1305 between all \
                            hosts, or leave it out: then two hosts use AES-256-GCM where both \
                            offer it";
                report.error(node.place, Complaint::new(message).help(help));
            }
            None => {}
        }
    }
    demand
}

/// A section with things of one kind by their names.
struct Kind {
    section: &'static str,
    one: &'static str,
    example: &'static str,
}

const WORKLOADS: Kind = Kind {
    section: "workloads",
    one: "workload",
    example: "{ web: { unit: web.service, hosts: role=edge } }",
};

const SERVICES: Kind = Kind {
    section: "services",
    one: "service",
    example: "{ db: { port: 5432, protocol: tcp, endpoints: [\"role=db\"] } }",
};

/// Returns the entries of a section in all files, each name once, and notes where they stand.
fn entries<'n>(
    sections: &[Fields<'n>],
    kind: &Kind,
    described: &mut Described,
    report: &mut Report<'_>,
) -> Vec<(Name, &'n Entry)> {
    let Kind {
        section: key,
        one,
        example,
    } = kind;
    let mut found = Vec::new();
    for section in sections {
        let Some(node) = section.optional(key, report) else {
            continue;
        };
        let Value::Map(entries) = &node.value else {
            let message = format!("`{key}` is a mapping, not {}", node.value.kind());
            let help = format!("write `{key}: {example}`");
            report.error(node.place, Complaint::new(message).help(help));
            continue;
        };
        for entry in entries {
            let parsed = entry.key.parse::<Name>();
            let parsed = parsed.map_err(|error| {
                let help = format!("a {one} is a name in DNS, such as `db`");
                Complaint::new(error.to_string()).help(help)
            });
            let Some(name) = report.check(entry.key_place, parsed) else {
                continue;
            };
            match described.add(&name, entry.key_place) {
                Ok(()) => found.push((name, entry)),
                Err(first) => {
                    let message = format!("the {one} `{name}` is described twice");
                    let help = format!("the first one is at {}", report.named(first));
                    report.error(entry.key_place, Complaint::new(message).help(help));
                }
            }
        }
    }
    found
}

struct Rules<'s> {
    nouns: &'s Nouns,
    services: &'s [Service],
    ids: RuleIds,
}

impl Rules<'_> {
    fn read(
        &mut self,
        sections: &[Fields<'_>],
        effect: Effect,
        names: &mut Names,
        report: &mut Report<'_>,
    ) -> Vec<Rule> {
        let key = match effect {
            Effect::Allow => "allow",
            Effect::Deny => "deny",
        };
        let mut rules = Vec::new();
        for section in sections {
            let Some(node) = section.optional(key, report) else {
                continue;
            };
            for node in reader::list(node, key, report) {
                if report.is_hopeless() {
                    return rules;
                }
                let read = rule::read(node, effect, self.nouns, self.services, names, report);
                let Some(placed) = read else { continue };
                if self.add_id(&placed.rule.id, placed.id_place, effect, report) {
                    rules.push(placed.rule);
                }
            }
        }
        rules
    }

    fn add_id(
        &mut self,
        id: &RuleId,
        place: Place,
        effect: Effect,
        report: &mut Report<'_>,
    ) -> bool {
        if let Some((first, _)) = self.ids.get(id) {
            let message = format!("the id {} is used twice", quoted(id.as_str()));
            let help = format!(
                "the first one is at {}; ids are unique in a bundle",
                report.named(*first)
            );
            report.error(place, Complaint::new(message).help(help));
            return false;
        }
        self.ids.insert(id.clone(), (place, effect));
        true
    }
}

fn tests(
    sections: &[Fields<'_>],
    nouns: &Nouns,
    ids: &BTreeMap<RuleId, (Place, Effect)>,
    report: &mut Report<'_>,
) -> Vec<Test> {
    let mut tests = Vec::new();
    for section in sections {
        let Some(node) = section.optional("tests", report) else {
            continue;
        };
        for node in reader::list(node, "tests", report) {
            if report.is_hopeless() {
                return tests;
            }
            tests.extend(expectation::read(node, nouns, ids, report));
        }
    }
    check_count(tests.len(), TESTS_MAX, "tests", report);
    tests
}
