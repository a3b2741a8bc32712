//! Settings of the coordinator: flags over files over defaults.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::address::{OverlayPrefixes, split_host_port};
use model::ids::FleetId;
use model::limits::Limits;
use model::name::{Name, is_dns_suffix};
use model::record::TrustStatement;
use runtime::config::Fault;
use runtime::logs::LogFormat;
use runtime::metrics::MetricsListen;
use serde::Deserialize;

use crate::founding;

/// The coordinator of a fleet.
#[derive(Debug, Parser)]
#[command(name = "mesh-coordinator", version, about, long_about = None)]
pub struct Flags {
    /// Settings file; the *.toml in coordinator.conf.d beside it are read too.
    #[arg(long, value_name = "FILE", env = "MESH_COORDINATOR_CONFIG")]
    pub config: Option<PathBuf>,
    /// Say whether the settings make sense, and do nothing else
    #[arg(long)]
    pub check: bool,
    /// One flag for each key of the file.
    #[command(flatten)]
    pub overrides: FileSettings,
    /// What to do instead of running.
    #[command(subcommand)]
    pub task: Option<Task>,
}

/// What can be done instead of running the coordinator.
#[derive(Debug, clap::Subcommand)]
pub enum Task {
    /// Make the state directory of a backup; the next start asks the hosts what they remember since
    Restore {
        /// What `meshctl backup` wrote
        file: PathBuf,
    },
    /// Look after the store
    #[command(subcommand)]
    Store(StoreTask),
    /// Look after operators' credentials, while the coordinator runs
    #[command(subcommand)]
    Admin(AdminTask),
}

/// `mesh-coordinator admin`
#[derive(Debug, clap::Subcommand)]
pub enum AdminTask {
    /// Replace an admin's credential that was lost; the old one opens nothing any more
    Recover {
        /// Whose; made, with all rights, where there is none of this name
        #[arg(long, value_name = "NAME", default_value = "admin")]
        name: Name,
        /// Where to write it [default: admin.credential in the state directory]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// `mesh-coordinator store`
#[derive(Debug, clap::Subcommand)]
pub enum StoreTask {
    /// Check the store, or a backup: every value, every signature, every claim
    Verify {
        /// A backup instead of the store
        #[arg(long, value_name = "FILE")]
        backup: Option<PathBuf>,
    },
}

/// The keys of `coordinator.toml`; each is a flag too.
#[derive(Clone, Debug, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct FileSettings {
    /// Where the authority's keys and the store are kept [default: /var/lib/mesh/coordinator]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where hosts and operators connect [default: port 7443 of all addresses]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
    /// Where they are told to connect, goes in tokens (repeatable) [default: this machine's addresses]
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<Vec<String>>,
    /// Local admin API for meshctl [default: /run/mesh/coordinator.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Name of the fleet, for ever: chosen at the first start [default: main]
    #[arg(long, value_name = "NAME")]
    pub fleet: Option<Name>,
    /// IPv4 prefix of the overlay, /8 to /26: chosen at the first start [default: a /16 of 100.64.0.0/10]
    #[arg(long, value_name = "PREFIX")]
    pub overlay_v4: Option<Ipv4Net>,
    /// IPv6 prefix of the overlay, /48 to /112: chosen at the first start [default: a ULA /48]
    #[arg(long, value_name = "PREFIX")]
    pub overlay_v6: Option<Ipv6Net>,
    /// What follows names in DNS: chosen at the first start [default: mesh.internal]
    #[arg(long, value_name = "SUFFIX")]
    pub dns_suffix: Option<String>,
    /// Let a new fleet have public prefixes, or a top-level domain as suffix [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub allow_public: Option<bool>,
    /// Where metrics are asked for, for Prometheus: an address of this machine, or off [default: 127.0.0.1:7446]
    #[arg(long, value_name = "IP:PORT")]
    pub metrics: Option<MetricsListen>,
    /// How log lines look: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// error, warn, info, debug, trace, or a filter [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// The settings in force.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the authority's keys and the store are kept.
    pub state_dir: PathBuf,
    /// Where hosts and operators connect; `None`: port 7443 of all addresses.
    pub listen: Option<SocketAddr>,
    /// Where they are told to connect, `host:port`; empty: this machine's addresses.
    pub advertise: Vec<String>,
    /// Local admin API.
    pub socket: PathBuf,
    /// What is chosen at the first start.
    pub fleet: FleetChoices,
    /// Where metrics are asked for.
    pub metrics: MetricsListen,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which are written.
    pub log_level: String,
}

/// What is chosen once, when a fleet is made. A choice that is given later has to be the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetChoices {
    /// The fleet's name.
    pub name: Option<Name>,
    /// IPv4 prefix of the overlay.
    pub overlay_v4: Option<Ipv4Net>,
    /// IPv6 prefix of the overlay.
    pub overlay_v6: Option<Ipv6Net>,
    /// What follows names in DNS.
    pub dns_suffix: Option<String>,
    /// They may be what belongs to others on the Internet, since it does not.
    pub allow_public: bool,
}

