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
use coordinator::settings::{FileSettings, Flags, Settings};

/// Set by `cargo xtask generate`: write instead of compare.
const WRITE: &str = "MESH_GENERATE";
const HEAD: &str = "\
# Settings of mesh-coordinator: mesh-coordinator(8). All have defaults, which are shown where they are
# values. Files of your own in /etc/mesh/coordinator.conf.d/*.toml win over this one, and upgrades leave
# them alone. `systemctl restart mesh-coordinator` puts changes in force; hosts notice nothing of it.
";
/// What to show where the default is no value.
const EXAMPLES: &[(&str, &str)] = &[
    ("listen", r#""[::]:7443""#),
    ("advertise", r#"["mesh.example.net:7443"]"#),
    ("allow_public", "false"),
    ("overlay_v4", r#""100.77.0.0/16""#),
    ("overlay_v6", r#""fd5c:1d0a:9c41::/48""#),
];
/// Set by the unit: the coordinator may write in its own directory only.
const OF_THE_UNIT: &str = "socket";

/// The keys, each with its comment and its default, all commented out.
fn example() -> String {
    let mut text = HEAD.to_owned();
    let command = FileSettings::augment_args(Command::new("mesh-coordinator"));
    for argument in command.get_arguments() {
        let key = argument.get_id().as_str();
        if key == OF_THE_UNIT {
            continue;
        }
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
    let Some((_, default)) = help.split_once("[default: ") else {
        panic!("{key} has no default to show: add an example of it to EXAMPLES");
    };
    format!("{:?}", default.trim_end_matches(']'))
}

#[test]
fn the_settings_file_is_that_of_the_doc_comments() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../packaging/mesh-coordinator/coordinator.toml");
    let text = example();
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert!(
        fs::read_to_string(&path).is_ok_and(|committed| committed == text),
        "packaging/mesh-coordinator/coordinator.toml is stale; run `cargo xtask generate` and commit the result"
    );
}

#[test]
fn every_line_of_the_settings_file_is_understood() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("coordinator.toml");
    let lines = example();
    let set = lines.lines().map(|line| {
        let key = line.strip_prefix('#').filter(|rest| !rest.starts_with(' '));
        key.unwrap_or(line)
    });
    fs::write(&path, set.collect::<Vec<_>>().join("\n")).unwrap();
    let flags = Flags {
        config: Some(path),
        check: false,
        overrides: FileSettings::default(),
        task: None,
    };
    let settings = Settings::load(flags).unwrap();
    assert_eq!(settings.advertise, ["mesh.example.net:7443"]);
}
