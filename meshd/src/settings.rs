//! Settings of the daemon: flags over files over defaults.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use model::address::is_one_host;
use runtime::config::Fault;
use runtime::logs::LogFormat;
use runtime::metrics::MetricsListen;
use serde::Deserialize;

use crate::ciphers::CipherOffer;
use crate::linux::interface::InterfaceSettings;
use crate::mtu::Mtu;
use crate::resolver::ResolverMode;
use crate::services::{AccessLogMode, OtlpCollector, ServiceSettings};
use crate::shards::Shards;

/// The mesh daemon of one host.
#[derive(Clone, Debug, Parser)]
#[command(name = "meshd", version, about, long_about = None)]
pub struct Flags {
    /// Settings file; the *.toml in meshd.conf.d beside it are read too.
    #[arg(long, value_name = "FILE", env = "MESHD_CONFIG")]
    pub config: Option<PathBuf>,
    /// Print what the daemon would own and change on this host, and change nothing
    #[arg(long)]
    pub plan: bool,
    /// Say whether the settings make sense, and do nothing else
    #[arg(long, conflicts_with_all = ["plan", "take_over"])]
    pub check: bool,
    /// Take over from the daemon at the other end of standard input
    #[arg(long, hide = true)]
    pub take_over: bool,
    /// One flag for each key of the file.
    #[command(flatten)]
    pub overrides: FileSettings,
}

/// The keys of `meshd.toml`; each is a flag too.
#[derive(Clone, Debug, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct FileSettings {
    /// Where keys and the last map are kept [default: /var/lib/mesh/meshd]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Local API for meshctl [default: /run/mesh/meshd.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Name of the TUN device [default: mesh0]
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// Name of the nftables table, family inet [default: mesh]
    #[arg(long, value_name = "NAME")]
    pub nft_table: Option<String>,
    /// UDP port of the tunnels [default: 51820]
    #[arg(long, value_name = "PORT")]
    pub listen_port: Option<u16>,
    /// Address where peers reach this host, when it is not one of its own (repeatable)
    #[arg(long = "endpoint", value_name = "IP:PORT")]
    pub endpoints: Option<Vec<SocketAddr>>,
    /// Where mesh DNS answers on loopback [default: 127.0.0.150:53]
    #[arg(long, value_name = "IP:PORT")]
    pub dns_listen: Option<SocketAddr>,
    /// Whether this host's resolver is told to ask mesh DNS: auto or off [default: auto]
    #[arg(long, value_name = "WHETHER")]
    pub resolver: Option<ResolverMode>,
    /// Bytes of the largest overlay packet: auto (what the largest of the other interfaces takes), or 1280 to 9000 [default: auto]
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<Mtu>,
    /// Days after which the host's WireGuard key is changed by itself, 1 to 3650 [default: never]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub rotate_key_days: Option<u16>,
    /// Packet threads: auto, or a power of two up to 64 [default: auto]
    #[arg(long, value_name = "NUMBER")]
    pub shards: Option<Shards>,
    /// What packets may be sealed with beside ChaCha20-Poly1305: auto (AES-256-GCM where both hosts have instructions for it), standard (nothing), or aes-256-gcm [default: auto]
    #[arg(long, value_name = "CIPHER")]
    pub cipher: Option<CipherOffer>,
    /// Where metrics are asked for, for Prometheus: an address of this host, or off [default: 127.0.0.1:7445]
    #[arg(long, value_name = "IP:PORT")]
    pub metrics: Option<MetricsListen>,
    /// TCP port where other hosts bring calls of services [default: 7444]
    #[arg(long, value_name = "PORT")]
    pub services_port: Option<u16>,
    /// Address at which they do: one of this host's own [default: all]
    #[arg(long, value_name = "IP")]
    pub services_listen: Option<IpAddr>,
    /// Threads that carry calls of services, 1 to 64 [default: one for each core]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub services_threads: Option<u16>,
    /// Port of this host, below 1024, to which what its programs call is brought [default: 747]
    #[arg(long, value_name = "PORT")]
    pub intercept_port: Option<u16>,
    /// Calls of services that are logged, a line of JSON each: off, denied (those that the mesh refused or ended), or all [default: off]
    #[arg(long, value_name = "WHICH")]
    pub access_log: Option<AccessLogMode>,
    /// File that they are appended to; it may be moved away at any time [default: standard output, which is the journal]
    #[arg(long, value_name = "FILE")]
    pub access_log_file: Option<PathBuf>,
    /// Collector that spans of calls are sent to, by OTLP over HTTP [default: none]
    #[arg(long, value_name = "URL")]
    pub otlp: Option<OtlpCollector>,
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
    /// Where keys and the last map are kept.
    pub state_dir: PathBuf,
    /// Local API.
    pub socket: PathBuf,
    /// What the daemon makes in the kernel.
    pub interface: InterfaceSettings,
    /// What the interface's MTU was made of.
    pub mtu: Mtu,
    /// UDP port of the tunnels.
    pub listen_port: u16,
    /// Addresses where peers reach this host.
    pub endpoints: Vec<SocketAddr>,
    /// Where mesh DNS answers on loopback.
    pub dns_listen: SocketAddr,
    /// Whether this host's resolver is told to ask mesh DNS.
    pub resolver: ResolverMode,
    /// Days after which the host's WireGuard key is changed by itself.
    pub rotate_key_days: Option<u16>,
    /// What packets may be sealed with.
    pub cipher: CipherOffer,
    /// Where metrics are asked for.
    pub metrics: MetricsListen,
    /// Where other hosts bring calls of services.
    pub services: ServiceSettings,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which are written.
    pub log_level: String,
}

