//! Looks at the machine, at everything at once, each look for a few seconds at most. Changes nothing:
//! files are read, programs are asked to list, peers and coordinators get what they get all day.

mod coordinator;
mod files;
mod kernel;
mod process;
mod programs;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::local::{DnsView, DropsView, HostState, HostStatus, PeerView, PingReply, PingRequest};
use runtime::api_client::ApiClient;

use super::facts::{DaemonSettings, Facts, Known, Ping, Process, TunNode, Verdict};
use crate::arguments::Targets;
use crate::connect;
use crate::output::now_secs;

pub(crate) use programs::said_by;

/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long a peer may take to answer an echo.
const ECHO_PATIENCE: Duration = Duration::from_secs(2);
/// Peers that are asked for an echo.
const PEERS_MAX: usize = 8;
/// Addresses of coordinators that are tried.
const COORDINATORS_MAX: usize = 16;

/// Gathers everything. `config` is the daemon's settings file where it is not at its place.
pub(crate) async fn facts(targets: &Targets, config: Option<PathBuf>) -> Facts {
    let client = connect::daemon(targets).with_patience(PATIENCE);
    let socket = connect::daemon_socket(targets);
    let (daemon, listening, verdict) = tokio::join!(
        client.get::<HostStatus>("/v1/status"),
        process::listening(socket, "meshd"),
        programs::verdict("meshd", config.clone()),
    );
    let daemon = daemon.map_err(|error| error.to_string());
    let has_settings_file = config.is_some() || files::has_settings();
    let settings = settings(&daemon, listening, &verdict, config.clone());
    let coordinators = coordinators(&daemon);
    let own_name = own_name(&daemon);
    let (told, network, machine) = tokio::join!(
        told_by_daemon(&client, &daemon),
        async {
            tokio::join!(
                kernel::links(),
                kernel::routes(),
                kernel::ruleset(),
                kernel::iptables(),
                programs::firewalls(settings.as_ref().map_or(0, |it| it.listen_port)),
                reached(coordinators),
                resolved(own_name),
            )
        },
        async {
            tokio::join!(
                programs::unit("meshd.service"),
                programs::clock_is_kept(),
                programs::installed_version(),
                programs::obstacles(config),
                coordinator::own(targets),
            )
        },
    );
    let (peers, pings, dns, drops) = told;
    let (links, routes, ruleset, iptables, firewalls, coordinators, own_name) = network;
    let (unit, clock_is_kept, installed_version, obstacles, own_coordinator) = machine;
    let is_root = rustix::process::geteuid().is_root();
    let is_of_unit = socket == Path::new(connect::DAEMON_SOCKET);
    let process = process::settled(listening, &unit, is_of_unit);
    Facts {
        is_root,
        has_settings_file,
        verdict,
        withheld: process::withheld(process),
        process,
        version: env!("CARGO_PKG_VERSION"),
        now_secs: now_secs(),
        clock_is_kept,
        state_dir: settings
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|it| files::state_dir(&it.state_dir)),
        settings,
        daemon,
        installed_version,
        obstacles,
        peers,
        pings,
        dns,
        drops,
        own_name,
        resolv_conf: files::text("/etc/resolv.conf"),
        coordinators,
        tun: if is_root {
            files::tun()
        } else {
            TunNode::Unknown
        },
        links,
        routes,
        udp_ports: files::udp_ports(),
        ruleset,
        iptables,
        firewalls,
        unit,
        own_coordinator,
        kernel: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
    }
}

/// What a running daemon says comes before what its files say: flags win over files, and it keeps
/// what it has when they make no sense.
fn settings(
    daemon: &Known<HostStatus>,
    listening: Process,
    verdict: &Verdict,
    config: Option<PathBuf>,
) -> Known<DaemonSettings> {
    let of_files = match verdict {
        Verdict::Refused(why) => Err(why.clone()),
        Verdict::Good | Verdict::Unknown(_) => files::settings(config),
    };
    let Some(detail) = daemon.as_ref().ok().and_then(|it| it.detail.as_ref()) else {
        return of_files;
    };
    let of_files = of_files.unwrap_or_default();
    Ok(DaemonSettings {
        interface: detail.interface.clone(),
        listen_port: detail.listen_port,
        nft_table: detail.nft_table.clone().unwrap_or(of_files.nft_table),
        state_dir: detail
            .state_dir
            .clone()
            .map_or(of_files.state_dir, PathBuf::from),
        mtu: detail.mtu.unwrap_or(of_files.mtu),
        set_mtu: match process::mtu_flag(listening) {
            Some(flag) => flag.parse().ok(),
            None => of_files.set_mtu,
        },
    })
}