impl Flags {
    /// Takes what is to be done instead of running.
    pub fn take_task(mut self) -> (Option<Task>, Self) {
        (self.task.take(), self)
    }
}

/// Where settings are when no `--config` says otherwise.
const DEFAULT_CONFIG: &str = "/etc/mesh/coordinator.toml";

impl Settings {
    /// Puts flags, files and defaults together.
    ///
    /// # Errors
    /// Names the file or flag and what is wrong with it.
    pub fn load(flags: Flags) -> Result<Self, String> {
        let (optional, only_check) = (flags.config.is_none(), flags.check);
        let path = flags.config.unwrap_or_else(|| DEFAULT_CONFIG.into());
        let (file, places): (FileSettings, _) =
            runtime::config::load(&path, optional).map_err(|error| error.to_string())?;
        let merged = |flags, file| {
            let settings = Self::merge(flags, file)?;
            if only_check {
                founding::check(&settings)?;
            }
            Ok(settings)
        };
        merged(flags.overrides, file.clone()).map_err(|fault: Fault| {
            // A flag that is wrong is in no file, whatever the file says beside it.
            match merged(FileSettings::default(), file) {
                Err(of_file) if of_file == fault => places.name(&fault),
                _ => fault.message,
            }
        })
    }

    fn merge(flags: FileSettings, file: FileSettings) -> Result<Self, Fault> {
        let settings = Self {
            state_dir: flags
                .state_dir
                .or(file.state_dir)
                .unwrap_or_else(|| "/var/lib/mesh/coordinator".into()),
            listen: flags.listen.or(file.listen),
            advertise: flags.advertise.or(file.advertise).unwrap_or_default(),
            socket: flags
                .socket
                .or(file.socket)
                .unwrap_or_else(|| "/run/mesh/coordinator.sock".into()),
            fleet: FleetChoices {
                name: flags.fleet.or(file.fleet),
                overlay_v4: flags.overlay_v4.or(file.overlay_v4),
                overlay_v6: flags.overlay_v6.or(file.overlay_v6),
                dns_suffix: flags.dns_suffix.or(file.dns_suffix),
                allow_public: flags.allow_public.or(file.allow_public).unwrap_or(false),
            },
            metrics: match flags.metrics.or(file.metrics) {
                Some(metrics) => metrics,
                None => MetricsListen::At(SocketAddr::from(([127, 0, 0, 1], 7446))),
            },
            log_format: flags.log_format.or(file.log_format).unwrap_or_default(),
            log_level: flags
                .log_level
                .or(file.log_level)
                .unwrap_or_else(|| "info".into()),
        };
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), Fault> {
        for (key, path) in [("state_dir", &self.state_dir), ("socket", &self.socket)] {
            if path.as_os_str().is_empty() {
                let message = format!("{key} is empty: write a path, or leave the line out");
                return Err(Fault { key, message });
            }
        }
        let advertise = |message| Fault {
            key: "advertise",
            message,
        };
        if self.advertise.len() > Limits::COORDINATOR_ADDRESSES {
            return Err(advertise(format!(
                "{} addresses to advertise, at most {} go in a token",
                self.advertise.len(),
                Limits::COORDINATOR_ADDRESSES
            )));
        }
        for address in &self.advertise {
            if split_host_port(address).is_none() {
                return Err(advertise(format!(
                    "advertise {address:?} is not HOST:PORT, such as c1.example.com:7443, \
                     192.0.2.1:7443 or [2001:db8::1]:7443"
                )));
            }
        }
        self.fleet.check()
    }
}

impl FleetChoices {
    fn check(&self) -> Result<(), Fault> {
        // The defaults depend on the fleet's id; those of any fleet do for a check.
        let overlay = self.overlay(FleetId::from_bytes([0; 16]));
        overlay.map_err(|message| Fault {
            key: match self.overlay_v4 {
                Some(_) => "overlay_v4",
                None => "overlay_v6",
            },
            message,
        })?;
        match &self.dns_suffix {
            Some(suffix) if !is_dns_suffix(suffix) => Err(Fault {
                key: "dns_suffix",
                message: format!(
                    "dns_suffix {suffix:?} is not a DNS name in lower case without dots at the \
                     ends, such as mesh.internal"
                ),
            }),
            _ => Ok(()),
        }
    }