/// Where settings are when no `--config` says otherwise.
const DEFAULT_CONFIG: &str = "/etc/mesh/meshd.toml";

impl Settings {
    /// Puts flags, files and defaults together.
    ///
    /// # Errors
    /// Names the file or flag and what is wrong with it.
    pub fn load(flags: Flags) -> Result<Self, String> {
        let optional = flags.config.is_none();
        let path = flags.config.unwrap_or_else(|| DEFAULT_CONFIG.into());
        let (file, places): (FileSettings, _) =
            runtime::config::load(&path, optional).map_err(|error| error.to_string())?;
        Self::merge(flags.overrides, file.clone()).map_err(|fault| {
            // A flag that is wrong is in no file, whatever the file says beside it.
            match Self::merge(FileSettings::default(), file) {
                Err(of_file) if of_file == fault => places.name(&fault),
                _ => fault.message,
            }
        })
    }

    fn merge(flags: FileSettings, file: FileSettings) -> Result<Self, Fault> {
        let services = ServiceSettings::merge(&flags, &file);
        let name = flags.interface.or(file.interface);
        let name = name.unwrap_or_else(|| "mesh0".into());
        let mtu = flags.mtu.or(file.mtu).unwrap_or_default();
        let settings = Self {
            state_dir: flags
                .state_dir
                .or(file.state_dir)
                .unwrap_or_else(|| "/var/lib/mesh/meshd".into()),
            socket: flags
                .socket
                .or(file.socket)
                .unwrap_or_else(|| "/run/mesh/meshd.sock".into()),
            interface: InterfaceSettings {
                mtu: mtu.of_interface(&name),
                name,
                table: flags
                    .nft_table
                    .or(file.nft_table)
                    .unwrap_or_else(|| "mesh".into()),
                queues: flags.shards.or(file.shards).unwrap_or_default().count(),
            },
            mtu,
            listen_port: flags.listen_port.or(file.listen_port).unwrap_or(51820),
            endpoints: flags.endpoints.or(file.endpoints).unwrap_or_default(),
            dns_listen: match flags.dns_listen.or(file.dns_listen) {
                Some(address) => address,
                None => SocketAddr::from(([127, 0, 0, 150], 53)),
            },
            resolver: flags.resolver.or(file.resolver).unwrap_or_default(),
            rotate_key_days: flags.rotate_key_days.or(file.rotate_key_days),
            cipher: flags.cipher.or(file.cipher).unwrap_or_default(),
            metrics: match flags.metrics.or(file.metrics) {
                Some(metrics) => metrics,
                None => MetricsListen::At(SocketAddr::from(([127, 0, 0, 1], 7445))),
            },
            services,
            log_format: flags.log_format.or(file.log_format).unwrap_or_default(),
            log_level: flags
                .log_level
                .or(file.log_level)
                .unwrap_or_else(|| "info".into()),
        };
        settings.check()?;
        Ok(settings)
    }

    /// Returns the time after which the host's WireGuard key is changed by itself.
    pub fn rotate_key_every(&self) -> Option<Duration> {
        let days = self.rotate_key_days?;
        Some(Duration::from_secs(u64::from(days) * 24 * 3600))
    }