type Told = (
    Known<Vec<PeerView>>,
    Vec<Ping>,
    Known<DnsView>,
    Known<DropsView>,
);

async fn told_by_daemon(client: &ApiClient, daemon: &Known<HostStatus>) -> Told {
    let is_member = |it: &HostStatus| matches!(it.state, HostState::Online | HostState::Autonomous);
    if !daemon.as_ref().is_ok_and(is_member) {
        let why = "meshd does not answer, or this host is no member";
        return (
            Err(why.into()),
            Vec::new(),
            Err(why.into()),
            Err(why.into()),
        );
    }
    let (peers, dns, drops) = tokio::join!(
        client.get::<Vec<PeerView>>("/v1/peers"),
        client.get::<DnsView>("/v1/dns"),
        client.get::<DropsView>("/v1/drops"),
    );
    let peers = peers.map_err(|error| error.to_string());
    let pings = match &peers {
        Ok(peers) => pings(client, peers).await,
        Err(_) => Vec::new(),
    };
    let (dns, drops) = (
        dns.map_err(|it| it.to_string()),
        drops.map_err(|it| it.to_string()),
    );
    (peers, pings, dns, drops)
}

/// Asks some peers, those with the latest handshakes first: who is quiet may be off.
async fn pings(client: &ApiClient, peers: &[PeerView]) -> Vec<Ping> {
    let mut asked: Vec<&PeerView> = peers.iter().filter(|it| it.endpoint.is_some()).collect();
    asked.sort_by_key(|peer| peer.last_handshake_secs.unwrap_or(u64::MAX));
    let mut under_way = tokio::task::JoinSet::new();
    for (number, peer) in asked.into_iter().take(PEERS_MAX).enumerate() {
        let (client, name, mtu) = (client.clone(), peer.name.to_string(), peer.mtu);
        under_way.spawn(async move { (number, ping(&client, name, mtu).await) });
    }
    let mut done = under_way.join_all().await;
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, ping)| ping).collect()
}

/// Asks with what fits the way to the peer, as far as the daemon knows it.
async fn ping(client: &ApiClient, peer: String, mtu: Option<u16>) -> Ping {
    let small = echo(client, &peer, None).await;
    let room = small
        .as_ref()
        .ok()
        .filter(|it| it.round_trip_micros.is_some());
    let large = match room.map(|it| it.interface_mtu) {
        Some(interface) => Some(echo(client, &peer, mtu.or(Some(interface))).await),
        None => None,
    };
    Ping { peer, small, large }
}

async fn echo(client: &ApiClient, peer: &str, packet_bytes: Option<u16>) -> Known<PingReply> {
    let request = PingRequest {
        host: peer.to_owned(),
        timeout_millis: u64::try_from(ECHO_PATIENCE.as_millis()).unwrap_or(u64::MAX),
        packet_bytes,
    };
    let asked = client.query("/v1/ping", &request).await;
    asked.map_err(|error| error.to_string())
}

fn coordinators(daemon: &Known<HostStatus>) -> Vec<String> {
    let detail = daemon.as_ref().ok().and_then(|it| it.detail.as_ref());
    let known = detail.map_or(&[][..], |it| &it.coordinators);
    known.iter().take(COORDINATORS_MAX).cloned().collect()
}

async fn reached(addresses: Vec<String>) -> Vec<(String, Known<()>)> {
    let mut under_way = tokio::task::JoinSet::new();
    for (number, address) in addresses.into_iter().enumerate() {
        under_way.spawn(async move {
            let connecting = tokio::net::TcpStream::connect(&address);
            let reached = match tokio::time::timeout(PATIENCE, connecting).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("no answer".to_owned()),
            };
            (number, (address, reached))
        });
    }
    let mut done = under_way.join_all().await;
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, reached)| reached).collect()
}

fn own_name(daemon: &Known<HostStatus>) -> Option<String> {
    let detail = daemon.as_ref().ok()?.detail.as_ref()?;
    let suffix = Some(&detail.dns_suffix).filter(|it| !it.is_empty())?;
    Some(format!("{}.{suffix}", detail.name))
}

/// Asks as programs do: by whatever nsswitch.conf and resolv.conf say.
async fn resolved(name: Option<String>) -> Known<Vec<IpAddr>> {
    let name = name.ok_or("this host has no name in a fleet")?;
    match tokio::time::timeout(PATIENCE, tokio::net::lookup_host((name, 0))).await {
        Ok(Ok(found)) => Ok(found.map(|it| it.ip()).collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer".into()),
    }
}
