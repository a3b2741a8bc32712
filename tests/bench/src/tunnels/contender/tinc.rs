//! Debian's `tinc`, of the 1.0 series, with its own choice of ciphers.

use std::fs;
use std::path::Path;
use std::process::Command;

use lab::LabError;

use super::own_files::{self, End, INTERFACE, PORT, make, write};
use super::{Contender, Joined, version_line};
use crate::tunnels::ground::Ground;

pub(crate) struct Tinc;

impl Contender for Tinc {
    fn name(&self) -> &'static str {
        "tinc"
    }

    fn cipher(&self) -> &'static str {
        "aes-256-cbc, sha-256"
    }

    fn version(&self) -> Result<Option<String>, LabError> {
        version_line(Path::new("tincd"), "--version")
    }

    fn join(&self, ground: &Ground) -> Result<Joined, LabError> {
        let ends = own_files::ends(ground)?;
        for end in &ends {
            configure(end)?;
        }
        let [left, right] = &ends;
        for (from, to) in [(left, right), (right, left)] {
            let (file, other) = (host_file(from, from.name()), host_file(to, from.name()));
            fs::copy(&file, &other).map_err(|error| {
                LabError::new(format!("cannot copy {}: {error}", file.display()))
            })?;
        }
        own_files::start(&ends, |end| {
            end.launch("tincd")
                .arg("--no-detach")
                .arg(format!("--config={}", end.directory.display()))
                .arg(format!("--pidfile={}", end.directory.join("pid").display()))
                .spawn(end.name())
        })
    }
}

/// Writes the settings of one end and makes its keys; tinc adds the public one to the host's file.
fn configure(end: &End<'_>) -> Result<(), LabError> {
    let hosts = end.directory.join("hosts");
    fs::create_dir_all(&hosts)
        .map_err(|error| LabError::new(format!("cannot make {}: {error}", hosts.display())))?;
    let settings = format!(
        "Name = {}\nAddressFamily = ipv4\nDeviceType = tun\nInterface = {INTERFACE}\nConnectTo = {}\n",
        end.name(),
        end.other.namespace.name()
    );
    end.write("tinc.conf", &settings)?;
    end.write_script("tinc-up", &end.up_commands())?;
    let own = format!(
        "Address = {}\nPort = {PORT}\nSubnet = {}/32\n",
        end.machine.address,
        end.inner()
    );
    write(&host_file(end, end.name()), &own)?;
    let configuration = format!("--config={}", end.directory.display());
    make(Command::new("tincd").args([&configuration, "--generate-keys=2048"])).map(drop)
}

fn host_file(end: &End<'_>, host: &str) -> std::path::PathBuf {
    end.directory.join("hosts").join(host)
}
