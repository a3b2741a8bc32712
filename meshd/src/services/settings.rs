//! Where calls of services come in: from other hosts, and from this host's own programs.

use std::net::IpAddr;
use std::str::FromStr;

use model::catalogue::STREAM_PORT;
use proxy::{AccessLog, Collector, Telling};
use runtime::config::Fault;

use crate::linux::interception;
use crate::settings::FileSettings;

/// Threads at most, whatever the machine has.
const THREADS_MAX: u16 = 64;
/// The lowest port that every user may listen on, as Linux comes (ip-sysctl.rst).
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

/// The settings of services in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSettings {
    /// Where other hosts bring calls: TCP.
    pub port: u16,
    /// At which of this host's addresses they do; `None`: all.
    pub listen: Option<IpAddr>,
    /// Threads that carry calls.
    pub threads: usize,
    /// To which port of this host what its programs call is brought.
    pub intercept_port: u16,
    /// Where calls are written down beside what `meshctl` shows.
    pub telling: Telling,
}

impl ServiceSettings {
    /// Puts flags, file and defaults together.
    pub(crate) fn merge(flags: &FileSettings, file: &FileSettings) -> Self {
        let threads = flags.services_threads.or(file.services_threads);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let port = flags.intercept_port.or(file.intercept_port);
        Self {
            port: flags
                .services_port
                .or(file.services_port)
                .unwrap_or(STREAM_PORT),
            listen: flags.services_listen.or(file.services_listen),
            threads: threads.map_or(cores.min(THREADS_MAX.into()), usize::from),
            intercept_port: port.unwrap_or(interception::DEFAULT_PORT),
            telling: telling(flags, file),
        }
    }

    /// Looks whether they make sense.
    ///
    /// # Errors
    /// The first that does not.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        let fault = |key, message| Err(Fault { key, message });
        if self.port == 0 {
            let text = "services_port 0 is no port: write the one at which other hosts are to find this one, such as 7444";
            return fault("services_port", text.to_owned());
        }
        if !(1..=usize::from(THREADS_MAX)).contains(&self.threads) {
            let text = format!("services_threads is out of range: 1 to {THREADS_MAX}");
            return fault("services_threads", text);
        }
        if !(1..FIRST_UNPRIVILEGED_PORT).contains(&self.intercept_port) {
            let text = format!(
                "intercept_port {} is out of range: 1 to {}, since any user of this host could listen on a higher one in the place of meshd",
                self.intercept_port,
                FIRST_UNPRIVILEGED_PORT - 1
            );
            return fault("intercept_port", text);
        }
        Ok(())
    }

    /// Returns what is listened on, and where, for people.
    pub(crate) fn places(&self) -> [(&'static str, String); 2] {
        let at = match self.listen {
            None => "all addresses".to_owned(),
            Some(address) => address.to_string(),
        };
        let own = format!(
            "port {}, loopback, for what this host's programs call",
            self.intercept_port
        );
        [("tcp", format!("port {}, {at}", self.port)), ("tcp", own)]
    }
}

/// Which calls are written to the access log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum AccessLogMode {
    /// None
    #[default]
    Off,
    /// Those that the mesh refused or ended
    Denied,
    /// All
    All,
}

fn telling(flags: &FileSettings, file: &FileSettings) -> Telling {
    let path = flags
        .access_log_file
        .as_ref()
        .or(file.access_log_file.as_ref());
    let path = path.cloned();
    let collector = flags.otlp.as_ref().or(file.otlp.as_ref());
    Telling {
        access_log: match flags.access_log.or(file.access_log).unwrap_or_default() {
            AccessLogMode::Off => AccessLog::Off,
            AccessLogMode::Denied => AccessLog::Denied(path),
            AccessLogMode::All => AccessLog::All(path),
        },
        collector: collector.map(|it| it.0.clone()),
    }
}

/// Where spans of calls go, as it is written in a file or a flag.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct OtlpCollector(Collector);

impl FromStr for OtlpCollector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self)
    }
}

impl TryFrom<String> for OtlpCollector {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::settings::{Flags, Settings};

    fn load(arguments: &[&str]) -> Result<Settings, String> {
        let none = ["meshd", "--config", "/dev/null"];
        Settings::load(Flags::parse_from(none.iter().chain(arguments)))
    }

    #[test]
    fn calls_come_in_at_the_ports_that_are_reserved_for_them() {
        let services = load(&[]).unwrap().services;
        assert_eq!((services.port, services.intercept_port), (7444, 747));
        assert!(services.threads >= 1 && services.listen.is_none());
    }

    #[test]
    fn a_port_that_any_user_could_take_is_refused() {
        for (port, is_good) in [("0", false), ("1", true), ("1023", true), ("1024", false)] {
            let loaded = load(&["--intercept-port", port]);
            assert_eq!(loaded.is_ok(), is_good, "{port}");
        }
        let said = load(&["--intercept-port", "8080"]).unwrap_err();
        assert!(said.contains("any user of this host"), "{said}");
        assert!(load(&["--services-port", "0"]).is_err());
    }
}
