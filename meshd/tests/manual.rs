//! The manual page of the daemon, written from its command line and committed. `cargo xtask generate`
//! writes it anew; here it is checked that it is not stale.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_mangen::Man;
use meshd::settings::Flags;

/// Set by `cargo xtask generate`: write instead of compare.
const WRITE: &str = "MESH_GENERATE";

#[test]
fn the_manual_page_is_that_of_the_command_line() {
    let mut page = Vec::new();
    // Without a date and of any version, so that the page changes when the command line does.
    let man = Man::new(Flags::command().version(None));
    let man = man.section("8").manual("mesh").source("mesh");
    man.render(&mut page).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/man/meshd.8");
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, &page).unwrap();
    }
    assert!(
        fs::read(&path).is_ok_and(|committed| committed == page),
        "docs/man/meshd.8 is stale; run `cargo xtask generate` and commit the result"
    );
}
