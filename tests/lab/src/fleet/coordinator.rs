//! The coordinator of a fleet in the lab, and its operator, who uses the admin socket.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use serde_json::Value;

use super::{Clock, PROGRAM_DEADLINE, answer, with_programs_in_path};
use crate::error::{Doing, LabError};
use crate::lab::Lab;
use crate::launch::{Launch, Ran};
use crate::namespace::Namespace;
use crate::network::{Attachment, Network};
use crate::process::Process;
use crate::programs::Programs;

const NAME: &str = "coordinator";
const PORT: u16 = 7443;

/// A coordinator; it can be killed and started again on the same state.
#[derive(Debug)]
pub struct Coordinator {
    namespace: Namespace,
    attachment: Attachment,
    programs: Programs,
    fleet: String,
    directory: PathBuf,
    clock: Clock,
    process: Option<Process>,
}

impl Coordinator {
    pub(super) fn start(
        lab: &Lab,
        underlay: &Network,
        programs: &Programs,
        fleet: &str,
    ) -> Result<Self, LabError> {
        let namespace = lab.namespace(NAME)?;
        let attachment = underlay.attach(&namespace, "eth0")?;
        let directory = lab.directory().join(NAME);
        fs::create_dir(&directory).doing(format_args!("create {}", directory.display()))?;
        let mut coordinator = Self {
            namespace,
            attachment,
            programs: programs.clone(),
            fleet: fleet.to_owned(),
            directory,
            clock: Clock::default(),
            process: None,
        };
        coordinator.restart()?;
        Ok(coordinator)
    }

    /// From its next start on, the program's clock differs from the machine's by so many days.
    pub fn set_clock_days(&mut self, days: i32) {
        self.clock = Clock::off_by_days(days);
    }

    /// Starts the program on the state it had, after killing the one that runs, and waits until
    /// it is ready.
    ///
    /// # Errors
    ///
    /// When it ends or is not ready in time.
    pub fn restart(&mut self) -> Result<(), LabError> {
        self.kill();
        let mut process = self.daemon().spawn(NAME)?;
        process.wait_ready(PROGRAM_DEADLINE)?;
        self.process = Some(process);
        Ok(())
    }

    /// The program's command line, for tests that start it in another way.
    pub fn daemon(&self) -> Launch {
        let launch = self
            .namespace
            .launch(&self.programs.coordinator)
            .args(["--fleet", &self.fleet])
            .arg("--state-dir")
            .arg(self.state_dir())
            .arg("--socket")
            .arg(self.socket())
            .args(["--listen", &format!("0.0.0.0:{PORT}")])
            .args(["--advertise", &format!("{}:{PORT}", self.address())])
            .env("RUST_BACKTRACE", "1");
        self.clock.set_for(launch)
    }

    /// Kills it without a chance to tidy up; nothing happens when it does not run.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// Stops it as systemd would.
    ///
    /// # Errors
    ///
    /// When it does not run, or does not end in time.
    pub fn stop(&mut self) -> Result<ExitStatus, LabError> {
        running(&mut self.process)?.terminate(PROGRAM_DEADLINE)
    }

    /// The program, while it runs.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// Where it can be reached on the underlay.
    pub fn address(&self) -> Ipv4Addr {
        self.attachment.v4
    }

    /// Its place on the underlay.
    pub fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// The machine that it runs on.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// What is its own in the lab: state, socket, policy.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where it keeps its store and its keys.
    pub fn state_dir(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// Its admin socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("coordinator.sock")
    }

    /// `meshctl`, as the operator on the coordinator's machine.
    pub fn meshctl(&self, arguments: &[&str]) -> Launch {
        self.namespace
            .launch(&self.programs.meshctl)
            .env("MESH_COORDINATOR_SOCKET", self.socket())
            .args(arguments)
    }

    /// A shell on the coordinator's machine, whose `meshctl` talks to the coordinator.
    pub fn shell(&self) -> Launch {
        let shell = with_programs_in_path(self.namespace.launch("bash"), &self.programs);
        shell.env("MESH_COORDINATOR_SOCKET", self.socket())
    }

    /// What `meshctl --json` answers the operator.
    ///
    /// # Errors
    ///
    /// When it fails, or prints no JSON.
    pub fn ask(&self, arguments: &[&str]) -> Result<Value, LabError> {
        answer(self.meshctl(arguments))
    }

    /// Makes a join token for any number of hosts, which get these labels.
    ///
    /// # Errors
    ///
    /// When the coordinator refuses.
    pub fn create_token(&self, labels: &[&str]) -> Result<String, LabError> {
        let mut options = vec!["--unlimited"];
        for label in labels {
            options.extend(["--label", label]);
        }
        self.create_token_with(&options)
    }

    /// Makes a join token with the options of `meshctl tokens create`.
    ///
    /// # Errors
    ///
    /// When the coordinator refuses.
    pub fn create_token_with(&self, options: &[&str]) -> Result<String, LabError> {
        let answer = self.ask(&[&["tokens", "create"], options].concat())?;
        let token = answer["token"].as_str().map(str::to_owned);
        token.ok_or_else(|| LabError::new(format!("no token in {answer}")))
    }

    /// Applies the policy in a directory and waits until the hosts that are online enforce it; the
    /// outcome may be a refusal.
    ///
    /// # Errors
    ///
    /// When `meshctl` cannot be run.
    pub fn apply_policy(&self, directory: &Path) -> Result<Ran, LabError> {
        let directory = directory.to_string_lossy();
        self.meshctl(&["policy", "apply", &directory]).run()
    }

    /// Writes a bundle of one file, in place of an earlier one, and gives its directory.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write_policy(&self, text: &str) -> Result<PathBuf, LabError> {
        let directory = self.directory.join("policy");
        fs::create_dir_all(&directory).doing("create a directory for the policy")?;
        fs::write(directory.join("policy.yaml"), text).doing("write the policy")?;
        Ok(directory)
    }

    /// Writes a bundle of one file and applies it; it must be accepted.
    ///
    /// # Errors
    ///
    /// When it is refused, with what `meshctl` said.
    pub fn apply_policy_text(&self, text: &str) -> Result<Ran, LabError> {
        self.apply_policy(&self.write_policy(text)?)?.success()
    }
}

/// Takes the process out of where it is kept, to end it.
pub(super) fn running(process: &mut Option<Process>) -> Result<Process, LabError> {
    process
        .take()
        .ok_or_else(|| LabError::new("cannot stop a program that does not run"))
}
