//! A tunnel with nothing in it but the moving of packets: no handshake, no replay window, no policy, no
//! timers, one peer, IPv4, a key that everybody knows. What our data path is held against, never to be
//! used for anything else.
//!
//! One thread runs each burst to completion: super-packets from the TUN device are cut and sealed straight
//! into the memory that one `sendmmsg` sends as `UDP_SEGMENT` runs; datagrams come by `UDP_GRO`, are opened
//! where they lie and written joined, without a copy. Checksums that come out of the tunnel are believed.

mod checksum;
mod cut;
mod datagrams;
mod join;
mod seal;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::process::ExitCode;

use clap::Parser;
use meshd::linux::tun_offload;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use cut::PACKET_BYTES_MAX;
use datagrams::{Inbox, Outbox};
use join::Joiner;
use seal::{CipherName, Keys};

/// Datagrams that are gathered before they are sent: as much as keeps the caches warm.
const BURST_DATAGRAMS: usize = 256;

/// Forwards packets between a TUN device and one peer, and does nothing else.
#[derive(Parser)]
#[command(name = "bare-forwarder", version)]
struct Arguments {
    /// The name of the TUN device.
    #[arg(long)]
    interface: String,
    /// Bytes of the largest packet in the tunnel.
    #[arg(long)]
    mtu: u16,
    /// The UDP port.
    #[arg(long)]
    listen_port: u16,
    /// Where the other one listens.
    #[arg(long)]
    peer: SocketAddr,
    /// Which of the two this is: each side has a key of its own.
    #[arg(long)]
    side: u8,
    /// What packets are sealed with.
    #[arg(long, value_enum)]
    cipher: CipherName,
}

fn main() -> ExitCode {
    runtime::process::finish("bare-forwarder", run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let failed = |what| move |error: io::Error| format!("cannot {what}: {error}");
    let device = open(arguments).map_err(failed("make the TUN device"))?;
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, arguments.listen_port));
    let socket = UdpSocket::bind(any).map_err(failed("bind"))?;
    let forwarder = Forwarder {
        outbox: Outbox::new(&socket, arguments.peer).map_err(failed("send"))?,
        inbox: Inbox::new(socket).map_err(failed("receive"))?,
        joiner: Joiner::default(),
        keys: Keys::new(arguments.cipher, arguments.side),
        device,
        packet: vec![0; PACKET_BYTES_MAX].into_boxed_slice(),
    };
    runtime::process::notify_ready("forwarding");
    forwarder.run().map_err(failed("forward"))
}

fn open(arguments: &Arguments) -> io::Result<SyncDevice> {
    let device = DeviceBuilder::new()
        .name(&arguments.interface)
        .layer(Layer::L3)
        .mtu(arguments.mtu)
        .offload(true)
        .build_sync()?;
    device.set_nonblocking(true)?;
    tun_offload::enable(&device)?.ok_or(io::ErrorKind::Unsupported)?;
    Ok(device)
}

struct Forwarder {
    device: SyncDevice,
    inbox: Inbox,
    outbox: Outbox,
    joiner: Joiner,
    keys: Keys,
    packet: Box<[u8]>,
}

impl Forwarder {
    fn run(mut self) -> io::Result<()> {
        loop {
            let (from_device, from_network) = self.wait()?;
            if from_network {
                self.take_datagrams()?;
            }
            if from_device {
                self.take_packets()?;
            }
        }
    }

    fn wait(&self) -> io::Result<(bool, bool)> {
        let mut polled = [
            PollFd::new(&self.device, PollFlags::IN),
            PollFd::from_borrowed_fd(self.inbox.as_fd(), PollFlags::IN),
        ];
        match poll(&mut polled, None) {
            Ok(_) => Ok((
                !polled[0].revents().is_empty(),
                !polled[1].revents().is_empty(),
            )),
            Err(Errno::INTR) => Ok((false, false)),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads until nothing is left or a burst is full, then sends all at once.
    fn take_packets(&mut self) -> io::Result<()> {
        while self.outbox.waiting() < BURST_DATAGRAMS {
            let length = match rustix::io::read(&self.device, &mut *self.packet) {
                Ok(length) => length,
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            };
            cut::cut(&mut self.packet[..length], &mut self.outbox, &mut self.keys);
        }
        self.outbox.flush();
        Ok(())
    }

    fn take_datagrams(&mut self) -> io::Result<()> {
        let Self {
            device,
            inbox,
            joiner,
            keys,
            ..
        } = self;
        inbox.receive(|start, datagram| {
            if let Some(packet) = keys.open(datagram) {
                joiner.add(start + packet.start, &datagram[packet]);
            }
        })?;
        joiner.write_all(inbox.memory_mut(), |parts| {
            // A packet that the device does not take is lost, as on any network.
            let _ = rustix::io::writev(&*device, parts);
        });
        Ok(())
    }
}
