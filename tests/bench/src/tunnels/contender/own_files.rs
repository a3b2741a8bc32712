//! Programs that read their settings from files of their own: where these lie, how such a program is
//! started, and what every tunnel's interface is like.

use std::fs::{self, Permissions};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use interop::{OVERLAY_MTU, addresses, overlay};
use lab::{LabError, Launch, Process};

use super::Joined;
use crate::tunnels::ground::{Ground, Machine};

/// The name of every tunnel's interface.
pub(super) const INTERFACE: &str = "tun0";
/// The UDP port of every daemon; each has a namespace of its own.
pub(super) const PORT: u16 = 4789;

const LEFT: u8 = 0;
const RIGHT: u8 = 1;

/// One end of the tunnel: its machine, the other one, and a directory for its files.
pub(super) struct End<'a> {
    /// 0 or 1.
    pub(super) number: u8,
    pub(super) machine: &'a Machine,
    pub(super) other: &'a Machine,
    pub(super) directory: PathBuf,
}

impl<'a> End<'a> {
    /// The address of its machine in the tunnel.
    pub(super) fn inner(&self) -> Ipv4Addr {
        addresses(self.number).v4
    }

    /// The same of the other end.
    pub(super) fn other_inner(&self) -> Ipv4Addr {
        addresses(1 - self.number).v4
    }

    /// The machine's name.
    pub(super) fn name(&self) -> &'a str {
        self.machine.namespace.name()
    }

    /// Writes one of its files.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf, LabError> {
        let path = self.directory.join(name);
        write(&path, text)?;
        Ok(path)
    }

    /// Writes a shell script of its own.
    pub(super) fn write_script(&self, name: &str, commands: &str) -> Result<PathBuf, LabError> {
        let path = self.write(name, &format!("#!/bin/sh -e\n{commands}\n"))?;
        fs::set_permissions(&path, Permissions::from_mode(0o755)).map_err(|error| {
            LabError::new(format!("cannot open up {}: {error}", path.display()))
        })?;
        Ok(path)
    }

    /// A program to be run on its machine.
    pub(super) fn launch(&self, program: impl AsRef<std::ffi::OsStr>) -> Launch {
        self.machine.namespace.launch(program)
    }

    /// The commands that give the interface its address.
    pub(super) fn up_commands(&self) -> String {
        let prefix_len = overlay().v4.prefix_len();
        format!(
            "ip link set {INTERFACE} mtu {OVERLAY_MTU} up; ip address add {}/{prefix_len} dev {INTERFACE}",
            self.inner()
        )
    }
}

/// Both ends, with empty directories.
pub(super) fn ends(ground: &Ground) -> Result<[End<'_>; 2], LabError> {
    let end = |number, machine: &'_ Machine| {
        let namespace = &machine.namespace;
        let base = namespace.lab().directory();
        let directory = base.join(format!("{}-{number}-files", namespace.name()));
        fs::create_dir_all(&directory).map_err(|error| {
            LabError::new(format!("cannot make {}: {error}", directory.display()))
        })?;
        Ok(directory)
    };
    Ok([
        End {
            number: LEFT,
            machine: &ground.left,
            other: &ground.right,
            directory: end(LEFT, &ground.left)?,
        },
        End {
            number: RIGHT,
            machine: &ground.right,
            other: &ground.left,
            directory: end(RIGHT, &ground.right)?,
        },
    ])
}

/// Starts the daemons, the right one first, and says where the tunnel leads.
pub(super) fn start(
    ends: &[End<'_>; 2],
    daemon: impl Fn(&End<'_>) -> Result<Process, LabError>,
) -> Result<Joined, LabError> {
    let [left, right] = ends;
    let started = Instant::now();
    let right = daemon(right)?;
    let left_daemon = daemon(left)?;
    Ok(Joined {
        target: IpAddr::from(left.other_inner()),
        started,
        handshakes: None,
        daemons: vec![Box::new(left_daemon), Box::new(right)],
    })
}

/// Writes a file.
pub(super) fn write(path: &Path, text: &str) -> Result<(), LabError> {
    fs::write(path, text)
        .map_err(|error| LabError::new(format!("cannot write {}: {error}", path.display())))
}

/// Runs a program that makes keys or certificates, and returns what it prints.
pub(super) fn make(command: &mut Command) -> Result<String, LabError> {
    let shown = format!("{command:?}").replace('"', "");
    let output = command
        .output()
        .map_err(|error| LabError::new(format!("cannot run `{shown}`: {error}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(LabError::new(format!("`{shown}` failed: {}", said.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
