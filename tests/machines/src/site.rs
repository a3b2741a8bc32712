//! A coordinator and hosts on machines of their own, installed from the packages and driven as
//! operators drive them.

use std::net::Ipv4Addr;
use std::time::Duration;

use lab::{Lab, LabError, Network, wait_until};
use serde_json::Value;

use crate::machine::{Machine, MachinePlan};
use crate::packages::Packages;

/// How long a change may take until it is seen everywhere.
const CHANGE_DEADLINE: Duration = Duration::from_secs(30);

/// A coordinator's machine, and the network that other machines are attached to.
#[derive(Debug)]
pub struct Site {
    /// Where `mesh-coordinator` is installed and runs.
    pub coordinator: Machine,
    /// The cables between all machines.
    pub network: Network,
    packages: Packages,
    lab: Lab,
}

/// A machine with `meshd` that has joined.
#[derive(Debug)]
pub struct Member {
    /// The machine.
    pub machine: Machine,
    /// Its overlay address.
    pub overlay_v4: Ipv4Addr,
}

impl Site {
    /// Boots the coordinator's machine, and installs the coordinator, which founds a fleet.
    ///
    /// # Errors
    ///
    /// The packages were not made, or any step of it fails.
    pub fn start(lab: &Lab) -> Result<Self, LabError> {
        Self::start_with(lab, Packages::find()?)
    }

    /// As [`Site::start`], with these packages.
    ///
    /// # Errors
    ///
    /// Any step of it fails.
    pub fn start_with(lab: &Lab, packages: Packages) -> Result<Self, LabError> {
        let network = lab.underlay()?;
        let coordinator = Machine::boot(lab, &network, "coordinator")?;
        coordinator.install(&packages.coordinator)?;
        // The operator's tool comes with the daemon; installed beside it, it is nobody's member.
        coordinator.install(&packages.meshd)?;
        coordinator.wait_for(
            "the coordinator answers",
            CHANGE_DEADLINE,
            "meshctl tokens list",
        )?;
        Ok(Self {
            coordinator,
            network,
            packages,
            lab: lab.clone(),
        })
    }

    /// The packages that the machines have.
    pub fn packages(&self) -> &Packages {
        &self.packages
    }

    /// Plans one more machine on the network, to be changed before it boots.
    ///
    /// # Errors
    ///
    /// As [`MachinePlan::new`].
    pub fn plan(&self, name: &str) -> Result<MachinePlan, LabError> {
        MachinePlan::new(&self.lab, &self.network, name)
    }

    /// Makes a join token for any number of hosts.
    ///
    /// # Errors
    ///
    /// The coordinator refuses.
    pub fn token(&self) -> Result<String, LabError> {
        self.token_with("--unlimited")
    }

    /// Makes a join token with options of `meshctl tokens create`.
    ///
    /// # Errors
    ///
    /// The coordinator refuses.
    pub fn token_with(&self, options: &str) -> Result<String, LabError> {
        let answer = ask(&self.coordinator, &format!("tokens create {options}"))?;
        let token = answer["token"].as_str().map(str::to_owned);
        token.ok_or_else(|| LabError::new(format!("no token in {answer}")))
    }

    /// Boots a machine, installs `meshd` on it, and lets it join.
    ///
    /// # Errors
    ///
    /// Any step of it fails.
    pub fn member(&self, name: &str) -> Result<Member, LabError> {
        let machine = self.plan(name)?.boot()?;
        machine.install(&self.packages.meshd)?;
        machine.run(&format!("meshctl join {}", self.token()?))?;
        Member::of(machine)
    }
}

impl Member {
    /// Takes a machine that has joined, and waits until it knows its address.
    ///
    /// # Errors
    ///
    /// It knows none in time.
    pub fn of(machine: Machine) -> Result<Self, LabError> {
        let what = format!("{} knows its addresses", machine.name());
        let overlay_v4 = wait_until(&what, CHANGE_DEADLINE, || {
            let status = ask(&machine, "status")?;
            let addresses = status["daemon"]["detail"]["addresses"].as_array();
            let mut addresses = addresses.into_iter().flatten().filter_map(Value::as_str);
            Ok(addresses.find_map(|address| address.parse().ok()))
        })?;
        Ok(Self {
            machine,
            overlay_v4,
        })
    }

    /// Waits until a ping through the overlay is answered.
    ///
    /// # Errors
    ///
    /// None is answered in time.
    pub fn wait_reaches(&self, other: &Self) -> Result<(), LabError> {
        let what = format!("{} reaches {}", self.machine.name(), other.machine.name());
        let ping = format!("ping -c 1 -W 1 {}", other.overlay_v4);
        let waited = self.machine.wait_for(&what, CHANGE_DEADLINE, &ping);
        waited.map_err(|error| {
            let known = [self, other].map(Self::what_it_knows);
            LabError::new(format!("{error}\n{}", known.join("\n")))
        })
    }

    /// What its daemon says of its peers and of lost packets, for an error.
    fn what_it_knows(&self) -> String {
        let asked = "meshctl peers; meshctl metrics | grep -E '^meshd_.*(drop|handshake).* [1-9]'";
        let name = self.machine.name();
        match self.machine.try_run(asked) {
            Ok(ran) => format!("{name}: {}{}", ran.stdout, ran.stderr),
            Err(error) => format!("{name}: {error}"),
        }
    }

    /// What `meshctl --json` answers on this machine.
    ///
    /// # Errors
    ///
    /// It fails, or prints no JSON.
    pub fn ask(&self, arguments: &str) -> Result<Value, LabError> {
        ask(&self.machine, arguments)
    }
}

fn ask(machine: &Machine, arguments: &str) -> Result<Value, LabError> {
    let text = machine.run(&format!("meshctl --json {arguments}"))?;
    let answer: Value = serde_json::from_str(&text)
        .map_err(|error| LabError::new(format!("no JSON ({error}): {text}")))?;
    Ok(answer["data"].clone())
}
