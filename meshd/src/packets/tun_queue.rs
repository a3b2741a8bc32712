//! One queue of the TUN device: overlay packets to and from this host, one a call.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use tun_rs::SyncDevice;

/// Room for the largest IP packet there is.
const PACKET_BYTES_MAX: usize = 65535;

/// The device with its memory for packets from this host.
pub(super) struct TunQueue {
    device: Arc<SyncDevice>,
    memory: Box<[u8]>,
}

impl TunQueue {
    pub(super) fn new(device: Arc<SyncDevice>) -> Self {
        Self {
            device,
            memory: vec![0; PACKET_BYTES_MAX].into_boxed_slice(),
        }
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    pub(super) fn writer(&self) -> Arc<SyncDevice> {
        Arc::clone(&self.device)
    }

    /// Reads one packet. Returns whether there was one.
    pub(super) fn receive(&mut self, handle: impl FnOnce(&mut [u8])) -> io::Result<bool> {
        match self.device.recv(&mut self.memory) {
            Ok(length) => {
                handle(&mut self.memory[..length]);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}
