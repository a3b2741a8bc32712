//! What proxies have in common that read a file each: where these lie, and how the two are started.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::{LabError, Launch, Process};

use super::Standing;
use crate::link::Link;
use crate::services::certificates::{self, Certificate};
use crate::services::ground::{Ground, Machine};

/// Where the server's proxy listens for the client's.
const TLS_PORT: u16 = 8443;

/// The names in the certificates.
pub(super) const CLIENT: &str = "client";
pub(super) const SERVER: &str = "server";

/// One of the two proxies, before it is started.
pub(super) struct Half<'a> {
    /// Of this machine.
    pub(super) certificate: Certificate,
    /// Where it listens.
    pub(super) listen: SocketAddr,
    /// Where it sends what it gets.
    pub(super) next: SocketAddr,
    /// An empty directory of its own.
    pub(super) directory: PathBuf,
    name: &'static str,
    machine: &'a Machine,
}

impl Half<'_> {
    /// Writes its settings.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf, LabError> {
        let path = self.directory.join(name);
        fs::write(&path, text)
            .map_err(|error| LabError::new(format!("cannot write {}: {error}", path.display())))?;
        Ok(path)
    }

    /// A program to be run on its machine.
    pub(super) fn launch(&self, program: impl AsRef<std::ffi::OsStr>) -> Launch {
        self.machine.namespace.launch(program)
    }

    /// Whether it is the client's.
    pub(super) fn is_near(&self) -> bool {
        self.name == CLIENT
    }
}

/// Makes machines, certificates and both proxies.
pub(super) fn stand(
    link: Link,
    proxy: impl Fn(&Half<'_>) -> Result<Launch, LabError>,
) -> Result<Standing, LabError> {
    let ground = Ground::new(link)?;
    let [client, server] = certificates::make(ground.directory(), [CLIENT, SERVER])?;
    let between = SocketAddr::new(ground.server.address, TLS_PORT);
    let far = Half {
        certificate: server,
        listen: between,
        next: Ground::local(),
        directory: directory(&ground, "far")?,
        name: SERVER,
        machine: &ground.server,
    };
    let near = Half {
        certificate: client,
        listen: Ground::local(),
        next: between,
        directory: directory(&ground, "near")?,
        name: CLIENT,
        machine: &ground.client,
    };
    let start = |half: &Half<'_>| -> Result<Process, LabError> {
        proxy(half)?.spawn(&format!("{}-proxy", half.name))
    };
    let (far, near) = (start(&far)?, start(&near)?);
    Ok(Standing {
        target: Ground::local(),
        daemons: vec![near.id(), far.id()],
        _held: vec![Box::new(near), Box::new(far)],
        ground,
    })
}

fn directory(ground: &Ground, name: &str) -> Result<PathBuf, LabError> {
    let path = ground.directory().join(name);
    fs::create_dir_all(&path)
        .map_err(|error| LabError::new(format!("cannot make {}: {error}", path.display())))?;
    Ok(path)
}

/// The first line that a program prints about its version, wherever it prints it.
pub(super) fn version(program: &Path, asked: &str) -> Result<Option<String>, LabError> {
    let output = Command::new(program)
        .arg(asked)
        .output()
        .map_err(|error| LabError::new(format!("cannot run {}: {error}", program.display())))?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let line = said.lines().find(|line| !line.trim().is_empty());
    Ok(line.map(|line| line.trim().to_owned()))
}
