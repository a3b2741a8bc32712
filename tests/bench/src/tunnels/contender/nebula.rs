//! Debian's `nebula`, with a certificate authority of its own made on the spot.

use std::path::Path;
use std::process::Command;

use interop::{OVERLAY_MTU, overlay};
use lab::LabError;

use super::own_files::{self, End, INTERFACE, PORT, make};
use super::{Contender, Joined, version_line};
use crate::tunnels::ground::Ground;

pub(crate) struct Nebula {
    name: &'static str,
    cipher: &'static str,
    /// As its settings call it.
    setting: &'static str,
}

impl Nebula {
    /// With what it takes unless told otherwise.
    pub(crate) fn with_aes() -> Self {
        Self {
            name: "nebula, AES",
            cipher: "aes-256-gcm",
            setting: "aes",
        }
    }

    /// With WireGuard's cipher.
    pub(crate) fn with_chacha() -> Self {
        Self {
            name: "nebula",
            cipher: "chacha20-poly1305",
            setting: "chachapoly",
        }
    }

    fn configure(&self, end: &End<'_>, authority: &Path) -> Result<(), LabError> {
        let file = |name: &str| end.directory.join(name).display().to_string();
        let address = format!("{}/{}", end.inner(), overlay().v4.prefix_len());
        make(
            Command::new("nebula-cert")
                .args(["sign", "-name", end.name(), "-ip", &address])
                .arg("-ca-crt")
                .arg(authority.join("ca.crt"))
                .arg("-ca-key")
                .arg(authority.join("ca.key"))
                .args(["-out-crt", &file("host.crt"), "-out-key", &file("host.key")]),
        )?;
        let text = format!(
            "pki:\n  ca: {ca}\n  cert: {cert}\n  key: {key}\n\
             static_host_map:\n  \"{other_inner}\": [\"{other}:{PORT}\"]\n\
             lighthouse:\n  am_lighthouse: false\n\
             listen:\n  host: 0.0.0.0\n  port: {PORT}\n\
             cipher: {cipher}\n\
             tun:\n  dev: {INTERFACE}\n  mtu: {OVERLAY_MTU}\n\
             logging:\n  level: warning\n\
             firewall:\n\
             \x20 outbound:\n    - {{port: any, proto: any, host: any}}\n\
             \x20 inbound:\n    - {{port: any, proto: any, host: any}}\n",
            ca = authority.join("ca.crt").display(),
            cert = file("host.crt"),
            key = file("host.key"),
            other_inner = end.other_inner(),
            other = end.other.address,
            cipher = self.setting,
        );
        end.write("config.yml", &text).map(drop)
    }
}

impl Contender for Nebula {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cipher(&self) -> &'static str {
        self.cipher
    }

    fn version(&self) -> Result<Option<String>, LabError> {
        let line = version_line(Path::new("nebula"), "-version")?;
        Ok(line.map(|line| line.replace("Version: ", "nebula ")))
    }

    fn join(&self, ground: &Ground) -> Result<Joined, LabError> {
        let ends = own_files::ends(ground)?;
        let authority = &ends[0].directory;
        make(
            Command::new("nebula-cert")
                .args(["ca", "-name", "bench"])
                .current_dir(authority),
        )?;
        for end in &ends {
            self.configure(end, authority)?;
        }
        own_files::start(&ends, |end| {
            end.launch("nebula")
                .arg("-config")
                .arg(end.directory.join("config.yml"))
                .spawn(end.name())
        })
    }
}
