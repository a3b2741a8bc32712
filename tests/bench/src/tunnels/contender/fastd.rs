//! Debian's `fastd`, with the method that it recommends.

use std::path::Path;
use std::process::Command;

use interop::OVERLAY_MTU;
use lab::LabError;

use super::own_files::{self, INTERFACE, PORT, make};
use super::{Contender, Joined, version_line};
use crate::tunnels::ground::Ground;

const METHOD: &str = "salsa2012+umac";

pub(crate) struct Fastd;

impl Contender for Fastd {
    fn name(&self) -> &'static str {
        "fastd"
    }

    fn cipher(&self) -> &'static str {
        METHOD
    }

    fn version(&self) -> Result<Option<String>, LabError> {
        version_line(Path::new("fastd"), "--version")
    }

    fn join(&self, ground: &Ground) -> Result<Joined, LabError> {
        let ends = own_files::ends(ground)?;
        let mut secrets = Vec::new();
        let mut keys = Vec::new();
        for end in &ends {
            let secret =
                make(Command::new("fastd").args(["--generate-key", "--machine-readable"]))?;
            let file = end.write("secret.conf", &format!("secret \"{secret}\";\n"))?;
            let show = ["--show-key", "--machine-readable", "--config"];
            keys.push(make(Command::new("fastd").args(show).arg(file))?);
            secrets.push(secret);
        }
        for end in &ends {
            let (own, other) = (usize::from(end.number), usize::from(1 - end.number));
            // One side begins: when both do, each drops the other's session for a while.
            let remote = match end.number {
                0 => format!("remote {}:{PORT};", end.other.address),
                _ => String::new(),
            };
            let text = format!(
                "mode tun;\ninterface \"{INTERFACE}\";\nmtu {OVERLAY_MTU};\nmethod \"{METHOD}\";\n\
                 bind any:{PORT};\nsecret \"{}\";\non up \"{}\";\n\
                 peer \"other\" {{\n  key \"{}\";\n  {remote}\n}}\n",
                secrets[own],
                end.up_commands(),
                keys[other],
            );
            end.write("fastd.conf", &text)?;
        }
        own_files::start(&ends, |end| {
            end.launch("fastd")
                .arg("--config")
                .arg(end.directory.join("fastd.conf"))
                .spawn(end.name())
        })
    }
}
