//! `vpncloud` of crates.io.

use std::path::{Path, PathBuf};

use lab::LabError;

use super::own_files::{self, INTERFACE, PORT};
use super::{Contender, Joined, version_line};
use crate::tunnels::ground::Ground;

pub(crate) struct Vpncloud(PathBuf);

impl Vpncloud {
    pub(crate) fn installed_in(directory: &Path) -> Self {
        Self(directory.join("vpncloud"))
    }
}

impl Contender for Vpncloud {
    fn name(&self) -> &'static str {
        "vpncloud, AES"
    }

    fn cipher(&self) -> &'static str {
        "aes-256-gcm"
    }

    fn version(&self) -> Result<Option<String>, LabError> {
        version_line(&self.0, "--version")
    }

    fn join(&self, ground: &Ground) -> Result<Joined, LabError> {
        let ends = own_files::ends(ground)?;
        for end in &ends {
            // It asks the kernel for the way to the Internet, to know its own address.
            let gateway = end.other.address.to_string();
            let machine = &end.machine.namespace;
            machine.run("ip", ["route", "add", "default", "via", &gateway])?;
        }
        own_files::start(&ends, |end| {
            let launch = end
                .launch(&self.0)
                .args(["--type", "tun", "--device", INTERFACE])
                .args(["--listen", &format!("{}:{PORT}", end.machine.address)])
                .args(["--password", "bench", "--algorithm", "aes256"])
                .args(["--no-port-forwarding", "--quiet"])
                // Left to itself, 2.3.0 takes the last number of its address for the whole of it.
                .args(["--no-auto-claim", "--claim"])
                .arg(format!("{}/32", end.inner()))
                .args(["--ifup", &end.up_commands()]);
            // One side begins.
            let begins = end.number == 0;
            let peer = begins.then(|| format!("--peer={}:{PORT}", end.other.address));
            launch.args(peer).spawn(end.name())
        })
    }
}
