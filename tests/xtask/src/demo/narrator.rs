//! How the story is told: what happens, the command that does it, and what it really answers.

use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

use lab::{LabError, Launch, Ran};

/// Prints the story, and knows how long it has been going on.
pub(super) struct Narrator {
    started: Instant,
    color: bool,
}

/// Colours of a terminal, as the numbers of ECMA-48 8.3.117.
#[derive(Clone, Copy)]
enum Style {
    Heading = 1,
    Faint = 2,
    Prompt = 36,
    Failure = 31,
}

impl Narrator {
    pub(super) fn new() -> Self {
        let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            started: Instant::now(),
            color: std::io::stdout().is_terminal() && !is_unwanted,
        }
    }

    /// How long the story has been going on.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Says what comes next.
    pub(super) fn say(&self, text: &str) {
        let time = format!("[{:4.1} s]", self.elapsed().as_secs_f64());
        let (time, text) = (
            self.paint(Style::Faint, &time),
            self.paint(Style::Heading, text),
        );
        println!("\n{time} {text}");
    }

    /// Shows the text of a file.
    pub(super) fn show_file(&self, text: &str) {
        for line in text.lines() {
            println!("    {}", self.paint(Style::Faint, line));
        }
    }

    /// Runs a command that must succeed, showing it as if typed on that machine.
    pub(super) fn show(&self, machine: &str, launch: Launch) -> Result<Ran, LabError> {
        self.run(machine, launch)?.success()
    }

    /// Runs a command that must end with this exit code, because its failure is the point.
    pub(super) fn show_failing(
        &self,
        machine: &str,
        launch: Launch,
        code: i32,
    ) -> Result<Ran, LabError> {
        let ran = self.run(machine, launch)?;
        if ran.code() == Some(code) {
            return Ok(ran);
        }
        Err(LabError::new(format!(
            "`{}` ended with {} instead of exit code {code}",
            ran.command, ran.status
        )))
    }

    fn run(&self, machine: &str, launch: Launch) -> Result<Ran, LabError> {
        let prompt = self.paint(Style::Prompt, &format!("{machine}$"));
        println!("  {prompt} {launch}");
        let launch = match self.color {
            true => launch.env("CLICOLOR_FORCE", "1"),
            false => launch,
        };
        let ran = launch.run()?;
        for line in ran.stdout.lines().chain(ran.stderr.lines()) {
            println!("    {line}");
        }
        if let Some(code) = ran.code().filter(|code| *code != 0) {
            let code = self.paint(Style::Failure, &format!("(exit code {code})"));
            println!("    {code}");
        }
        Ok(ran)
    }

    /// Tells what was measured, one line each.
    pub(super) fn measured(&self, lines: &[(&str, String)]) {
        self.say("Measured on the way:");
        for (what, figure) in lines {
            println!("  {what:<46} {figure}");
        }
    }

    /// Ends a story whose fleet is gone.
    pub(super) fn close(&self) {
        self.say("Everything is removed again. What to try next:");
        self.list(&[
            (
                "./demo --keep",
                "leaves the fleet running, for you to play with",
            ),
            ("README.md", "how to run it on machines of your own"),
            ("docs/ARCHITECTURE.md", "how it works"),
        ]);
    }

    /// Ends a story whose fleet stays: each machine can be entered by a script.
    pub(super) fn hand_over(&self, directory: &Path) {
        self.say("The fleet keeps running. What to try next:");
        let on = |machine: &str, command: &str| {
            format!("{}/on-{machine} {command}", directory.display())
        };
        self.list(&[
            (&on("coordinator", "meshctl hosts list"), ""),
            (&on("coordinator", "meshctl policy history"), ""),
            (
                &on("coordinator", "meshctl policy rollback 1"),
                "and fetch the page again",
            ),
            (&on("alpha", "curl http://beta.mesh.internal:8080/"), ""),
            (&on("alpha", "meshctl peers"), ""),
            (&on("beta", ""), "a shell on beta"),
            ("./demo --remove", "ends it"),
        ]);
    }

    fn list(&self, lines: &[(&str, &str)]) {
        let width = lines.iter().map(|(command, _)| command.len()).max();
        let width = width.unwrap_or(0);
        for (command, remark) in lines {
            let remark = self.paint(Style::Faint, remark);
            println!("{}", format!("  {command:<width$}  {remark}").trim_end());
        }
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if !self.color || text.is_empty() {
            return text.to_owned();
        }
        format!("\u{1b}[{}m{text}\u{1b}[0m", style as u8)
    }
}
