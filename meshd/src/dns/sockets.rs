//! The sockets that a server answers on: UDP and TCP, on one address, which outlive it when another
//! daemon takes over.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

use super::DnsError;

/// Ports of the kernel's choice that are tried before it is said that none is free.
const PORTS_TRIED: u32 = 16;

/// The two sockets of one address.
#[derive(Debug)]
pub struct DnsSockets {
    pub(super) udp: UdpSocket,
    pub(super) tcp: TcpListener,
    address: SocketAddr,
}

impl DnsSockets {
    /// Binds both; port 0 lets the kernel choose one for both.
    ///
    /// # Errors
    /// The address is taken or not this host's.
    pub async fn bind(address: SocketAddr) -> Result<Self, DnsError> {
        let failed = |source| DnsError { address, source };
        // The kernel chooses a port that is free for UDP: one that TCP has is passed over.
        let mut choices_left = if address.port() == 0 { PORTS_TRIED } else { 1 };
        loop {
            choices_left -= 1;
            match Self::bind_both(address).await {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && choices_left > 0 => {}
                bound => return bound.map_err(failed),
            }
        }
    }

    async fn bind_both(address: SocketAddr) -> io::Result<Self> {
        // By tokio, for the options that it sets.
        let udp = tokio::net::UdpSocket::bind(address).await?;
        let address = udp.local_addr()?;
        let tcp = tokio::net::TcpListener::bind(address).await?;
        Ok(Self {
            udp: udp.into_std()?,
            tcp: tcp.into_std()?,
            address,
        })
    }

    /// Takes over the sockets of another daemon.
    ///
    /// # Errors
    /// They are not of one address.
    pub fn take_over(udp: OwnedFd, tcp: OwnedFd) -> io::Result<Self> {
        let (udp, tcp) = (UdpSocket::from(udp), TcpListener::from(tcp));
        let address = udp.local_addr()?;
        if tcp.local_addr()? != address {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok(Self { udp, tcp, address })
    }

    /// Returns the sockets once more: UDP, then TCP.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn share(&self) -> io::Result<[OwnedFd; 2]> {
        Ok([
            self.udp.as_fd().try_clone_to_owned()?,
            self.tcp.as_fd().try_clone_to_owned()?,
        ])
    }

    /// Returns a second handle of both.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            udp: self.udp.try_clone()?,
            tcp: self.tcp.try_clone()?,
            address: self.address,
        })
    }

    /// Returns the address of both.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
