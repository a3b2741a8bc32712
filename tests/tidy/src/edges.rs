//! Which of our crates may import which: the picture of docs/ARCHITECTURE.md as a table.

use cargo_metadata::{DependencyKind, Metadata};

/// A crate, what it may import, and what its tests may import besides.
struct Room {
    name: &'static str,
    imports: &'static [&'static str],
    tests_import: &'static [&'static str],
}

const fn room(
    name: &'static str,
    imports: &'static [&'static str],
    tests_import: &'static [&'static str],
) -> Room {
    Room {
        name,
        imports,
        tests_import,
    }
}

/// Arrows point down only. A crate that is not listed here has no place in the house yet.
const HOUSE: &[Room] = &[
    room("model", &[], &[]),
    room("policy", &["model"], &[]),
    room("traffic", &["model"], &[]),
    room("trust", &["model"], &[]),
    room("wireguard", &[], &[]),
    room("dataplane", &["model", "policy", "wireguard"], &[]),
    room("agent", &["model", "policy", "trust", "dataplane"], &[]),
    room("fleet", &["model", "policy", "trust"], &[]),
    // Its TLS verifiers ask `trust` whether a chain is good, instead of deciding that again.
    room("runtime", &["model", "trust"], &[]),
    room(
        "proxy",
        &["model", "policy", "traffic", "trust", "runtime"],
        &[],
    ),
    room(
        "meshd",
        &[
            "model",
            "policy",
            "trust",
            "traffic",
            "wireguard",
            "dataplane",
            "agent",
            "runtime",
            "proxy",
        ],
        &[],
    ),
    room(
        "coordinator",
        &["model", "policy", "trust", "fleet", "runtime"],
        &[],
    ),
    room("meshctl", &["model", "policy", "trust", "runtime"], &[]),
    room(
        "sim",
        &[
            "model",
            "policy",
            "trust",
            "traffic",
            "wireguard",
            "dataplane",
            "agent",
            "fleet",
        ],
        &[],
    ),
    // The lab drives the built programs from outside and reads their JSON as operators do.
    room("lab", &[], &["trust", "model", "wireguard"]),
    // Machines drive the packages from outside.
    room("machines", &["lab"], &[]),
    // The packet side of `meshd` as a program of its own, and what stands at its other end.
    room(
        "interop",
        &[
            "model",
            "policy",
            "wireguard",
            "dataplane",
            "runtime",
            "meshd",
            "lab",
        ],
        &[],
    ),
    // Its storm is the hosts of a fleet without their packets, its micro-benchmarks the packets
    // without hosts.
    room(
        "bench",
        &[
            "interop",
            "lab",
            "agent",
            "meshd",
            "dataplane",
            "wireguard",
            "policy",
            "model",
            "runtime",
        ],
        &[],
    ),
    // Every crate that reads bytes from elsewhere.
    room(
        "fuzz",
        &[
            "model",
            "policy",
            "trust",
            "wireguard",
            "dataplane",
            "agent",
            "proxy",
            "meshd",
        ],
        &[],
    ),
    room("tidy", &[], &[]),
    room("xtask", &["lab", "machines"], &[]),
];

/// Imports between our crates that the house does not allow.
pub fn forbidden_edges(metadata: &Metadata) -> Vec<String> {
    let ours: Vec<&str> = metadata
        .workspace_packages()
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let mut complaints = Vec::new();
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        let Some(room) = HOUSE.iter().find(|room| room.name == name) else {
            complaints.push(format!(
                "the crate `{name}` has no place in the house: draw it in docs/ARCHITECTURE.md \
                 and add it to HOUSE in tests/tidy/src/edges.rs"
            ));
            continue;
        };
        for dependency in &package.dependencies {
            let imported = dependency.name.as_str();
            if ours.contains(&imported) && !room.allows(imported, dependency.kind) {
                complaints.push(format!(
                    "`{name}` must not import `{imported}`: arrows point down only \
                     (docs/ARCHITECTURE.md); move the type both need to a crate below, \
                     or let the program wire them together"
                ));
            }
        }
    }
    complaints
}

impl Room {
    fn allows(&self, imported: &str, kind: DependencyKind) -> bool {
        self.imports.contains(&imported)
            || (kind == DependencyKind::Development && self.tests_import.contains(&imported))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(name: &str) -> &'static Room {
        HOUSE.iter().find(|room| room.name == name).unwrap()
    }

    #[test]
    fn agent_and_fleet_do_not_know_each_other() {
        assert!(!find("agent").allows("fleet", DependencyKind::Normal));
        assert!(!find("fleet").allows("agent", DependencyKind::Development));
    }

    #[test]
    fn an_import_for_tests_is_no_import_of_the_crate() {
        assert!(find("lab").allows("trust", DependencyKind::Development));
        assert!(!find("lab").allows("trust", DependencyKind::Normal));
    }

    #[test]
    fn no_crate_imports_one_that_imports_it() {
        for room in HOUSE {
            assert!(!reaches(room, room.name), "{} can reach itself", room.name);
        }
    }

    fn reaches(room: &Room, target: &str) -> bool {
        room.imports
            .iter()
            .any(|import| *import == target || reaches(find(import), target))
    }
}
