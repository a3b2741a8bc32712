//! The settings file that the package installs, written from the doc comments of the settings and
//! committed. `cargo xtask generate` writes it anew; here it is checked that it is not stale, and that
//! every line of it is understood.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]

use std::fs;
use std::path::Path;

use clap::{Args, Command};
use meshd::settings::{FileSettings, Flags, Settings};

/// Set by `cargo xtask generate`: write instead of compare.
const WRITE: &str = "MESH_GENERATE";
const HEAD: &str = "\
# Settings of meshd, the mesh daemon of this host: meshd(8). All have defaults, which are shown.
# Files of your own in /etc/mesh/meshd.conf.d/*.toml win over this one, and upgrades leave them alone.
# `systemctl reload meshd` puts what can change at run time in force; a file that is wrong is not used,
# and the log says which line.
";
/// What to show where the default is no value, or depends on the machine.
const EXAMPLES: &[(&str, &str)] = &[
    ("endpoints", r#"["203.0.113.7:51820"]"#),
    ("rotate_key_days", "90"),
    ("services_listen", r#""10.0.0.7""#),
    ("services_threads", "4"),
    ("access_log_file", r#""/var/log/mesh/access.log""#),
    ("otlp", r#""http://127.0.0.1:4318""#),
];

/// The keys, each with its comment and its default, all commented out.
fn example() -> String {
    let mut text = HEAD.to_owned();
    let command = FileSettings::augment_args(Command::new("meshd"));
    for argument in command.get_arguments() {
        let key = argument.get_id().as_str();
        let help = argument.get_help().unwrap().to_string();
        let help = help.replace(" (repeatable)", "");
        text += &format!("\n# {help}\n#{key} = {}\n", value(key, &help));
    }
    text
}

fn value(key: &str, help: &str) -> String {
    if let Some((_, example)) = EXAMPLES.iter().find(|(name, _)| *name == key) {
        return (*example).to_owned();
    }
    let (_, default) = help.split_once("[default: ").unwrap();
    let default = default.trim_end_matches(']');
    match default.parse::<u64>() {
        Ok(number) => number.to_string(),
        Err(_) => format!("{default:?}"),
    }
}

#[test]
fn the_settings_file_is_that_of_the_doc_comments() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/meshd/meshd.toml");
    let text = example();
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert!(
        fs::read_to_string(&path).is_ok_and(|committed| committed == text),
        "packaging/meshd/meshd.toml is stale; run `cargo xtask generate` and commit the result"
    );
}

#[test]
fn every_line_of_the_settings_file_is_understood() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meshd.toml");
    let lines = example();
    let set = lines.lines().map(|line| {
        let key = line.strip_prefix('#').filter(|rest| !rest.starts_with(' '));
        key.unwrap_or(line)
    });
    fs::write(&path, set.collect::<Vec<_>>().join("\n")).unwrap();
    let flags = Flags {
        take_over: false,
        config: Some(path),
        plan: false,
        check: false,
        overrides: FileSettings::default(),
    };
    let settings = Settings::load(flags).unwrap();
    assert_eq!(settings.listen_port, 51820);
    assert_eq!(settings.endpoints.len(), 1);
}
