//! Where dependencies from elsewhere may be used: one place per big one, none with IO in pure crates.

use std::path::Path;
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata};

use crate::Tracked;

/// The crates that decide and do no IO, also not through what they depend on.
const PURE: &[&str] = &[
    "model",
    "policy",
    "traffic",
    "trust",
    "wireguard",
    "dataplane",
    "agent",
    "fleet",
];

/// Crates that open sockets, files or threads, read clocks or roll dice.
const IMPURE: &[&str] = &[
    "async-std",
    "axum",
    "etcd-client",
    "getrandom",
    "h2",
    "hickory-net",
    "hickory-server",
    "hyper",
    "hyper-util",
    "mio",
    "quinn",
    "quinn-proto",
    "redb",
    "reqwest",
    "rtnetlink",
    "rustix",
    "rustls",
    "smol",
    "socket2",
    "tempfile",
    "tokio",
    "tonic",
    "tun-rs",
    "zbus",
];

/// A big dependency, and the only crates that may name it.
const PLACES: &[(&str, &[&str])] = &[
    // The bench has a bare forwarder of its own, which shares nothing with what it is the yardstick of.
    ("aws-lc-rs", &["trust", "wireguard", "runtime", "bench"]),
    ("axum", &["runtime", "coordinator", "meshd"]),
    ("blake2", &["wireguard"]),
    ("cargo_metadata", &["tidy"]),
    ("chacha20poly1305", &["wireguard"]),
    ("etcd-client", &["coordinator"]),
    ("hickory-proto", &["meshd"]),
    ("hickory-resolver", &["meshd"]),
    ("hickory-server", &["meshd"]),
    ("hyper", &["runtime", "proxy", "meshd", "bench"]),
    ("hyper-util", &["runtime", "proxy", "meshd", "bench"]),
    ("jiff", &["policy", "meshctl"]),
    ("netlink-packet-route", &["meshd"]),
    ("prometheus-client", &["runtime"]),
    ("protox", &["xtask"]),
    ("quinn", &["meshd", "proxy"]),
    ("quinn-proto", &["meshd"]),
    ("rcgen", &["trust"]),
    ("redb", &["coordinator"]),
    ("rtnetlink", &["meshd"]),
    ("rustls", &["runtime", "proxy", "coordinator", "meshd"]),
    ("rustls-webpki", &["trust", "runtime"]),
    ("schemars", &["model", "coordinator", "meshctl"]),
    ("serde-saphyr", &["policy"]),
    ("tokio-rustls", &["runtime", "proxy"]),
    ("tonic", &["runtime", "coordinator", "meshd"]),
    ("tonic-prost", &["runtime"]),
    ("tonic-prost-build", &["xtask"]),
    ("tracing-subscriber", &["runtime"]),
    ("tun-rs", &["meshd", "bench"]),
    ("x509-parser", &["trust", "runtime"]),
    ("zbus", &["meshd"]),
];

/// Oracles: they may only be compared with, in the tests of one crate.
const ORACLES: &[(&str, &str)] = &[("boringtun", "wireguard"), ("snow", "wireguard")];

/// Dependencies that are named by a crate where they have no place.
pub fn misplaced_dependencies(metadata: &Metadata) -> Vec<String> {
    let mut complaints = Vec::new();
    for package in metadata.workspace_packages() {
        for dependency in &package.dependencies {
            complaints.extend(misplaced(
                package.name.as_str(),
                &dependency.name,
                dependency.kind,
            ));
        }
    }
    complaints
}

fn misplaced(krate: &str, dependency: &str, kind: DependencyKind) -> Option<String> {
    if let Some((_, owner)) = ORACLES.iter().find(|(name, _)| *name == dependency) {
        return (kind != DependencyKind::Development || krate != *owner).then(|| {
            format!(
                "`{krate}` must not use `{dependency}`: it is an oracle in the tests of \
                 `{owner}` only; move it to [dev-dependencies] there, or do without"
            )
        });
    }
    let (_, places) = PLACES.iter().find(|(name, _)| *name == dependency)?;
    let allowed = places.contains(&krate) || kind == DependencyKind::Development;
    (!allowed).then(|| {
        format!(
            "`{krate}` must not use `{dependency}`: its place is {}; call what that crate \
             offers, or widen PLACES in tests/tidy/src/dependencies.rs with a reason in the commit",
            places.join(", ")
        )
    })
}

