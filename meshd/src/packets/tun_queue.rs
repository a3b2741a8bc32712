//! One queue of the TUN device: overlay packets from this host, as large as the kernel gives them,
//! and packets to it, joined where the kernel takes them so.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use dataplane::{Coalescer, Joins, VirtioHeader, recut};
use model::time::Instant;
use rustix::io::Errno;

use super::departures::Departures;
use crate::drops::dropped_by_interface;
use crate::linux::tun_offload;

/// Room for the header and the largest IP packet there is.
const PACKET_BYTES_MAX: usize = VirtioHeader::LEN + 65535;

/// The device with its memory for packets from this host.
pub(super) struct TunQueue {
    device: Arc<OwnedFd>,
    memory: Box<[u8]>,
    has_headers: bool,
    joins: Joins,
    /// Of the interface, where it can be had.
    name: Option<String>,
    departures: Departures,
}

/// The way to the host.
pub(super) struct TunWriter {
    device: Arc<OwnedFd>,
    has_headers: bool,
    /// What the device takes, as far as it has turned out.
    joins: Joins,
}

/// What came of a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// Packets that the device did not take.
    pub(super) failed: usize,
    /// It takes fewer packets joined than it had said.
    pub(super) refused: bool,
}

impl TunQueue {
    /// Takes a queue, and returns what packets its device takes joined.
    pub(super) fn new(device: Arc<OwnedFd>) -> (Self, Joins) {
        let joins = tun_offload::enable(&*device).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot ask the TUN device what it can do; packets go one by one");
            None
        });
        let queue = Self {
            name: tun_offload::name(&*device).ok(),
            departures: Departures::new(),
            device,
            memory: vec![0; PACKET_BYTES_MAX].into_boxed_slice(),
            has_headers: joins.is_some(),
            joins: joins.unwrap_or_default(),
        };
        let joins = queue.joins;
        (queue, joins)
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    pub(super) fn writer(&self) -> TunWriter {
        TunWriter {
            device: Arc::clone(&self.device),
            has_headers: self.has_headers,
            joins: self.joins,
        }
    }

    /// Reads one packet, and tells with it whether it may leave: while programs of this host send more
    /// than can be sent, each destination has a share. Returns whether there was one.
    pub(super) fn receive(
        &mut self,
        handle: impl FnOnce(VirtioHeader, &mut [u8], bool),
    ) -> io::Result<bool> {
        let length = match rustix::io::read(&*self.device, &mut *self.memory) {
            Ok(length) => length,
            Err(Errno::AGAIN) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let received = &mut self.memory[..length];
        match received.split_first_chunk_mut() {
            Some((header, packet)) if self.has_headers => {
                let may_leave = self.departures.admits(packet);
                handle(VirtioHeader::decode(*header), packet, may_leave);
            }
            // Shorter than its header: no kernel sends that.
            None if self.has_headers => {}
            _ => {
                let may_leave = self.departures.admits(received);
                handle(VirtioHeader::default(), received, may_leave);
            }
        }
        Ok(true)
    }

    /// Takes how many packets one burst has read, and whether more may wait.
    pub(super) fn handle_burst(&mut self, packets: usize, is_full: bool) {
        self.departures.handle_burst(packets, is_full);
    }

    /// Returns when to look at who sends too much, even if nothing is sent.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.departures.deadline()
    }

    /// Looks at who sends too much, when it is time.
    pub(super) fn look_when_due(&mut self, now: Instant) {
        let name = self.name.as_deref();
        self.departures
            .look_when_due(now, || dropped_by_interface(name?));
    }
}

impl TunWriter {
    /// Returns what the device takes joined.
    pub(super) fn joins(&self) -> Joins {
        self.joins
    }

    /// Writes one packet, which may stand for several.
    pub(super) fn send(&mut self, header: VirtioHeader, parts: &[&[u8]]) -> Written {
        let device = Arc::clone(&self.device);
        self.send_by(header, parts, |slices| {
            rustix::io::writev(&*device, slices).map(|_| ())
        })
    }

