//! How programs on this host come to ask mesh DNS: by a setting of the host's own resolver, which
//! there are three ways to make. Each is made for the mesh's names, and taken back.

mod block;
mod keeper;
mod resolv_conf;
mod resolvconf;
mod resolved;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use keeper::{ResolverKeeper, Wanted};
pub use resolv_conf::{asked_in_the_end, nameservers};

use block::BlockInFile;
use resolvconf::Resolvconf;
use resolved::Resolved;

/// Whether the host's resolver is set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ResolverMode {
    /// By whatever the host has: systemd-resolved, resolvconf, or its own /etc/resolv.conf.
    #[default]
    Auto,
    /// It is left alone.
    Off,
}

/// Which names go where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routing {
    /// The overlay's interface.
    pub interface: String,
    /// The same as the kernel numbers it.
    pub index: u32,
    /// Where mesh DNS answers.
    pub server: SocketAddr,
    /// The fleet's suffix and its reverse zones, without dots at the end.
    pub domains: Vec<String>,
}

/// Why the host's resolver cannot be set up, or back.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {why}")]
pub struct ResolverError {
    what: String,
    why: String,
}

impl ResolverError {
    fn new(what: impl Into<String>, why: impl ToString) -> Self {
        Self {
            what: what.into(),
            why: why.to_string(),
        }
    }
}

/// One way to set up the host's resolver.
#[async_trait::async_trait]
pub trait HostResolver: Send + Sync {
    /// Returns what it is, and what it changes, for people.
    fn describe(&self) -> String;

    /// Sends the mesh's names to mesh DNS.
    async fn set(&mut self, routing: &Routing) -> Result<(), ResolverError>;

    /// Returns how the setting differs from what was set; `None`: not at all.
    async fn difference(&mut self, routing: &Routing) -> Result<Option<String>, ResolverError>;

    /// Takes the setting back. One that is not there is no error.
    async fn revert(&mut self, routing: &Routing) -> Result<(), ResolverError>;

    /// Returns whether a setting that somebody else changed may be made again. Where others write
    /// whole files, each would undo the other's work for ever.
    fn may_repair(&self) -> bool;
}

/// What suits this host.
pub enum Choice {
    /// This way.
    Use(Box<dyn HostResolver>),
    /// None is needed: the host asks mesh DNS first already.
    AsksUs,
    /// None: why not, for people.
    LeaveAlone(String),
}

/// Where the host keeps its settings; tests have hosts in directories.
#[derive(Clone, Debug)]
pub struct HostFiles {
    root: PathBuf,
}

impl Default for HostFiles {
    fn default() -> Self {
        Self { root: "/".into() }
    }
}

impl HostFiles {
    /// Takes another directory than `/`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Returns /etc/resolv.conf.
    pub fn resolv_conf(&self) -> PathBuf {
        self.root.join("etc/resolv.conf")
    }

    fn nsswitch_conf(&self) -> PathBuf {
        self.root.join("etc/nsswitch.conf")
    }

    /// What systemd-resolved itself asks.
    fn resolved_uplinks(&self) -> PathBuf {
        self.root.join("run/systemd/resolve/resolv.conf")
    }

    fn path(&self) -> &Path {
        &self.root
    }
}

/// Finds the way that suits the host, for mesh DNS at `server`.
pub async fn choose(files: &HostFiles, interface: &str, server: SocketAddr) -> Choice {
    let text = std::fs::read(files.resolv_conf()).unwrap_or_default();
    // Our own block is no reason to do otherwise than before there was one.
    let text = block::without_block(&text, interface).unwrap_or(text);
    let configured = resolv_conf::configured(&text);
    if configured.first() == Some(&server.ip()) {
        return Choice::AsksUs;
    }
    let asks_resolved = configured.iter().any(is_resolved_stub);
    if asks_resolved || resolv_conf::uses_nss_resolve(files) {
        match Resolved::connect().await {
            Ok(resolved) => return Choice::Use(Box::new(resolved)),
            // Everything goes by way of it, so nothing else would help.
            Err(error) if asks_resolved => return Choice::LeaveAlone(error.to_string()),
            Err(error) => tracing::debug!(%error, "systemd-resolved cannot be set up"),
        }
    }
    if server.port() != 53 {
        return Choice::LeaveAlone(format!(
            "mesh DNS answers on port {}, and resolv.conf knows only port 53; choose an address of its own with --dns-listen",
            server.port()
        ));
    }
    if let Some(resolvconf) = Resolvconf::of_host(files, &text) {
        return Choice::Use(Box::new(resolvconf));
    }
    match BlockInFile::of_host(files, interface) {
        Ok(block) => Choice::Use(Box::new(block)),
        Err(why) => Choice::LeaveAlone(why),
    }
}

/// Returns every server that the host's resolv.conf names, in order.
pub fn all_nameservers(files: &HostFiles) -> Vec<IpAddr> {
    let text = std::fs::read(files.resolv_conf()).unwrap_or_default();
    resolv_conf::configured(&text)
}

/// systemd-resolved listens there (systemd-resolved.service(8)).
fn is_resolved_stub(server: &IpAddr) -> bool {
    matches!(server, IpAddr::V4(v4) if [[127, 0, 0, 53], [127, 0, 0, 54]].contains(&v4.octets()))
}

/// Takes back what a daemon that died left in the host's files, with this interface.
pub fn clean_up_after(files: &HostFiles, interface: &str) {
    match block::remove(&files.resolv_conf(), interface) {
        Ok(true) => {
            tracing::info!("took the block out of resolv.conf that a dead daemon had left");
        }
        Ok(false) => {}
        Err(error) => tracing::warn!(%error, "what a dead daemon left in resolv.conf stays"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn host(resolv_conf: &str) -> (tempfile::TempDir, HostFiles) {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let files = HostFiles::at(root.path());
        std::fs::write(files.resolv_conf(), resolv_conf).unwrap();
        (root, files)
    }

    async fn choice(files: &HostFiles, server: &str) -> String {
        match choose(files, "mesh0", server.parse().unwrap()).await {
            Choice::Use(way) => way.describe(),
            Choice::AsksUs => "asks us".into(),
            Choice::LeaveAlone(why) => why,
        }
    }

    #[tokio::test]
    async fn a_file_of_the_hosts_own_gets_a_block() {
        let (_root, files) = host("nameserver 192.0.2.1\n");
        let chosen = choice(&files, "127.0.0.150:53").await;
        assert!(chosen.contains("a block in"), "{chosen}");
    }

    #[tokio::test]
    async fn a_host_that_asks_us_is_left_alone() {
        let (_root, files) = host("nameserver 127.0.0.150\nnameserver 192.0.2.1\n");
        assert_eq!(choice(&files, "127.0.0.150:53").await, "asks us");
    }

    #[tokio::test]
    async fn a_file_that_is_not_the_hosts_own_is_left_alone() {
        let (root, files) = host("");
        std::fs::rename(files.resolv_conf(), root.path().join("etc/managed")).unwrap();
        let chosen = choice(&files, "127.0.0.150:53").await;
        assert!(chosen.contains("cannot be used"), "{chosen}");
        std::os::unix::fs::symlink("managed", files.resolv_conf()).unwrap();
        let chosen = choice(&files, "127.0.0.150:53").await;
        assert!(chosen.contains("a link to managed"), "{chosen}");
    }

    #[tokio::test]
    async fn a_port_that_no_file_can_name_is_said() {
        let (_root, files) = host("nameserver 192.0.2.1\n");
        let chosen = choice(&files, "127.0.0.1:5353").await;
        assert!(chosen.contains("port 5353"), "{chosen}");
    }
}
