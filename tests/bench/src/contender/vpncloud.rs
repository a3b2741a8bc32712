//! `vpncloud` of crates.io.

use std::path::{Path, PathBuf};

use interop::overlay;
use lab::LabError;

use super::own_files::{self, INTERFACE, PORT};
use super::{Contender, Joined, version_line};
use crate::ground::Ground;

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
            let inner = format!("{}/{}", end.inner(), overlay().v4.prefix_len());
            end.launch(&self.0)
                .args(["--type", "tun", "--device", INTERFACE, "--ip", &inner])
                .args(["--listen", &format!("{}:{PORT}", end.machine.address)])
                .args(["--peer", &format!("{}:{PORT}", end.other.address)])
                .args(["--password", "bench", "--algorithm", "aes256"])
                .args(["--no-port-forwarding", "--quiet"])
                .args(["--ifup", &end.up_commands()])
                .spawn(end.name())
        })
    }
}
