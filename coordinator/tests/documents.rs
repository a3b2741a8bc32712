//! What is written from the program itself and committed: its manual page, and the OpenAPI document of
//! the admin API. `cargo xtask generate` writes them anew; here it is checked that they are not stale.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_mangen::Man;
use coordinator::settings::Flags;

/// Set by `cargo xtask generate`: write instead of compare.
const WRITE: &str = "MESH_GENERATE";

/// Writes a file of docs/, or complains when it differs from what is committed.
fn keep(name: &str, text: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(name);
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, text).unwrap();
    }
    assert!(
        fs::read(&path).is_ok_and(|committed| committed == text),
        "docs/{name} is stale; run `cargo xtask generate` and commit the result"
    );
}

#[test]
fn the_manual_page_is_that_of_the_command_line() {
    let mut page = Vec::new();
    // Without a date and of any version, so that the page changes when the command line does.
    let man = Man::new(Flags::command().version(None));
    let man = man.section("8").manual("mesh").source("mesh");
    man.render(&mut page).unwrap();
    keep("man/mesh-coordinator.8", &page);
}

#[test]
fn the_document_of_the_admin_api_is_that_of_its_operations() {
    keep("openapi.json", coordinator::admin::openapi().as_bytes());
}
