//! SIGHUP: the settings are read again, what can change at run time is put in force, and the rest is
//! said in the log.

use std::net::SocketAddr;

use runtime::metrics::MetricsListen;
use tokio::sync::watch;

use crate::brain::BrainHandle;
use crate::mtu::Mtu;
use crate::resolver::ResolverMode;
use crate::settings::{Flags, Settings};

/// The settings that the brain takes while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reload {
    /// Addresses where peers reach this host.
    pub endpoints: Vec<SocketAddr>,
    /// Whether this host's resolver is told to ask mesh DNS.
    pub resolver: ResolverMode,
}

/// Reads settings again, as often as it is asked to.
pub struct Reloader {
    flags: Flags,
    in_force: Settings,
    metrics: watch::Sender<MetricsListen>,
}

impl Reloader {
    /// Takes the flags that the daemon was started with, what came of them and the files, and who
    /// is told where metrics are asked for.
    pub fn new(flags: Flags, in_force: Settings, metrics: watch::Sender<MetricsListen>) -> Self {
        Self {
            flags,
            in_force,
            metrics,
        }
    }

    /// Reads the files again.
    ///
    /// # Errors
    /// The settings make no sense; those in force stay.
    pub async fn reload(&mut self, brain: &BrainHandle) -> Result<(), String> {
        let next = Settings::load(self.flags.clone()).inspect_err(
            |error| tracing::error!(%error, "the settings were read again and are not used"),
        )?;
        for key in needs_restart(&self.in_force, &next) {
            tracing::warn!("{key} has changed, and takes a restart of meshd to be in force");
        }
        if next.log_level != self.in_force.log_level {
            match runtime::logs::set_level(&next.log_level) {
                Ok(()) => self.in_force.log_level.clone_from(&next.log_level),
                Err(error) => tracing::error!(%error, "log_level stays as it was"),
            }
        }
        self.in_force.endpoints.clone_from(&next.endpoints);
        self.in_force.resolver = next.resolver;
        self.in_force.metrics = next.metrics;
        self.metrics.send_replace(next.metrics);
        brain
            .reload(Reload {
                endpoints: next.endpoints,
                resolver: next.resolver,
            })
            .await;
        tracing::info!(
            "the settings were read again: log_level, endpoints, resolver and metrics are in force"
        );
        Ok(())
    }
}

/// Returns the keys of the file that differ and that a running daemon cannot take.
pub(crate) fn needs_restart(now: &Settings, next: &Settings) -> Vec<&'static str> {
    let (ours, theirs) = (&now.interface, &next.interface);
    let all = [
        ("state_dir", now.state_dir != next.state_dir),
        ("socket", now.socket != next.socket),
        ("interface", ours.name != theirs.name),
        ("nft_table", ours.table != theirs.table),
        ("mtu", mtu_differs(now, next)),
        ("shards", ours.queues != theirs.queues),
        ("listen_port", now.listen_port != next.listen_port),
        ("dns_listen", now.dns_listen != next.dns_listen),
        (
            "rotate_key_days",
            now.rotate_key_days != next.rotate_key_days,
        ),
        ("cipher", now.cipher != next.cipher),
        ("services_port", now.services.port != next.services.port),
        (
            "services_listen",
            now.services.listen != next.services.listen,
        ),
        (
            "services_threads",
            now.services.threads != next.services.threads,
        ),
        (
            "intercept_port",
            now.services.intercept_port != next.services.intercept_port,
        ),
        (
            "access_log",
            now.services.telling.access_log != next.services.telling.access_log,
        ),
        (
            "otlp",
            now.services.telling.collector != next.services.telling.collector,
        ),
        ("log_format", now.log_format != next.log_format),
    ];
    let changed = all.into_iter().filter(|(_, differs)| *differs);
    changed.map(|(key, _)| key).collect()
}

/// What `auto` stands for may change with the machine's interfaces, and is nobody's wish.
fn mtu_differs(now: &Settings, next: &Settings) -> bool {
    let is_wish = matches!(next.mtu, Mtu::Bytes(_));
    now.mtu != next.mtu || is_wish && now.interface.mtu != next.interface.mtu
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn settings(arguments: &[&str]) -> Settings {
        let none = ["meshd", "--config", "/dev/null"];
        let flags = Flags::parse_from(none.iter().chain(arguments));
        Settings::load(flags).unwrap()
    }

    #[test]
    fn what_needs_a_restart_is_named_by_its_key() {
        let now = settings(&[]);
        let next = settings(&["--mtu", "1300", "--dns-listen", "127.0.0.1:53"]);
        assert_eq!(needs_restart(&now, &next), ["mtu", "dns_listen"]);
        let mut elsewhere = settings(&[]);
        elsewhere.interface.mtu = 8920;
        assert!(needs_restart(&now, &elsewhere).is_empty());
        let (mut kept, wanted) = (next.clone(), next);
        kept.interface.mtu = 1420;
        assert_eq!(needs_restart(&kept, &wanted), ["mtu"]);
        let next = settings(&["--cipher", "standard"]);
        assert_eq!(needs_restart(&now, &next), ["cipher"]);
        let next = settings(&["--log-level", "debug", "--resolver", "off"]);
        assert!(needs_restart(&now, &next).is_empty());
    }
}
