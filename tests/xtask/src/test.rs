//! `cargo xtask test`: every check of the project, cheapest first, ending at the first that fails.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::cargo::{build_programs, cargo, has_subcommand, passes};
use crate::failure::{Doing, Failure};
use crate::package::{self, Packaging};
use crate::{fuzz, generate, python};

/// How long each fuzz target runs.
const FUZZ_SECONDS: u32 = 60;

/// What was checked so far, and what a reader of the last line must know.
struct Report {
    started: Instant,
    passed: usize,
    remarks: Vec<String>,
}

/// Runs all checks; `long_minutes` adds the tests that are marked `#[ignore = "long: …"]`, and
/// simulates fleets for so long.
pub(crate) fn run(long_minutes: Option<u32>) -> Result<(), Failure> {
    let mut report = Report {
        started: Instant::now(),
        passed: 0,
        remarks: Vec::new(),
    };
    report.step("format", || passes(cargo("fmt --all --check")))?;
    report.step("generated code", generate::check)?;
    report.step("clippy", || {
        passes(cargo(
            "clippy --locked --workspace --all-targets --quiet -- -D warnings",
        ))
    })?;
    report.step("licences, bans, sources", check_dependencies)?;
    if let Some(remark) = report.step("advisories", check_advisories)? {
        report.remarks.push(remark);
    }
    report.step("programs", build_programs)?;
    report.step("packages of Python", python::install_for_lab)?;
    report.step("packages", || {
        package::run(&Packaging::for_tests())?;
        package::run(&Packaging::newer_for_tests())
    })?;
    let runner = Runner::find(long_minutes);
    report.step("tests", || {
        passes(runner.with_minutes(runner.outside_of_namespaces()))
    })?;
    report.step("tests in documentation", || {
        passes(cargo("test --locked --workspace --doc --quiet"))
    })?;
    report.step("tests in network namespaces", || {
        passes(runner.in_namespaces())
    })?;
    if long_minutes.is_some() {
        report.step("fuzz", || fuzz::run(FUZZ_SECONDS, &[]))?;
    } else {
        report
            .remarks
            .push("without the long tests (--long)".to_owned());
    }
    report.finish();
    Ok(())
}

impl Report {
    fn step<T>(
        &mut self,
        name: &str,
        check: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        println!("== {name}");
        let started = Instant::now();
        let outcome = check().map_err(|failure| {
            Failure::new(format!(
                "`{name}` failed after {}: {failure}",
                seconds(started.elapsed())
            ))
        })?;
        println!("== {name}: passed in {}", seconds(started.elapsed()));
        self.passed += 1;
        Ok(outcome)
    }

    fn finish(self) {
        let mut line = format!(
            "All {} checks passed in {}",
            self.passed,
            seconds(self.started.elapsed())
        );
        for remark in self.remarks {
            line = format!("{line}; {remark}");
        }
        println!("{line}.");
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

fn check_dependencies() -> Result<(), Failure> {
    if !has_subcommand("deny") {
        passes(cargo("install --locked --quiet cargo-deny"))?;
    }
    passes(cargo("deny --log-level error check licenses bans sources"))
}

/// Checks for known vulnerabilities; a remark when the database of them is out of reach.
fn check_advisories() -> Result<Option<String>, Failure> {
    let fetched = cargo("deny --log-level off fetch db")
        .output()
        .doing("run cargo deny")?;
    if !fetched.status.success() {
        return Ok(Some(
            "advisories NOT checked, their database at github.com/RustSec cannot be reached"
                .to_owned(),
        ));
    }
    passes(cargo(
        "deny --log-level error check --disable-fetch advisories",
    ))?;
    Ok(None)
}

/// Packages whose tests make machines and networks of their own.
const IN_NAMESPACES: [&str; 4] = ["lab", "interop", "xtask", "machines"];

/// What runs the tests: nextest where it is installed, cargo itself elsewhere.
struct Runner {
    has_nextest: bool,
    long_minutes: Option<u32>,
}

impl Runner {
    fn find(long_minutes: Option<u32>) -> Self {
        Self {
            has_nextest: has_subcommand("nextest"),
            long_minutes,
        }
    }

    fn is_long(&self) -> bool {
        self.long_minutes.is_some()
    }

    /// Says for how long fleets are simulated from fresh seeds.
    fn with_minutes(&self, mut command: Command) -> Command {
        if let Some(minutes) = self.long_minutes {
            command.env("SIM_LONG_SECONDS", (minutes * 60).to_string());
        }
        command
    }

    fn outside_of_namespaces(&self) -> Command {
        if self.has_nextest {
            let theirs = IN_NAMESPACES.map(|package| format!("package({package})"));
            return self.nextest(&format!("not ({})", theirs.join(" + ")));
        }
        let mut command = cargo("test --locked --workspace --lib --bins --tests --no-fail-fast");
        command.args(IN_NAMESPACES.map(|package| format!("--exclude={package}")));
        command
            .arg("--")
            .args(self.is_long().then_some("--include-ignored"));
        command
    }

    /// Few at a time: whole fleets share the machine's cores.
    fn in_namespaces(&self) -> Command {
        if self.has_nextest {
            let theirs = IN_NAMESPACES.map(|package| format!("package({package})"));
            let mut command = self.nextest(&theirs.join(" + "));
            command.arg("--test-threads=2");
            return command;
        }
        let mut command = cargo("test --locked --lib --bins --tests --no-fail-fast");
        command.args(IN_NAMESPACES.map(|package| format!("--package={package}")));
        command
            .args(["--", "--test-threads=1"])
            .args(self.is_long().then_some("--include-ignored"));
        command
    }

    fn nextest(&self, filter: &str) -> Command {
        let mut command = cargo("nextest run --locked --workspace --no-fail-fast");
        command.args(["--filterset", filter]);
        command.args(self.is_long().then_some("--run-ignored=all"));
        command
    }
}
