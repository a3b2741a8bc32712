//! How the story is told: what happens, the command that does it, and what it really answers.

use std::time::Instant;

use lab::fleet::Host;
use lab::{LabError, Launch, Ran};

use super::story::Stage;

/// Prints the story, and knows how long it has been going on.
pub(super) struct Narrator {
    started: Instant,
}

impl Narrator {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
        }
    }

    /// Says what comes next.
    pub(super) fn say(&self, text: &str) {
        let seconds = self.started.elapsed().as_secs_f64();
        println!("\n[{seconds:5.1} s] {text}");
    }

    /// Runs a command that must succeed, showing it as if typed on that machine.
    pub(super) fn show(&self, machine: &str, launch: Launch) -> Result<Ran, LabError> {
        self.try_out(machine, launch)?.success()
    }

    /// Runs a command whose failure may be the point.
    pub(super) fn try_out(&self, machine: &str, launch: Launch) -> Result<Ran, LabError> {
        println!("  {machine}$ {launch}");
        let ran = launch.run()?;
        for line in ran.stdout.lines().chain(ran.stderr.lines()) {
            println!("    {line}");
        }
        if let Some(code) = ran.code().filter(|code| *code != 0) {
            println!("    (exit code {code})");
        }
        Ok(ran)
    }

    /// Ends a story whose fleet is gone.
    pub(super) fn close(&self) {
        self.say("Everything is removed again. Next: `./demo --keep` leaves the fleet running.");
    }

    /// Ends a story whose fleet stays.
    pub(super) fn hand_over(&self, stage: &Stage) {
        self.say("The fleet keeps running. Talk to it:");
        println!("  # the operator, on the coordinator's machine");
        println!("  {}", stage.operator_command());
        for host in &stage.hosts {
            println!("  # {}", host.namespace().name());
            println!("  {}", host_command(host));
        }
        println!("Remove it with `./demo --remove`.");
    }
}

fn host_command(host: &Host) -> String {
    let launch = host.meshctl(&["status"]);
    launch.as_typed_outside()
}
