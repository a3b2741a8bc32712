//! One machine of a fleet in the lab: a namespace, its `meshd`, and its administrator.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::coordinator::running;
use super::{CHANGE_DEADLINE, Clock, PROGRAM_DEADLINE, answer, with_programs_in_path};
use crate::error::{Doing, LabError};
use crate::lab::Lab;
use crate::launch::{Launch, Ran};
use crate::namespace::Namespace;
use crate::network::{Attachment, Network};
use crate::process::Process;
use crate::programs::Programs;
use crate::wait::wait_until;

const DNS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);
const DNS_SUFFIX: &str = "mesh.internal";

/// A machine with a daemon, which can be killed and started again on the same state.
#[derive(Debug)]
pub struct Host {
    namespace: Namespace,
    attachment: Attachment,
    programs: Programs,
    directory: PathBuf,
    arguments: Vec<String>,
    preparation: Option<String>,
    clock: Clock,
    process: Option<Process>,
}

impl Host {
    pub(super) fn create(
        lab: &Lab,
        underlay: &Network,
        programs: &Programs,
        name: &str,
        arguments: &[&str],
    ) -> Result<Self, LabError> {
        let mut namespace = lab.namespace(name)?;
        let attachment = underlay.attach(&namespace, "eth0")?;
        namespace.set_resolver(DNS.into(), DNS_SUFFIX)?;
        // Machines that are no clones of each other differ in this.
        namespace.set_machine_id(attachment.v4.to_bits().into())?;
        let directory = lab.directory().join(name);
        fs::create_dir(&directory).doing(format_args!("create {}", directory.display()))?;
        Ok(Self {
            namespace,
            attachment,
            programs: programs.clone(),
            directory,
            arguments: arguments
                .iter()
                .map(|argument| (*argument).to_owned())
                .collect(),
            preparation: None,
            clock: Clock::default(),
            process: None,
        })
    }

