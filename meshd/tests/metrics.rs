//! The tables of docs/metrics.md that tell of this daemon, written from the catalogue and committed.
//! `cargo xtask generate` writes them anew; here it is checked that they are not stale.

use std::path::Path;

use runtime::metrics::{is_stale, process, table};

/// Set by `cargo xtask generate`: write instead of compare.
const WRITE: &str = "MESH_GENERATE";

#[test]
fn the_tables_of_metrics_are_those_of_the_catalogue() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let write = std::env::var_os(WRITE).is_some();
    for (section, catalogue) in [("meshd", meshd::metrics::ALL), ("process", process::ALL)] {
        assert!(
            !is_stale(&page, section, &table(catalogue), write),
            "docs/metrics.md is stale; run `cargo xtask generate` and commit the result"
        );
    }
}

#[test]
fn every_name_is_its_own_and_of_this_daemon() {
    let mut names: Vec<&str> = meshd::metrics::ALL.iter().map(|it| it.name).collect();
    assert!(names.iter().all(|name| name.starts_with("meshd_")));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), meshd::metrics::ALL.len());
}
