//! Everything that is looked at, as plain values: the checks are functions of it and of nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use model::admin::CoordinatorStatus;
use model::local::{DnsView, DropsView, HostStatus, PeerView, PingReply};
use serde_json::Value;

/// A value, or why it could not be had.
pub(crate) type Known<T> = Result<T, String>;

/// What is known of this machine at one moment.
pub(crate) struct Facts {
    /// Whoever asks may see everything.
    pub(crate) is_root: bool,
    /// Of this program.
    pub(crate) version: &'static str,
    /// Unix seconds, by this machine's clock.
    pub(crate) now_secs: u64,
    /// Whether something sets the clock.
    pub(crate) clock_is_kept: Known<bool>,
    /// Somebody wrote settings for a daemon, or named a file of them.
    pub(crate) has_settings_file: bool,
    /// What the daemon is made to do.
    pub(crate) settings: Known<DaemonSettings>,
    /// What the daemon's own program says of its settings.
    pub(crate) verdict: Verdict,
    /// Whether the daemon runs, whatever it says.
    pub(crate) process: Process,
    /// What the daemon says; an error when nobody answers.
    pub(crate) daemon: Known<HostStatus>,
    /// Of the program on the disk.
    pub(crate) installed_version: Known<String>,
    /// What stands in the daemon's way, as `meshd --plan` says.
    pub(crate) obstacles: Result<Vec<String>, Obstacle>,
    pub(crate) peers: Known<Vec<PeerView>>,
    pub(crate) pings: Vec<Ping>,
    pub(crate) dns: Known<DnsView>,
    pub(crate) drops: Known<DropsView>,
    /// What programs get for this host's own name.
    pub(crate) own_name: Known<Vec<IpAddr>>,
    /// The text of /etc/resolv.conf.
    pub(crate) resolv_conf: Known<String>,
    /// Each address of a coordinator, and whether a connection opens.
    pub(crate) coordinators: Vec<(String, Known<()>)>,
    pub(crate) tun: TunNode,
    pub(crate) links: Known<Vec<Link>>,
    pub(crate) routes: Known<Vec<Route>>,
    /// UDP ports that somebody has.
    pub(crate) udp_ports: Known<BTreeSet<u16>>,
    /// As `nft -j list ruleset` tells it.
    pub(crate) ruleset: Known<Value>,
    /// Rules of the older iptables, as `iptables -S` tells them.
    pub(crate) iptables: Known<Vec<String>>,
    /// Programs that keep a firewall, and run: their names, and whether they know of the port.
    pub(crate) firewalls: Vec<(&'static str, Known<bool>)>,
    pub(crate) state_dir: Known<StateDirectory>,
    /// Properties of the daemon's unit (systemctl show).
    pub(crate) unit: Known<BTreeMap<String, String>>,
    /// Capabilities that this machine's processes may have and the daemon may not, as bits
    /// (capabilities(7): the bounding set).
    pub(crate) withheld: u64,
    /// As uname tells it.
    pub(crate) kernel: String,
    /// The coordinator, when this machine has one.
    pub(crate) own_coordinator: Option<OwnCoordinator>,
}

/// The coordinator of this machine.
pub(crate) struct OwnCoordinator {
    /// What its own program says of its settings.
    pub(crate) verdict: Verdict,
    /// Whether it runs, whatever it says.
    pub(crate) process: Process,
    /// What it says; an error when nobody answers.
    pub(crate) version: Known<String>,
    /// What it says to those whom it trusts.
    pub(crate) status: Option<CoordinatorStatus>,
    /// Properties of its unit.
    pub(crate) unit: Known<BTreeMap<String, String>>,
    /// Where its keys and its store are.
    pub(crate) state_dir: Known<StateDirectory>,
    /// Each address that it advertises, and whether what answers there is what hosts believe.
    pub(crate) shown: Vec<(String, Shown)>,
}

/// What answers at an address that a coordinator advertises, as its own machine sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// What hosts believe.
    Believed,
    /// What hosts do not believe, and why: another root, or the clock.
    Refused(String),
    /// Nobody, from here; whoever is outside of a NAT may see more.
    NotReached(String),
}

/// What a program says of its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It would start with them.
    Good,
    /// It would not, and says why.
    Refused(String),
    /// It cannot be asked.
    Unknown(String),
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// The program was asked, and fails.
    Refused(String),
    /// It was not, or cannot be.
    NotAsked(String),
}

