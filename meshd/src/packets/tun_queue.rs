//! One queue of the TUN device: overlay packets from this host, as large as the kernel gives them,
//! and packets to it, joined where the kernel takes them so.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use dataplane::{Coalescer, Joins, VirtioHeader};
use rustix::io::Errno;

use crate::linux::tun_offload;

/// Room for the header and the largest IP packet there is.
const PACKET_BYTES_MAX: usize = VirtioHeader::LEN + 65535;

/// The device with its memory for packets from this host.
pub(super) struct TunQueue {
    device: Arc<OwnedFd>,
    memory: Box<[u8]>,
    has_headers: bool,
}

/// The way to the host.
pub(super) struct TunWriter {
    device: Arc<OwnedFd>,
    has_headers: bool,
}

impl TunQueue {
    /// Takes a queue, and returns what packets its device takes joined.
    pub(super) fn new(device: Arc<OwnedFd>) -> (Self, Joins) {
        let joins = tun_offload::enable(&*device).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot ask the TUN device what it can do; packets go one by one");
            None
        });
        let queue = Self {
            device,
            memory: vec![0; PACKET_BYTES_MAX].into_boxed_slice(),
            has_headers: joins.is_some(),
        };
        (queue, joins.unwrap_or_default())
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    pub(super) fn writer(&self) -> TunWriter {
        TunWriter {
            device: Arc::clone(&self.device),
            has_headers: self.has_headers,
        }
    }

    /// Reads one packet. Returns whether there was one.
    pub(super) fn receive(
        &mut self,
        handle: impl FnOnce(VirtioHeader, &mut [u8]),
    ) -> io::Result<bool> {
        let length = match rustix::io::read(&*self.device, &mut *self.memory) {
            Ok(length) => length,
            Err(Errno::AGAIN) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let received = &mut self.memory[..length];
        match received.split_first_chunk_mut() {
            Some((header, packet)) if self.has_headers => {
                handle(VirtioHeader::decode(*header), packet);
            }
            // Shorter than its header: no kernel sends that.
            None if self.has_headers => {}
            _ => handle(VirtioHeader::default(), received),
        }
        Ok(true)
    }
}

impl TunWriter {
    /// Writes one packet, which may stand for several.
    pub(super) fn send(&self, header: VirtioHeader, parts: &[&[u8]]) -> io::Result<()> {
        let header = header.encode();
        let header: &[u8] = if self.has_headers { &header } else { &[] };
        let mut slices = [IoSlice::new(header); Coalescer::PARTS_MAX + 1];
        for (slice, part) in slices[1..].iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
        }
        rustix::io::writev(&*self.device, &slices[..=parts.len()])?;
        Ok(())
    }
}
