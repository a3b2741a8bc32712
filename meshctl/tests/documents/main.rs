//! What is written from the program itself and committed: manual pages, the reference in docs/, and
//! the schema of answers. `cargo xtask generate` writes them anew; here it is checked that they are not stale.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]

mod manual;
mod reference;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use meshctl::answers;
use meshctl::arguments::Arguments;

/// Set by `cargo xtask generate`: write instead of compare.
const WRITE: &str = "MESH_GENERATE";

fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap().to_path_buf()
}

/// The command line with everything that clap adds to it.
fn command() -> clap::Command {
    let mut command = Arguments::command();
    command.build();
    command
}

/// Writes the files, or complains of each that differs from what is committed.
fn keep(files: &BTreeMap<String, String>) {
    let mut stale = Vec::new();
    for (path, text) in files {
        let whole = root().join(path);
        if std::env::var_os(WRITE).is_some() {
            fs::create_dir_all(whole.parent().unwrap()).unwrap();
            fs::write(&whole, text).unwrap();
        } else if fs::read_to_string(&whole).ok().as_ref() != Some(text) {
            stale.push(path.as_str());
        }
    }
    assert!(
        stale.is_empty(),
        "stale: {}; run `cargo xtask generate` and commit the result",
        stale.join(", ")
    );
}

/// Files of a directory that nothing generates any more.
fn assert_no_others(directory: &str, ending: &str, files: &BTreeMap<String, String>) {
    for entry in fs::read_dir(root().join(directory)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let path = format!("{directory}/{name}");
        if !name.ends_with(ending) || files.contains_key(&path) {
            continue;
        }
        if std::env::var_os(WRITE).is_some() {
            fs::remove_file(root().join(&path)).unwrap();
        } else {
            panic!("{path} belongs to no command: remove it");
        }
    }
}

/// Every word of a source between `show("` and the next quote.
fn kinds_in(directory: &Path, kinds: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            kinds_in(&path, kinds);
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for shows in ["output.show(", "output.show_once("] {
            let shown = text.split(shows).skip(1);
            kinds.extend(shown.filter_map(|it| Some(it.split('"').nth(1)?.to_owned())));
        }
    }
}

#[test]
fn every_kind_of_answer_has_a_schema() {
    let mut kinds = BTreeSet::new();
    kinds_in(&root().join("meshctl/src"), &mut kinds);
    let schema: serde_json::Value = serde_json::from_str(&answers::schema()).unwrap();
    let described = schema["properties"]["kind"]["enum"].as_array().unwrap();
    let described: BTreeSet<String> = described
        .iter()
        .map(|it| it.as_str().unwrap().to_owned())
        .collect();
    // One line of a ping that people read; programs get a report of all.
    kinds.remove("PingReply");
    assert_eq!(kinds, described, "KINDS of meshctl/src/answers.rs");
}

#[test]
fn the_schema_of_answers_is_that_of_their_types() {
    let path = "docs/meshctl.schema.json".to_owned();
    keep(&BTreeMap::from([(path, answers::schema())]));
}

#[test]
fn the_manual_pages_are_those_of_the_command_line() {
    let pages = manual::pages(&command());
    keep(&pages);
    assert_no_others("docs/man", ".1", &pages);
}

#[test]
fn the_reference_is_that_of_the_command_line() {
    let text = reference::text(&command());
    keep(&BTreeMap::from([("docs/commands.md".to_owned(), text)]));
}
