//! A coordinator and hosts: the built programs, each in a namespace of its own.
//!
//! They are driven as operators drive them, by `meshctl`; what it prints is what tests look at.

mod clock;
mod coordinator;
mod host;

use std::env;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use clock::Clock;
pub use coordinator::Coordinator;
pub use host::Host;

use crate::error::LabError;
use crate::lab::Lab;
use crate::launch::{Launch, Ran};
use crate::network::Network;
use crate::programs::Programs;
use crate::wait::wait_until;

/// How long a program may take until it says that it is ready, or until it has stopped.
pub const PROGRAM_DEADLINE: Duration = Duration::from_secs(30);
/// How long a change may take until it is seen everywhere.
pub const CHANGE_DEADLINE: Duration = Duration::from_secs(30);

/// A coordinator that runs, and the network that hosts are attached to.
#[derive(Debug)]
pub struct Fleet {
    /// The control program and its operator.
    pub coordinator: Coordinator,
    /// The network between all of them, which carries tunnels and control.
    pub underlay: Network,
    programs: Programs,
    lab: Lab,
}

impl Fleet {
    /// Makes a network and starts a coordinator on it, for a new fleet of that name.
    ///
    /// # Errors
    ///
    /// When the programs are not built, or the coordinator does not become ready.
    pub fn start(lab: &Lab, name: &str) -> Result<Self, LabError> {
        let programs = Programs::find()?;
        let underlay = lab.underlay()?;
        let coordinator = Coordinator::start(lab, &underlay, &programs, name)?;
        Ok(Self {
            coordinator,
            underlay,
            programs,
            lab: lab.clone(),
        })
    }

    /// Starts a daemon on a new machine; it waits for [`Host::join`].
    ///
    /// # Errors
    ///
    /// When there is such a machine, or the daemon does not become ready.
    pub fn machine(&self, name: &str) -> Result<Host, LabError> {
        self.machine_with(name, &[])
    }

    /// Starts a daemon on a new machine with more arguments, such as `--mtu 1300`.
    ///
    /// # Errors
    ///
    /// As [`Fleet::machine`].
    pub fn machine_with(&self, name: &str, arguments: &[&str]) -> Result<Host, LabError> {
        let mut host = Host::create(&self.lab, &self.underlay, &self.programs, name, arguments)?;
        host.start()?;
        Ok(host)
    }

    /// Makes a token and a machine that has joined with it.
    ///
    /// # Errors
    ///
    /// When any step of it fails.
    pub fn member(&self, name: &str, labels: &[&str]) -> Result<Host, LabError> {
        let token = self.coordinator.create_token(labels)?;
        let host = self.machine(name)?;
        host.join(&token)?;
        Ok(host)
    }
}

/// A fleet of two hosts under the policy of a new fleet: ping from any to any.
#[derive(Debug)]
pub struct Pair {
    /// The hosts' fleet.
    pub fleet: Fleet,
    /// Has the label `role=web`.
    pub alpha: Host,
    /// Has the label `role=db`.
    pub beta: Host,
}

impl Pair {
    /// Starts a coordinator and two hosts, which have joined and know each other when this returns.
    ///
    /// # Errors
    ///
    /// When any step of it fails.
    pub fn start(lab: &Lab) -> Result<Self, LabError> {
        let fleet = Fleet::start(lab, "test")?;
        let alpha = fleet.member("alpha", &["role=web"])?;
        let beta = fleet.member("beta", &["role=db"])?;
        wait_until("alpha knows beta", CHANGE_DEADLINE, || {
            let peers = alpha.ask(&["peers"])?;
            Ok((peers[0]["name"] == "beta").then_some(()))
        })?;
        Ok(Self { fleet, alpha, beta })
    }
}

/// Lets a shell find the programs as people type them.
fn with_programs_in_path(shell: Launch, programs: &Programs) -> Launch {
    let own = programs.meshctl.parent().map(Path::to_path_buf);
    let path = env::var_os("PATH").unwrap_or_default();
    let all = own.into_iter().chain(env::split_paths(&path));
    match env::join_paths(all) {
        Ok(path) => shell.env("PATH", path),
        // A directory with a colon in its name cannot be in a PATH.
        Err(_) => shell,
    }
}

/// The schema of `meshctl --json` that the lab can read.
const SCHEMA_VERSION: u64 = 1;

/// What `meshctl --json` answers: the `data` of its envelope.
fn answer(meshctl: Launch) -> Result<Value, LabError> {
    let ran = meshctl.arg("--json").run()?;
    let mut envelope = Ran::json(ran)?;
    if envelope["version"] != SCHEMA_VERSION {
        return Err(LabError::new(format!(
            "the schema of {envelope} is not {SCHEMA_VERSION}"
        )));
    }
    Ok(envelope["data"].take())
}