/// Pure crates that reach IO through their dependencies, with the way there.
pub fn pure_crates_with_io(metadata: &Metadata) -> Vec<String> {
    let ours = metadata.workspace_packages();
    let pure = ours.iter().map(|package| package.name.as_str());
    let mut complaints = Vec::new();
    for krate in pure.filter(|name| PURE.contains(name)) {
        let tree = linked_tree(krate, metadata.workspace_root.as_std_path());
        for way in ways_to_io(&tree) {
            complaints.push(format!(
                "`{krate}` is pure but reaches IO by {}: drop the dependency or its default \
                 features, and pass time, bytes and seeds in from the program",
                way.join(" -> ")
            ));
        }
    }
    complaints
}

/// What is linked with a crate when it is built alone: one line `DEPTH NAME …` each.
///
/// `cargo metadata` will not do: it adds up the features that any crate of the workspace asks for.
fn linked_tree(krate: &str, root: &Path) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(root)
        .args([
            "tree",
            "--package",
            krate,
            "--edges",
            "normal,no-proc-macro",
        ])
        .args(["--prefix", "depth", "--format", " {p}"])
        .output()
        .expect("cargo is installed, it runs this test");
    assert!(
        output.status.success(),
        "`cargo tree --package {krate}` fails:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn ways_to_io(tree: &str) -> Vec<Vec<&str>> {
    let mut way = Vec::new();
    let mut found = Vec::new();
    for line in tree.lines() {
        let mut words = line.split_whitespace();
        let (Some(depth), Some(name)) = (words.next(), words.next()) else {
            continue;
        };
        way.truncate(
            depth
                .parse()
                .expect("`--prefix depth` starts each line with a number"),
        );
        way.push(name);
        let inside_io = way[..way.len() - 1]
            .iter()
            .any(|name| IMPURE.contains(name));
        if IMPURE.contains(&name) && !inside_io {
            found.push(way.clone());
        }
    }
    found
}

/// Manifests that state a version or path instead of naming the workspace's table. The root of
/// another workspace has no table but its own.
pub fn unnamed_versions(files: &[Tracked]) -> Vec<String> {
    let is_root = |manifest: &&Tracked| manifest.text.lines().any(|line| line == "[workspace]");
    let manifests = files
        .iter()
        .filter(|file| file.path.ends_with("/Cargo.toml"))
        .filter(|manifest| !is_root(manifest));
    manifests.flat_map(versions_in).collect()
}

fn versions_in(manifest: &Tracked) -> Vec<String> {
    let mut in_dependencies = false;
    let mut complaints = Vec::new();
    for (index, line) in manifest.text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            in_dependencies = line.contains("dependencies");
            continue;
        }
        let states_something = !line.is_empty() && !line.starts_with('#');
        if in_dependencies && states_something && !line.contains("workspace = true") {
            complaints.push(format!(
                "{}:{}: `{line}`: put the version into [workspace.dependencies] of the root \
                 Cargo.toml and write `NAME.workspace = true` here",
                manifest.path,
                index + 1
            ));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_has_one_place() {
        assert!(misplaced("coordinator", "redb", DependencyKind::Normal).is_none());
        let complaint = misplaced("meshd", "redb", DependencyKind::Normal).unwrap();
        assert!(
            complaint.contains("its place is coordinator"),
            "{complaint}"
        );
    }

    #[test]
    fn an_oracle_stays_in_the_tests_of_its_crate() {
        assert!(misplaced("wireguard", "boringtun", DependencyKind::Development).is_none());
        assert!(misplaced("wireguard", "boringtun", DependencyKind::Normal).is_some());
        assert!(misplaced("meshd", "boringtun", DependencyKind::Development).is_some());
    }

    #[test]
    fn the_way_to_io_is_told() {
        let tree =
            "0 agent v1\n1 trust v1\n2 webpki v1\n3 ring v1\n2 subtle v1\n1 tokio v1\n2 mio v1\n";
        assert_eq!(ways_to_io(tree), [["agent", "tokio"]]);
    }

    #[test]
    fn a_version_outside_the_workspace_table_is_found() {
        let manifest = Tracked::new(
            "crates/x/Cargo.toml",
            "[dependencies]\nserde.workspace = true\ntokio = \"1\"\n[lints]\nworkspace = true\n",
        );
        let complaints = unnamed_versions(&[manifest]);
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].starts_with("crates/x/Cargo.toml:3:"));
        let elsewhere = Tracked::new("x/Cargo.toml", "[workspace]\n[dependencies]\na = \"1\"\n");
        assert!(unnamed_versions(&[elsewhere]).is_empty());
    }
}
