//! What is asked of the program on its command line, without a coordinator that runs.

use std::fs::{self, File};
use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    program(arguments).output().unwrap()
}

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-coordinator"));
    command.env_clear().args(arguments);
    command
}

#[test]
fn settings_are_checked_and_nothing_else_is_done() {
    let place = tempfile::tempdir().unwrap();
    let (file, state) = (place.path().join("c.toml"), place.path().join("state"));
    let check = |text: &str| {
        fs::write(&file, text).unwrap();
        let (file, state) = (file.to_str().unwrap(), state.to_str().unwrap());
        run(&["--check", "--config", file, "--state-dir", state])
    };
    let good = check("fleet = 'prod'\n");
    assert_eq!(good.status.code(), Some(0), "{good:?}");
    assert!(String::from_utf8_lossy(&good.stdout).contains("make sense"));
    for (wrong, said) in [
        (
            "fleet = 'prod'\nadvertise = ['nowhere']\n",
            "line 2: advertise",
        ),
        ("metrics = '7446'\n", "line 1"),
        // What the first start would refuse.
        ("overlay_v4 = '11.0.0.0/8'\n", "public addresses"),
        ("fleet = 'prod'\noverlay_v6 = '2600::/48'\n", "line 2"),
        ("dns_suffix = 'com'\n", "line 1: the DNS suffix com"),
        (
            "overlay_v4 = '10.64.0.0/16'\nadvertise = ['10.64.0.1:7443']\n",
            "line 2: the address 10.64.0.1:7443",
        ),
        ("advertise = ['c1.example.com:0']\n", "line 1: advertise"),
        ("socket = ''\n", "line 1: socket is empty"),
    ] {
        let refused = check(wrong);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(told.contains(said) && told.contains("c.toml"), "{told}");
    }
    assert!(!state.exists());
}

#[test]
fn what_is_for_the_first_start_is_judged_only_before_it() {
    let place = tempfile::tempdir().unwrap();
    let check = || {
        let state = place.path().to_str().unwrap();
        let settings = ["--config", "/dev/null", "--state-dir", state];
        run(&[&["--check", "--overlay-v4", "11.0.0.0/8"], &settings[..]].concat())
    };
    let refused = check();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    // As a fleet has it that was made with `--allow-public`.
    fs::write(place.path().join("authority"), "").unwrap();
    let good = check();
    assert_eq!(good.status.code(), Some(0), "{good:?}");
}

#[test]
fn help_that_cannot_be_written_is_a_failure() {
    for question in ["--help", "--version", "--check"] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let arguments = [question, "--config", "/dev/null"];
        let output = program(&arguments).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{question}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains("standard output"), "{question}: {told}");
    }
    assert_eq!(run(&["--nonsense"]).status.code(), Some(2));
}