/// Whether a daemon runs, as the kernel and systemd say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Process {
    /// Nobody listens at its socket, and systemd knows of no process.
    None,
    /// There is a process.
    Runs {
        /// Which, where that is known.
        pid: Option<u32>,
        /// A signal or a debugger holds it.
        is_stopped: bool,
    },
}

/// What the daemon is made to do, as it says or as its files say.
#[derive(Clone, Debug)]
pub(crate) struct DaemonSettings {
    pub(crate) interface: String,
    pub(crate) nft_table: String,
    pub(crate) listen_port: u16,
    pub(crate) mtu: u16,
    /// The number that somebody wrote; `None`: `auto`, or nothing.
    pub(crate) set_mtu: Option<u16>,
    pub(crate) state_dir: PathBuf,
}

/// The daemon's own defaults.
impl Default for DaemonSettings {
    fn default() -> Self {
        Self {
            interface: "mesh0".into(),
            nft_table: "mesh".into(),
            listen_port: 51820,
            mtu: 1420,
            set_mtu: None,
            state_dir: "/var/lib/mesh/meshd".into(),
        }
    }
}

/// An echo to a peer: a small one, and one that fills the overlay's interface.
#[derive(Clone, Debug)]
pub(crate) struct Ping {
    pub(crate) peer: String,
    pub(crate) small: Known<PingReply>,
    /// Asked when the small one was answered.
    pub(crate) large: Option<Known<PingReply>>,
}

/// /dev/net/tun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TunNode {
    Opens,
    Missing,
    NoDevice,
    Refused(String),
    /// Only root may.
    Unknown,
}

/// A network interface.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) name: String,
    pub(crate) mtu: u32,
    pub(crate) is_up: bool,
    pub(crate) is_loopback: bool,
}

/// A route that the host's rules lead to.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// `None`: the default route.
    pub(crate) destination: Option<IpNet>,
    pub(crate) device: Option<String>,
    /// The daemon made it.
    pub(crate) is_ours: bool,
    /// It leads nowhere.
    pub(crate) is_unreachable: bool,
}

/// Where keys and maps are kept.
#[derive(Clone, Debug)]
pub(crate) struct StateDirectory {
    pub(crate) path: PathBuf,
    pub(crate) free_bytes: u64,
    /// `None`: the file system does not count them.
    pub(crate) free_files: Option<u64>,
    pub(crate) is_read_only: bool,
    /// Permission bits of the directory, and of files in it that others may read.
    pub(crate) mode: u32,
    pub(crate) exposed: Vec<(String, u32)>,
    /// It belongs to another user than the daemon's.
    pub(crate) is_foreign: bool,
}

impl Facts {
    /// The prefixes of the overlay, as the routes say that guard it.
    pub(crate) fn overlay(&self) -> Vec<IpNet> {
        let routes = self.routes.as_deref().unwrap_or_default();
        let ours = routes.iter().filter(|it| it.is_ours && it.is_unreachable);
        ours.filter_map(|route| route.destination).collect()
    }

    pub(crate) fn link(&self, name: &str) -> Option<&Link> {
        let links = self.links.as_deref().unwrap_or_default();
        links.iter().find(|link| link.name == name)
    }

    /// The interfaces that are the daemon's, by its settings and by the routes that it made.
    pub(crate) fn own_devices(&self) -> BTreeSet<String> {
        let routes = self.routes.as_deref().unwrap_or_default();
        let ours = routes.iter().filter(|it| it.is_ours);
        let made = ours.filter_map(|it| it.device.clone());
        let set = self.settings.as_ref().map(|it| it.interface.clone());
        made.chain(set).collect()
    }

    /// Whether this machine is to have a daemon; one with a coordinator need not.
    pub(crate) fn has_daemon(&self) -> bool {
        let unit = self.unit.as_ref().ok().and_then(|it| it.get("LoadState"));
        self.own_coordinator.is_none()
            || self.has_settings_file
            || self.process != Process::None
            || self.installed_version.is_ok()
            || unit.is_some_and(|state| state == "loaded")
    }

    /// Whether the daemon runs and does not answer: then much cannot be judged without its word.
    pub(crate) fn is_hung(&self) -> bool {
        self.daemon.is_err() && self.process != Process::None
    }

    /// The port of the tunnels.
    pub(crate) fn port(&self) -> Option<u16> {
        self.settings.as_ref().ok().map(|it| it.listen_port)
    }

    /// Where the peers' tunnels go.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let peers = self.peers.as_deref().unwrap_or_default();
        peers.iter().filter_map(|peer| peer.endpoint)
    }
}
