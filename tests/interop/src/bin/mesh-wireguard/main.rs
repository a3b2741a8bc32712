//! Our packet side as a plain WireGuard device: the daemon's packet threads, interface and
//! firewall, without agent and coordinator, configured by `wg`. For tests and measurements.
//!
//! `wg` is served by [`device`], which turns what [`configuration`] knows into commands; the
//! protocol is read and written by [`request`] and [`answer`].

mod answer;
mod configuration;
mod device;
mod request;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;

use clap::Parser;
use dataplane::{DataCipher, Limits, ShardConfig};
use ipnet::{Ipv4Net, Ipv6Net};
use meshd::linux::interception::Interception;
use meshd::linux::interface::{Interface, InterfaceSettings, OverlayConfig};
use meshd::packets::{PacketWorker, UdpSockets, WorkerMessage};
use model::address::{HostAddresses, OverlayPrefixes};
use runtime::clock::{Clock, random_seed};
use runtime::logs::{self, LogFormat};
use runtime::process;
use tokio::sync::mpsc;

use configuration::Configuration;
use device::Device;

const EVENTS_MAX: usize = 4096;

/// A WireGuard device of our own packet code, which `wg` configures.
#[derive(Parser)]
#[command(name = "mesh-wireguard", version)]
struct Arguments {
    /// The name of the TUN device.
    interface: String,
    /// This host's IPv4 address in the tunnel.
    #[arg(long)]
    address_v4: Ipv4Addr,
    /// This host's IPv6 address in the tunnel.
    #[arg(long)]
    address_v6: Ipv6Addr,
    /// The IPv4 prefix that is routed into the tunnel.
    #[arg(long)]
    overlay_v4: Ipv4Net,
    /// The IPv6 prefix that is routed into the tunnel.
    #[arg(long)]
    overlay_v6: Ipv6Net,
    /// The UDP port.
    #[arg(long, default_value_t = 51820)]
    listen_port: u16,
    /// Bytes of the largest packet in the tunnel.
    #[arg(long, default_value_t = 1420)]
    mtu: u16,
    /// What packets are sealed with: the standard, or what only another device of this kind knows.
    #[arg(long, value_enum, default_value_t = Cipher::Standard)]
    cipher: Cipher,
    /// Behaves as under a flood of handshakes: whoever shakes hands must first prove its address.
    #[arg(long)]
    always_loaded: bool,
}

/// What packets are sealed with.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Cipher {
    /// ChaCha20-Poly1305, as every WireGuard device.
    Standard,
    /// AES-256-GCM.
    #[value(name = "aes-256-gcm")]
    Aes256Gcm,
}

impl From<Cipher> for DataCipher {
    fn from(cipher: Cipher) -> Self {
        match cipher {
            Cipher::Standard => Self::ChaCha20Poly1305,
            Cipher::Aes256Gcm => Self::Aes256Gcm,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    process::finish("mesh-wireguard", start(&arguments))
}

fn start(arguments: &Arguments) -> Result<(), String> {
    logs::start(LogFormat::Text, "info")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    runtime.block_on(run(arguments))
}

async fn run(arguments: &Arguments) -> Result<(), String> {
    let overlay = OverlayConfig {
        addresses: HostAddresses {
            v4: arguments.address_v4,
            v6: arguments.address_v6,
        },
        prefixes: OverlayPrefixes::checked(arguments.overlay_v4, arguments.overlay_v6)
            .map_err(text)?,
    };
    let settings = InterfaceSettings {
        name: arguments.interface.clone(),
        table: "mesh".into(),
        mtu: arguments.mtu,
        queues: 1,
    };
    let clock = Clock::start();
    let sockets = UdpSockets::bind(arguments.listen_port).map_err(text)?;
    let configuration =
        Configuration::new(overlay.addresses, sockets.port(), arguments.cipher.into());
    let seed = random_seed().map_err(text)?;
    let (news, events) = mpsc::channel(EVENTS_MAX);
    let worker = PacketWorker::start(shard_config(arguments), vec![sockets], seed, clock, news)
        .map_err(|error| format!("cannot start the packet thread: {error}"))?;
    let interface = Interface::up(settings, overlay, &Interception::default())
        .await
        .map_err(text)?;
    let tun = WorkerMessage::Device(interface.device());
    worker.handle().send(tun).map_err(text)?;
    let device = Device::open(&arguments.interface, configuration, worker.handle(), clock)?;
    process::notify_ready("ready");
    let outcome = tokio::select! {
        ended = device.serve(events) => ended,
        signal = process::termination() => signal.map(drop).map_err(text),
    };
    if let Err(error) = interface.down().await {
        tracing::warn!(%error, "what guards the overlay stays");
    }
    worker.stop();
    outcome
}

fn shard_config(arguments: &Arguments) -> ShardConfig {
    let mut limits = Limits::default();
    if arguments.always_loaded {
        limits.handshakes_per_sec_loaded = 0;
    }
    ShardConfig {
        limits,
        mtu: arguments.mtu,
        ..ShardConfig::default()
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