    /// From its next start on, the machine has the id of another one, as a clone of its whole disk
    /// has until somebody changes it.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn take_machine_id_of(&mut self, other: &Self) -> Result<(), LabError> {
        let id = other.attachment.v4.to_bits();
        self.namespace.set_machine_id(id.into())
    }

    /// From its next start on, a shell script runs before the daemon, and what it mounts is seen by
    /// the daemon alone.
    pub fn set_preparation(&mut self, script: impl Into<String>) {
        self.preparation = Some(script.into());
    }

    /// From its next start on, the daemon's clock differs from the machine's by so many days.
    pub fn set_clock_days(&mut self, days: i32) {
        self.clock = Clock::off_by_days(days);
    }

    /// Starts the daemon on the state it had, after killing the one that runs, and waits until it
    /// is ready.
    ///
    /// # Errors
    ///
    /// When it ends or is not ready in time.
    pub fn start(&mut self) -> Result<(), LabError> {
        self.kill();
        let mut process = self.daemon().spawn(self.namespace.name())?;
        process.wait_ready(PROGRAM_DEADLINE)?;
        self.process = Some(process);
        Ok(())
    }

    /// The daemon's command line, for tests that start it in another way.
    pub fn daemon(&self) -> Launch {
        let launch = self
            .namespace
            .launch(&self.programs.meshd)
            .arg("--state-dir")
            .arg(self.state_dir())
            .arg("--socket")
            .arg(self.socket())
            .args(["--dns-listen", &format!("{DNS}:53")])
            .args(&self.arguments)
            .env("RUST_BACKTRACE", "1");
        let launch = self.clock.set_for(launch);
        match &self.preparation {
            Some(script) => launch.prepared_by(script),
            None => launch,
        }
    }

    /// Kills the daemon without a chance to tidy up, and whomever it handed over to; nothing happens
    /// when it does not run.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
        for process in self.daemons().unwrap_or_default() {
            let process = i32::try_from(process).ok().and_then(Pid::from_raw);
            // One that has ended meanwhile is what is wanted.
            let _ = process.map(|process| kill_process(process, Signal::KILL));
        }
    }

    /// The processes of daemons on this machine: one, or two while one hands over to the other.
    ///
    /// # Errors
    ///
    /// When they cannot be listed.
    pub fn daemons(&self) -> Result<Vec<u32>, LabError> {
        let mut list = Command::new("ip");
        list.args(["netns", "pids", &self.namespace.full_name()]);
        let output = list.output().doing("list the processes of a machine")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let all = text.lines().filter_map(|line| line.trim().parse().ok());
        let is_daemon = |process: &u32| {
            let name = fs::read_to_string(format!("/proc/{process}/comm"));
            name.is_ok_and(|name| name.trim_end() == "meshd")
        };
        Ok(all.filter(is_daemon).collect())
    }

    /// From its next start on, the daemon is a program of this machine's own, which can be replaced:
    /// returns where it is.
    ///
    /// # Errors
    ///
    /// When it cannot be copied.
    pub fn install_own_program(&mut self) -> Result<PathBuf, LabError> {
        let path = self.directory.join("meshd");
        let copied = fs::hard_link(&self.programs.meshd, &path)
            .or_else(|_| fs::copy(&self.programs.meshd, &path).map(drop));
        copied.doing(format_args!("install {}", path.display()))?;
        self.programs.meshd.clone_from(&path);
        Ok(path)
    }

    /// Stops the daemon as systemd would.
    ///
    /// # Errors
    ///
    /// When it does not run, or does not end in time.
    pub fn stop(&mut self) -> Result<ExitStatus, LabError> {
        running(&mut self.process)?.terminate(PROGRAM_DEADLINE)
    }

    /// The daemon, while it runs.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// The machine.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The machine's name, which is its name in the fleet too.
    pub fn name(&self) -> &str {
        self.namespace.name()
    }

    /// What the daemon that runs has logged so far.
    ///
    /// # Errors
    ///
    /// When it does not run, or its log cannot be read.
    pub fn log(&self) -> Result<String, LabError> {
        let process = self.process.as_ref();
        process.ok_or_else(|| self.not_running())?.stderr()
    }

    /// Waits until the daemon that runs logs a line with `text`, and gives that line.
    ///
    /// # Errors
    ///
    /// When it ends first, or logs nothing of the kind in time.
    pub fn wait_log(&mut self, text: &str) -> Result<String, LabError> {
        let missing = self.not_running();
        let process = self.process.as_mut();
        process.ok_or(missing)?.wait_for_line(text, CHANGE_DEADLINE)
    }

    fn not_running(&self) -> LabError {
        LabError::new(format!("no daemon runs on {}", self.name()))
    }

    /// Its place on the underlay.
    pub fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// Where the daemon keeps its keys and what it knows.
    pub fn state_dir(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// The daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("meshd.sock")
    }

    /// `meshctl`, as the administrator of this machine.
    pub fn meshctl(&self, arguments: &[&str]) -> Launch {
        self.namespace
            .launch(&self.programs.meshctl)
            .env("MESHD_SOCKET", self.socket())
            .args(arguments)
    }

    /// A shell on this machine: names resolve, and `meshctl` talks to its daemon.
    pub fn shell(&self) -> Launch {
        let shell = with_programs_in_path(self.namespace.launch("bash"), &self.programs);
        shell.env("MESHD_SOCKET", self.socket())
    }

    /// What `meshctl --json` answers here.
    ///
    /// # Errors
    ///
    /// When it fails, or prints no JSON.
    pub fn ask(&self, arguments: &[&str]) -> Result<Value, LabError> {
        answer(self.meshctl(arguments))
    }

    /// Joins a fleet under the machine's own name.
    ///
    /// # Errors
    ///
    /// When the join is refused, with what `meshctl` said.
    pub fn join(&self, token: &str) -> Result<Ran, LabError> {
        self.try_join(token, self.name())?.success()
    }

    /// Asks for a membership under any name; it may be refused.
    ///
    /// # Errors
    ///
    /// When `meshctl` cannot be run.
    pub fn try_join(&self, token: &str, name: &str) -> Result<Ran, LabError> {
        // By standard input, so that no other user of the machine sees the token.
        self.meshctl(&["join", "--token-file", "-", "--name", name])
            .input(format!("{token}\n"))
            .run()
    }

    /// What the daemon is doing: `unenrolled joining online autonomous removed`.
    ///
    /// # Errors
    ///
    /// When the daemon does not answer.
    pub fn state(&self) -> Result<String, LabError> {
        let status = self.ask(&["status"])?;
        let state = status["daemon"]["state"].as_str().map(str::to_owned);
        state.ok_or_else(|| LabError::new(format!("no state in {status}")))
    }

    /// Waits until the daemon says that it is in this state.
    ///
    /// # Errors
    ///
    /// When it does not in time.
    pub fn wait_state(&self, state: &str) -> Result<(), LabError> {
        let what = format!("{} is {state}", self.namespace.name());
        wait_until(&what, CHANGE_DEADLINE, || {
            Ok((self.state()? == state).then_some(()))
        })
    }

    /// The host's own overlay addresses.
    ///
    /// # Errors
    ///
    /// When the host is no member of a fleet.
    pub fn overlay_addresses(&self) -> Result<(Ipv4Addr, Ipv6Addr), LabError> {
        let status = self.ask(&["status"])?;
        let addresses: Vec<IpAddr> = status["daemon"]["detail"]["addresses"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|address| address.as_str()?.parse().ok())
            .collect();
        let v4 = addresses.iter().find_map(|address| match address {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        });
        let v6 = addresses.iter().find_map(|address| match address {
            IpAddr::V6(v6) => Some(*v6),
            IpAddr::V4(_) => None,
        });
        v4.zip(v6).ok_or_else(|| {
            LabError::new(format!(
                "{} has no overlay addresses: {status}",
                self.namespace.name()
            ))
        })
    }

    /// Whether one echo comes back from a name or an address.
    ///
    /// # Errors
    ///
    /// When `ping` cannot be run.
    pub fn reaches(&self, target: &str) -> Result<bool, LabError> {
        self.pings(target, "-W2")
    }

    fn pings(&self, target: &str, patience: &str) -> Result<bool, LabError> {
        let ping = self
            .namespace
            .launch("ping")
            .args(["-c1", patience, target]);
        Ok(ping.run()?.status.success())
    }

    /// Waits until an echo comes back from a name or an address.
    ///
    /// # Errors
    ///
    /// When none comes in time.
    pub fn wait_reaches(&self, target: &str) -> Result<(), LabError> {
        let what = format!("{} reaches {target}", self.namespace.name());
        wait_until(&what, CHANGE_DEADLINE, || {
            // Not long: the first may be lost to a tunnel that is only being made.
            Ok(self.pings(target, "-W0.5")?.then_some(()))
        })
    }
}