    fn check(&self) -> Result<(), Fault> {
        let fault = |key, message| Err(Fault { key, message });
        let word = |key: &'static str, text: &str, bytes_max: usize| {
            let fits = !text.is_empty()
                && text.len() <= bytes_max
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
                && text.as_bytes()[0].is_ascii_alphabetic();
            if fits {
                Ok(())
            } else {
                let message = format!(
                    "{key} {text:?} is not a name: use a letter, then letters, digits, - and _, at most {bytes_max} in all"
                );
                fault(key, message)
            }
        };
        for (key, path) in [("state_dir", &self.state_dir), ("socket", &self.socket)] {
            if path.as_os_str().is_empty() {
                let text = format!("{key} is empty: write a path, or leave the line out");
                return fault(key, text);
            }
        }
        if self.listen_port == 0 {
            let text = "listen_port 0 is no port: write the one at which peers are to find this host, such as 51820";
            return fault("listen_port", text.to_owned());
        }
        // IFNAMSIZ of linux/if.h is 16 with the zero.
        word("interface", &self.interface.name, 15)?;
        word("nft_table", &self.interface.table, 64)?;
        if let Err(text) = self.mtu.check() {
            return fault("mtu", text);
        }
        if self
            .rotate_key_days
            .is_some_and(|days| !(1..=3650).contains(&days))
        {
            let text = "rotate_key_days is out of range: 1 to 3650";
            return fault("rotate_key_days", text.to_owned());
        }
        self.services.check()?;
        // The coordinator takes no report that has another in it.
        if let Some(bad) = self.endpoints.iter().find(|it| !is_one_host(**it)) {
            return fault(
                "endpoints",
                format!(
                    "endpoint {bad} is not an address where peers can reach this host; write its public IP and port, such as 203.0.113.7:51820"
                ),
            );
        }
        if !self.dns_listen.ip().is_loopback() {
            return fault(
                "dns_listen",
                format!(
                    "dns_listen {} is not a loopback address; mesh DNS answers on loopback and on the overlay only",
                    self.dns_listen
                ),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_files_and_files_over_defaults() {
        let file = FileSettings {
            listen_port: Some(1),
            mtu: Some(Mtu::Bytes(1300)),
            ..FileSettings::default()
        };
        let flags = FileSettings {
            listen_port: Some(2),
            ..FileSettings::default()
        };
        let settings = Settings::merge(flags, file).unwrap();
        assert_eq!((settings.listen_port, settings.interface.mtu), (2, 1300));
        assert_eq!(settings.interface.name, "mesh0");
    }

    #[test]
    fn names_that_could_break_a_ruleset_are_refused() {
        for name in ["", "a b", "x\"", "1x", "waytoolongforlinux"] {
            let flags = FileSettings {
                interface: Some(name.into()),
                ..FileSettings::default()
            };
            assert!(
                Settings::merge(flags, FileSettings::default()).is_err(),
                "{name}"
            );
        }
    }

    #[test]
    fn an_endpoint_that_nobody_can_reach_is_refused() {
        for (endpoint, is_good) in [
            ("203.0.113.7:51820", true),
            ("203.0.113.7:0", false),
            ("0.0.0.0:51820", false),
        ] {
            let flags = FileSettings {
                endpoints: Some(vec![endpoint.parse().unwrap()]),
                ..FileSettings::default()
            };
            let settings = Settings::merge(flags, FileSettings::default());
            assert_eq!(settings.is_ok(), is_good, "{endpoint}");
        }
    }

    #[test]
    fn a_value_out_of_range_is_named_with_file_and_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meshd.toml");
        std::fs::write(&path, "# mine\ninterface = 'mesh7'\nmtu = 99\n").unwrap();
        let load = |arguments: &[&str]| {
            let flags = ["meshd", "--config", path.to_str().unwrap()];
            Settings::load(Flags::parse_from(flags.iter().chain(arguments)))
        };
        let place = format!("{}, line 3: mtu 99 is out of range", path.display());
        let said = load(&[]).unwrap_err();
        assert!(said.starts_with(&place), "{said}");
        assert_eq!(load(&["--mtu", "1300"]).unwrap().interface.mtu, 1300);
        let said = load(&["--mtu", "1300", "--interface", "7"]).unwrap_err();
        assert!(said.starts_with("interface \"7\""), "{said}");
    }

    #[test]
    fn a_port_that_nobody_could_find_is_refused() {
        let flags = FileSettings {
            listen_port: Some(0),
            ..FileSettings::default()
        };
        let refused = Settings::merge(flags, FileSettings::default()).unwrap_err();
        assert_eq!(refused.key, "listen_port");
    }

    #[test]
    fn a_path_is_not_empty() {
        for key in ["state_dir", "socket"] {
            let mut file = FileSettings::default();
            match key {
                "socket" => file.socket = Some("".into()),
                _ => file.state_dir = Some("".into()),
            }
            let refused = Settings::merge(FileSettings::default(), file).unwrap_err();
            assert_eq!(refused.key, key);
        }
    }

    #[test]
    fn dns_stays_off_the_network() {
        let flags = FileSettings {
            dns_listen: Some("0.0.0.0:53".parse().unwrap()),
            ..FileSettings::default()
        };
        assert!(
            Settings::merge(flags, FileSettings::default())
                .unwrap_err()
                .message
                .contains("loopback")
        );
    }
}