    /// Returns the overlay of a new fleet: what was chosen, and for the rest what its id points to.
    ///
    /// # Errors
    /// A prefix cannot hold a fleet.
    pub fn overlay(&self, fleet: FleetId) -> Result<OverlayPrefixes, String> {
        let derived = OverlayPrefixes::derived_from(fleet);
        let v4 = self.overlay_v4.unwrap_or(derived.v4);
        let v6 = self.overlay_v6.unwrap_or(derived.v6);
        OverlayPrefixes::checked(v4, v6).map_err(|error| format!("overlay: {error}"))
    }

    /// Returns the prefixes that were chosen.
    pub(crate) fn prefixes(&self) -> Vec<IpNet> {
        let v4 = self.overlay_v4.map(IpNet::V4);
        v4.into_iter()
            .chain(self.overlay_v6.map(IpNet::V6))
            .collect()
    }

    /// Checks that nothing else is asked for than what the fleet was made with.
    ///
    /// # Errors
    /// Names the first setting that differs, and what to do.
    pub fn check_against(&self, made: &TrustStatement) -> Result<(), String> {
        let differs = |key: &str, given: String, was: String| {
            Err(format!(
                "{key} is {given} in the settings, but this fleet was made with {was}, and hosts \
                 rely on it; take the setting out, or make another fleet in a state directory of \
                 its own"
            ))
        };
        let quoted = |text: &dyn std::fmt::Display| text.to_string();
        if let Some(name) = self.name.as_ref().filter(|name| **name != made.fleet_name) {
            return differs("fleet", quoted(name), quoted(&made.fleet_name));
        }
        if let Some(v4) = self.overlay_v4.filter(|v4| *v4 != made.overlay.v4) {
            return differs("overlay_v4", quoted(&v4), quoted(&made.overlay.v4));
        }
        if let Some(v6) = self.overlay_v6.filter(|v6| *v6 != made.overlay.v6) {
            return differs("overlay_v6", quoted(&v6), quoted(&made.overlay.v6));
        }
        if let Some(suffix) = self
            .dns_suffix
            .as_ref()
            .filter(|suffix| **suffix != made.dns_suffix)
        {
            return differs("dns_suffix", quoted(suffix), quoted(&made.dns_suffix));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merge(flags: FileSettings) -> Result<Settings, String> {
        Settings::merge(flags, FileSettings::default()).map_err(|fault| fault.message)
    }

    #[test]
    fn flags_win_over_files_and_files_over_defaults() {
        let file = FileSettings {
            fleet: Some("from-file".parse().unwrap()),
            dns_suffix: Some("corp.internal".into()),
            ..FileSettings::default()
        };
        let flags = FileSettings {
            fleet: Some("prod".parse().unwrap()),
            ..FileSettings::default()
        };
        let settings = Settings::merge(flags, file).unwrap();
        assert_eq!(settings.fleet.name.unwrap().as_str(), "prod");
        assert_eq!(settings.fleet.dns_suffix.as_deref(), Some("corp.internal"));
        assert_eq!(settings.socket, PathBuf::from("/run/mesh/coordinator.sock"));
    }

    #[test]
    fn every_key_of_the_file_is_understood() {
        let text = "
            state_dir = '/x'
            listen = '0.0.0.0:443'
            advertise = ['c1.example.com:443', '[2001:db8::1]:443']
            socket = '/y'
            fleet = 'prod'
            overlay_v4 = '10.64.0.0/16'
            overlay_v6 = 'fd00:1::/48'
            dns_suffix = 'mesh.example'
            log_format = 'json'
            log_level = 'debug'
        ";
        let settings = Settings::merge(FileSettings::default(), toml::from_str(text).unwrap());
        assert_eq!(settings.unwrap().advertise.len(), 2);
    }

    #[test]
    fn an_address_without_a_port_is_refused() {
        let flags = FileSettings {
            advertise: Some(vec!["c1.example.com".into()]),
            ..FileSettings::default()
        };
        assert!(merge(flags).unwrap_err().contains("HOST:PORT"));
    }

    #[test]
    fn an_overlay_that_cannot_hold_a_fleet_is_refused() {
        let flags = FileSettings {
            overlay_v4: Some("10.0.0.0/30".parse().unwrap()),
            ..FileSettings::default()
        };
        assert!(merge(flags).unwrap_err().contains("cannot hold a fleet"));
    }

    #[test]
    fn a_suffix_that_is_no_dns_name_is_refused() {
        for suffix in [".internal", "mesh.", "Mesh.internal", "a b", ""] {
            let flags = FileSettings {
                dns_suffix: Some(suffix.into()),
                ..FileSettings::default()
            };
            assert!(merge(flags).unwrap_err().contains("dns_suffix"), "{suffix}");
        }
    }
}
