//! Programs that make a device which `wg` configures.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use lab::LabError;

use crate::device::INTERFACE;
use crate::overlay::{OVERLAY_MTU, WIREGUARD_PORT, addresses, overlay};

/// A userspace implementation of WireGuard, and how it is started.
#[derive(Clone, Debug)]
pub struct Program {
    executable: PathBuf,
    arguments: Vec<OsString>,
    is_ours: bool,
}

impl Program {
    /// Our `mesh-wireguard`, as built at that place.
    pub fn ours(executable: impl Into<PathBuf>) -> Self {
        Self {
            executable: executable.into(),
            arguments: Vec::new(),
            is_ours: true,
        }
    }

    /// Another program with the arguments that keep it in the foreground; it is found by `PATH`
    /// unless the executable is a path.
    pub fn other(executable: impl Into<PathBuf>, arguments: &[&str]) -> Self {
        Self {
            executable: executable.into(),
            arguments: arguments.iter().map(OsString::from).collect(),
            is_ours: false,
        }
    }

    /// Debian's `wireguard-go`.
    pub fn wireguard_go() -> Self {
        Self::other("wireguard-go", &["--foreground"])
    }

    /// Adds an argument.
    #[must_use]
    pub fn with(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Returns the first line that it prints when asked for its version.
    ///
    /// # Errors
    ///
    /// When it cannot be run.
    pub fn version(&self) -> Result<String, LabError> {
        let output = Command::new(&self.executable).arg("--version").output();
        let output = output.map_err(|error| {
            LabError::new(format!("cannot run {}: {error}", self.executable.display()))
        })?;
        let said = String::from_utf8_lossy(&output.stdout);
        Ok(said.lines().next().unwrap_or("no version").to_owned())
    }

    pub(crate) fn executable(&self) -> &PathBuf {
        &self.executable
    }

    /// The arguments for the device with that number.
    pub(crate) fn arguments(&self, number: u8) -> Vec<OsString> {
        let mut all = self.arguments.clone();
        if self.is_ours {
            let (own, prefixes) = (addresses(number), overlay());
            all.extend(
                [
                    format!("--address-v4={}", own.v4),
                    format!("--address-v6={}", own.v6),
                    format!("--overlay-v4={}", prefixes.v4),
                    format!("--overlay-v6={}", prefixes.v6),
                    format!("--listen-port={WIREGUARD_PORT}"),
                    format!("--mtu={OVERLAY_MTU}"),
                ]
                .map(OsString::from),
            );
        }
        all.push(INTERFACE.into());
        all
    }

    /// The shell commands that give the interface its addresses, when the program does not.
    pub(crate) fn address_commands(&self, number: u8) -> Option<String> {
        if self.is_ours {
            return None;
        }
        let (own, prefixes) = (addresses(number), overlay());
        Some(format!(
            "ip link set {INTERFACE} mtu {OVERLAY_MTU} up
             ip address add {}/{} dev {INTERFACE}
             ip address add {}/{} dev {INTERFACE} nodad",
            own.v4,
            prefixes.v4.prefix_len(),
            own.v6,
            prefixes.v6.prefix_len()
        ))
    }
}