    fn send_by(
        &mut self,
        header: VirtioHeader,
        parts: &[&[u8]],
        mut write: impl FnMut(&[IoSlice<'_>]) -> Result<(), Errno>,
    ) -> Written {
        if !self.joins.include(header) {
            return self.send_apart(header, parts, write);
        }
        let encoded = header.encode();
        let mut slices = [IoSlice::new(&[]); Coalescer::PARTS_MAX + 1];
        slices[0] = IoSlice::new(if self.has_headers { &encoded } else { &[] });
        for (slice, part) in slices[1..].iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
        }
        match write(&slices[..=parts.len()]) {
            Ok(()) => Written::default(),
            // It had said that it takes them.
            Err(Errno::INVAL) if header != VirtioHeader::default() => {
                tracing::warn!(
                    ?header,
                    "the kernel refuses packets that it had offered to take joined; they go one by one from here on"
                );
                self.joins = self.joins.without(header);
                Written {
                    refused: true,
                    ..self.send_apart(header, parts, write)
                }
            }
            Err(error) => Written::failed(parts.len(), error),
        }
    }

    /// Writes the packets that this one stands for, one by one.
    fn send_apart(
        &self,
        header: VirtioHeader,
        parts: &[&[u8]],
        mut write: impl FnMut(&[IoSlice<'_>]) -> Result<(), Errno>,
    ) -> Written {
        let plain = VirtioHeader::default().encode();
        let plain: &[u8] = if self.has_headers { &plain } else { &[] };
        let mut all = Written::default();
        let cut = recut(header, &parts.concat(), |headers, payload| {
            let slices = [plain, headers, payload].map(IoSlice::new);
            if let Err(error) = write(&slices) {
                all.failed += Written::failed(1, error).failed;
            }
        });
        if cut.is_err() {
            all.failed += parts.len();
        }
        all
    }
}

impl Written {
    fn failed(packets: usize, error: Errno) -> Self {
        tracing::debug!(%error, packets, "the TUN device does not take packets");
        Self {
            failed: packets,
            refused: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::interface::tests::{is_in_namespace, said_by};

    /// A writer whose device is never asked.
    fn writer() -> TunWriter {
        let nowhere = std::fs::File::open("/dev/null").unwrap();
        TunWriter {
            device: Arc::new(nowhere.into()),
            has_headers: true,
            joins: Joins {
                tcp: true,
                udp: true,
            },
        }
    }

    fn datagram(port: u8, payload: u8) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 128, 0, 0, 0x40, 0, 64, 17, 0, 0];
        packet.extend([100, 64, 0, 1, 100, 64, 0, 2]);
        packet.extend([0, port, 0, 9, 0, 108, 0, 0]);
        packet.extend([payload; 100]);
        packet
    }

    /// A packet as a device gets it.
    #[derive(Debug, PartialEq)]
    struct Got {
        header: VirtioHeader,
        bytes: usize,
        last: u8,
    }

    /// Joins datagrams of one flow with no checksums, and sends them to a device that answers so.
    fn send(
        writer: &mut TunWriter,
        datagrams: &[Vec<u8>],
        mut answer: impl FnMut(VirtioHeader) -> Result<(), Errno>,
    ) -> (Vec<Got>, Written) {
        let mut coalescer = Coalescer::new(writer.joins(), 1 << 16);
        for packet in datagrams {
            coalescer.add(packet.len(), |room| {
                room.copy_from_slice(packet);
                packet.len()
            });
        }
        let (mut got, mut all) = (Vec::new(), Written::default());
        coalescer.take_all(|header, parts| {
            let written = writer.send_by(header, parts, |slices| {
                let whole: Vec<u8> = slices.iter().flat_map(|it| it.to_vec()).collect();
                let (header, packet) = whole.split_first_chunk().unwrap();
                let header = VirtioHeader::decode(*header);
                answer(header)?;
                got.push(Got {
                    header,
                    bytes: packet.len(),
                    last: *packet.last().unwrap(),
                });
                Ok(())
            });
            all.failed += written.failed;
            all.refused |= written.refused;
        });
        (got, all)
    }

    fn three() -> [Vec<u8>; 3] {
        [1, 2, 3].map(|payload| {
            let mut packet = datagram(7, payload);
            set_checksum(&mut packet);
            packet
        })
    }

    /// Of a datagram over IPv4 without options: what is wrong is not joined.
    fn set_checksum(packet: &mut [u8]) {
        let word = |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], pair[1]]));
        let fold = |sum: u32| {
            let sum = (sum & 0xffff) + (sum >> 16);
            !(((sum & 0xffff) + (sum >> 16)) as u16)
        };
        let ip: u32 = packet[..20].chunks(2).map(word).sum();
        let udp: u32 = packet[12..].chunks(2).map(word).sum::<u32>() + 17 + 108;
        packet[10..12].copy_from_slice(&fold(ip).to_be_bytes());
        packet[26..28].copy_from_slice(&fold(udp).to_be_bytes());
    }

    #[test]
    fn a_packet_that_is_refused_joined_goes_in_its_parts_and_no_more_are_tried() {
        let mut writer = writer();
        let mut tries = 0;
        let plain = |last| Got {
            header: VirtioHeader::default(),
            bytes: 128,
            last,
        };
        for (tried, refused) in [(1, true), (1, false)] {
            let (got, written) = send(&mut writer, &three(), |header| {
                let is_joined = header != VirtioHeader::default();
                tries += usize::from(is_joined);
                if is_joined { Err(Errno::INVAL) } else { Ok(()) }
            });
            assert_eq!(got, [plain(1), plain(2), plain(3)]);
            assert_eq!(written, Written { failed: 0, refused });
            assert_eq!(tries, tried);
        }
        let left = Joins {
            tcp: true,
            udp: false,
        };
        assert_eq!(writer.joins(), left, "of the other kind nothing is known");
    }

    #[test]
    fn a_device_that_takes_them_gets_them_joined() {
        let (got, written) = send(&mut writer(), &three(), |_| Ok(()));
        assert_eq!(got.len(), 1);
        assert_eq!((got[0].bytes, got[0].last), (328, 3));
        assert_eq!(written, Written::default());
    }

    #[test]
    fn a_full_queue_or_an_interface_that_is_down_costs_its_packets_and_no_more() {
        for error in [Errno::AGAIN, Errno::IO, Errno::NOBUFS] {
            let mut writer = writer();
            let (got, written) = send(&mut writer, &three(), |_| Err(error));
            assert!(got.is_empty());
            let failed = Written {
                failed: 3,
                refused: false,
            };
            assert_eq!(written, failed, "{error}");
            let (got, _) = send(&mut writer, &three(), |_| Ok(()));
            assert_eq!(got.len(), 1, "still joined");
        }
    }

    #[test]
    fn an_interface_that_is_down_costs_packets_and_takes_them_again_when_it_is_up() {
        if !is_in_namespace(
            "packets::tun_queue::tests::an_interface_that_is_down_costs_packets_and_takes_them_again_when_it_is_up",
        ) {
            return;
        }
        let device = tun_rs::DeviceBuilder::new()
            .name("mesh7")
            .layer(tun_rs::Layer::L3)
            .offload(true)
            .enable(false)
            .build_sync()
            .unwrap();
        let device = device.as_fd().try_clone_to_owned();
        let (queue, joins) = TunQueue::new(Arc::new(device.unwrap()));
        assert!(joins.tcp, "each kernel does that");
        let mut writer = queue.writer();
        let packet = datagram(1, 1);
        let mut send = || writer.send(VirtioHeader::default(), &[&packet]);
        assert_eq!(send().failed, 1);
        let said = said_by("ip", &["link", "set", "mesh7", "up"]);
        assert_eq!((said.as_str(), send()), ("", Written::default()));
    }
}
