//! The demo as people run it: it tells its story, and leaves nothing behind however it ends.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use lab::{LabError, Programs, wait_for_exit, wait_until};

/// The demo takes seconds; a busy machine makes them many.
const DEMO_DEADLINE: Duration = Duration::from_secs(120);

/// signal(7).
const SIGINT: i32 = 2;
const SIGKILL: i32 = 9;

/// A demo, and the name that everything of it starts with.
struct Demo {
    child: Child,
    lab: String,
}

impl Demo {
    fn start(programs: &Path, arguments: &[&str]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .arg("demo")
            .args(arguments)
            .env("MESH_PROGRAMS", programs)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // As a shell does for what is typed at a terminal, so that Ctrl-C hits it alone.
            .process_group(0)
            .spawn()
            .expect("xtask is built beside this test");
        // A process has made no other lab before its first.
        let lab = format!("mesh-{}-0", child.id());
        Self { child, lab }
    }

    /// What it said to its end, which fits into the pipes.
    fn output(mut self) -> Output {
        let ended = wait_for_exit(&mut self.child, DEMO_DEADLINE);
        let has_ended = matches!(ended, Ok(Some(_)));
        if !has_ended {
            // The guardian removes what it made.
            let _ = self.child.kill();
        }
        let output = self.child.wait_with_output();
        let output = output.expect("nobody else waits for it");
        assert!(
            has_ended,
            "the demo did not end within {DEMO_DEADLINE:?}: {output:?}"
        );
        output
    }

    fn directory(&self) -> PathBuf {
        Path::new("/run/mesh-lab").join(&self.lab)
    }

    /// Waits until alpha's machine is there: in the middle of the story.
    fn wait_for_the_middle(&self) -> Result<(), LabError> {
        let alpha = Path::new("/run/netns").join(format!("{}-alpha", self.lab));
        wait_until("the story is in its middle", DEMO_DEADLINE, || {
            Ok(alpha.exists().then_some(()))
        })
    }

    /// Sends a signal to the demo and all that it has in its foreground.
    fn signal(&self, signal: i32) {
        let group = format!("-{}", self.child.id());
        let kill = ["-s", &signal.to_string(), "--", &group];
        let sent = Command::new("kill").args(kill).status();
        assert!(sent.is_ok_and(|status| status.success()));
    }
}

fn traces(lab: &str) -> Vec<String> {
    let prefix = format!("{lab}-");
    let namespaces = fs::read_dir("/run/netns").into_iter().flatten();
    let namespaces = namespaces.filter_map(|it| it.ok()?.file_name().into_string().ok());
    let mut traces: Vec<String> = namespaces.filter(|it| it.starts_with(&prefix)).collect();
    let directory = Path::new("/run/mesh-lab").join(lab);
    traces.extend(directory.exists().then(|| directory.display().to_string()));
    traces
}

fn wait_for_nothing_left(lab: &str) -> Result<(), LabError> {
    wait_until("everything of the demo is gone", DEMO_DEADLINE, || {
        Ok(traces(lab).is_empty().then_some(()))
    })
}

/// Where the programs were built: beside xtask.
fn built_programs() -> PathBuf {
    let xtask = Path::new(env!("CARGO_BIN_EXE_xtask"));
    xtask
        .parent()
        .expect("a program is in a directory")
        .to_path_buf()
}

#[test]
fn the_story_is_told_to_its_end_and_leaves_nothing() {
    let demo = Demo::start(&built_programs(), &[]);
    let lab = demo.lab.clone();
    let output = demo.output();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for part in [
        "alpha is a member of fleet demo",
        "no rule allows it",
        "version 2 in force on 2 of 2 hosts",
        "hello from beta",
        "denied by rule no-telnet",
        "autonomous: no coordinator reachable",
        "to the first allowed connection",
        "to enforced",
        "./demo --keep",
    ] {
        assert!(said.contains(part), "{part:?} is not in the story:\n{said}");
    }
    assert!(
        !said.contains('\u{1b}'),
        "no colours where there is no terminal"
    );
    assert_eq!(traces(&lab), Vec::<String>::new());
}

#[test]
fn a_story_that_fails_says_why_and_leaves_nothing() {
    // Everything works but the operator's tool.
    let programs = tempfile::tempdir().unwrap();
    let built = built_programs();
    for program in ["meshd", "mesh-coordinator"] {
        symlink(built.join(program), programs.path().join(program)).unwrap();
    }
    symlink("/bin/false", programs.path().join("meshctl")).unwrap();
    let demo = Demo::start(programs.path(), &[]);
    let lab = demo.lab.clone();
    let output = demo.output();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("`meshctl status` failed"), "{said}");
    assert!(
        said.contains("mesh-coordinator is ready"),
        "the logs are shown: {said}"
    );
    assert_eq!(traces(&lab), Vec::<String>::new());
}

#[test]
fn ctrl_c_leaves_nothing() -> Result<(), LabError> {
    let demo = Demo::start(&built_programs(), &[]);
    demo.wait_for_the_middle()?;
    demo.signal(SIGINT);
    let lab = demo.lab.clone();
    assert_eq!(demo.output().status.signal(), Some(SIGINT));
    wait_for_nothing_left(&lab)
}

#[test]
fn a_crash_of_the_demo_leaves_nothing() -> Result<(), LabError> {
    let demo = Demo::start(&built_programs(), &[]);
    demo.wait_for_the_middle()?;
    demo.signal(SIGKILL);
    let lab = demo.lab.clone();
    assert_eq!(demo.output().status.signal(), Some(SIGKILL));
    wait_for_nothing_left(&lab)
}

#[test]
fn a_kept_fleet_can_be_talked_to_until_it_is_removed() -> Result<(), LabError> {
    assert!(!Programs::are_named(), "this test names them itself");
    let demo = Demo::start(&built_programs(), &["--keep"]);
    let (lab, directory) = (demo.lab.clone(), demo.directory());
    let output = demo.output();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    let run = |machine: &str, command: &[&str]| {
        let script = directory.join(format!("on-{machine}"));
        assert!(said.contains(&script.display().to_string()), "{said}");
        let ran = Command::new(script).args(command).output().unwrap();
        String::from_utf8_lossy(&ran.stdout).into_owned()
    };
    assert!(run("coordinator", &["meshctl", "hosts", "list"]).contains("beta"));
    assert!(run("alpha", &["meshctl", "peers"]).contains("beta"));
    let page = run(
        "alpha",
        &["curl", "-sS", "-m5", "http://beta.mesh.internal:8080/"],
    );
    assert_eq!(page, "hello from beta\n");
    lab::remove_lab(&lab)?;
    assert_eq!(traces(&lab), Vec::<String>::new());
    Ok(())
}
