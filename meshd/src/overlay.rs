//! The overlay on this host: brings interface and DNS to what the agent wants, tries again when the
//! host does not let it, and takes everything back.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use agent::{InterfaceConfig, Names};
use arc_swap::ArcSwap;
use model::address::HostAddresses;
use tokio::time::Instant;

use crate::dns::{DnsServer, Responder};
use crate::linux::interface::{self, Interface, InterfaceSettings, OverlayConfig};
use crate::packets::{WorkerHandle, WorkerMessage};

/// How long after a failure the interface is tried again.
const INTERFACE_RETRY: Duration = Duration::from_secs(5);

/// What the overlay is made with.
pub struct OverlayParts {
    /// What the daemon makes in the kernel.
    pub interface: InterfaceSettings,
    /// The packet thread.
    pub worker: WorkerHandle,
    /// What DNS answers from.
    pub names: Arc<ArcSwap<Names>>,
    /// The port at which DNS answers, on the overlay address too.
    pub dns_port: u16,
}

/// The interface as it should be and as it is.
pub struct Overlay {
    parts: OverlayParts,
    wanted: Option<InterfaceConfig>,
    standing: Option<Interface>,
    /// What a failed try was for: its guards may stand in the kernel.
    tried: Option<OverlayConfig>,
    dns: Vec<DnsServer>,
    failure: Option<String>,
    retry_at: Option<Instant>,
}

impl Overlay {
    /// Takes the parts; nothing stands yet.
    pub fn new(parts: OverlayParts) -> Self {
        Self {
            parts,
            wanted: None,
            standing: None,
            tried: None,
            dns: Vec::new(),
            failure: None,
            retry_at: None,
        }
    }

    /// Returns when it next has something to try.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Returns why it does not stand, when it should.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Brings it to what the agent wants; `None`: nothing.
    ///
    /// # Errors
    /// The packet thread is gone.
    pub async fn want(&mut self, wanted: Option<InterfaceConfig>) -> io::Result<()> {
        self.wanted = wanted;
        self.bring_about().await
    }

    /// Tries again what failed, when it is time.
    ///
    /// # Errors
    /// The packet thread is gone.
    pub async fn handle_timeout(&mut self) -> io::Result<()> {
        if self.retry_at.is_some_and(|at| at <= Instant::now()) {
            self.bring_about().await?;
        }
        Ok(())
    }

    async fn bring_about(&mut self) -> io::Result<()> {
        self.retry_at = None;
        self.failure = None;
        let wanted = self.wanted.map(|config| OverlayConfig {
            addresses: config.addresses,
            prefixes: config.prefixes,
        });
        let standing = self.standing.as_ref().map(Interface::overlay);
        if wanted != standing.or(self.tried) {
            self.take_down().await?;
        }
        let Some(wanted) = wanted.filter(|_| wanted != standing) else {
            return Ok(());
        };
        match Interface::up(self.parts.interface.clone(), wanted).await {
            Ok(interface) => {
                self.tried = None;
                self.to_worker(WorkerMessage::Device(Some(interface.device())))?;
                tracing::info!(interface = %self.parts.interface.name, v4 = %wanted.addresses.v4, v6 = %wanted.addresses.v6, "the overlay is up");
                self.standing = Some(interface);
                let HostAddresses { v4, v6 } = wanted.addresses;
                self.dns.extend(self.answer_dns_on(v4.into()).await);
                self.dns.extend(self.answer_dns_on(v6.into()).await);
            }
            Err(error) => {
                tracing::error!(%error, "the overlay is not up; trying again in {} s", INTERFACE_RETRY.as_secs());
                if error.may_leave_guards() {
                    self.tried = Some(wanted);
                }
                self.failure = Some(error.to_string());
                self.retry_at = Some(Instant::now() + INTERFACE_RETRY);
            }
        }
        Ok(())
    }

    async fn answer_dns_on(&self, address: IpAddr) -> Option<DnsServer> {
        let address = SocketAddr::new(address, self.parts.dns_port);
        let responder = Responder {
            names: Arc::clone(&self.parts.names),
            // Peers learn names of the mesh, and use no resolver of this host.
            forwarder: None,
        };
        DnsServer::start(address, responder)
            .await
            .inspect_err(|error| tracing::warn!(%error, "mesh DNS does not answer there"))
            .ok()
    }

    /// Takes everything back.
    ///
    /// # Errors
    /// The packet thread is gone.
    pub async fn take_down(&mut self) -> io::Result<()> {
        self.dns.clear();
        if let Some(interface) = self.standing.take() {
            self.to_worker(WorkerMessage::Device(None))?;
            interface.down().await;
            tracing::info!(interface = %self.parts.interface.name, "the overlay is down");
        }
        if let Some(tried) = self.tried.take()
            && let Err(error) = interface::withdraw(&self.parts.interface, tried.prefixes).await
        {
            tracing::warn!(%error, "what guards the overlay stays");
        }
        Ok(())
    }

    fn to_worker(&self, message: WorkerMessage) -> io::Result<()> {
        self.parts.worker.send(message).map_err(io::Error::other)
    }
}
