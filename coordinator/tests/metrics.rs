//! The table of docs/metrics.md that tells of the coordinator, written from the catalogue and committed.
//! `cargo xtask generate` writes it anew; here it is checked that it is not stale.

use std::path::Path;

use runtime::metrics::{is_stale, table};

/// Set by `cargo xtask generate`: write instead of compare.
const WRITE: &str = "MESH_GENERATE";

#[test]
fn the_table_of_metrics_is_that_of_the_catalogue() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let write = std::env::var_os(WRITE).is_some();
    assert!(
        !is_stale(
            &page,
            "coordinator",
            &table(coordinator::metrics::ALL),
            write
        ),
        "docs/metrics.md is stale; run `cargo xtask generate` and commit the result"
    );
}

#[test]
fn every_name_is_its_own_and_of_the_coordinator() {
    let all = coordinator::metrics::ALL;
    let mut names: Vec<&str> = all.iter().map(|it| it.name).collect();
    assert!(names.iter().all(|name| name.starts_with("coordinator_")));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all.len());
}
