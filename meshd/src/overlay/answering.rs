//! Mesh DNS on the overlay's own addresses, for this host itself.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use agent::Names;
use arc_swap::ArcSwap;

use crate::dns::{DnsServer, DnsSockets, DnsTally, Responder};

/// The servers, one for each address.
pub(super) struct OverlayDns {
    names: Arc<ArcSwap<Names>>,
    tally: Arc<DnsTally>,
    port: u16,
    servers: Vec<DnsServer>,
    /// Bound by the daemon before, and not answered on yet.
    inherited: Vec<DnsSockets>,
    said: Option<String>,
}

impl OverlayDns {
    /// Takes what is answered from, where it is counted, the port, and sockets that are bound already.
    pub(super) fn new(
        names: Arc<ArcSwap<Names>>,
        tally: Arc<DnsTally>,
        port: u16,
        inherited: Vec<DnsSockets>,
    ) -> Self {
        Self {
            names,
            tally,
            port,
            servers: Vec::new(),
            inherited,
            said: None,
        }
    }

    /// Answers on those of the addresses where it does not yet. A failure is said once, and tried
    /// again with the next call.
    pub(super) async fn bring_about(&mut self, addresses: impl Iterator<Item = IpAddr>) {
        for ip in addresses {
            let address = SocketAddr::new(ip, self.port);
            if self.servers.iter().any(|it| it.address() == address) {
                continue;
            }
            let responder = Responder {
                names: Arc::clone(&self.names),
                // Nobody there uses a resolver of this host.
                forwarder: None,
                tally: Arc::clone(&self.tally),
            };
            let bound = self.inherited.iter().position(|it| it.address() == address);
            let started = match bound {
                Some(bound) => DnsServer::serve(self.inherited.swap_remove(bound), responder),
                None => DnsServer::start(address, responder).await,
            };
            match started {
                Ok(server) => self.servers.push(server),
                Err(error) => self.say(error.to_string()),
            }
        }
    }

    /// Returns where it is answered.
    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.servers.iter().map(DnsServer::address)
    }

    fn say(&mut self, message: String) {
        if self.said.as_ref() != Some(&message) {
            tracing::warn!("{message}; it is tried again");
            self.said = Some(message);
        }
    }

    /// Returns the sockets once more, for a daemon that takes over. What cannot be had is bound anew
    /// there.
    pub(super) fn share(&self) -> Vec<DnsSockets> {
        let sockets = self.servers.iter().map(DnsServer::sockets);
        sockets.filter_map(|it| it.try_clone().ok()).collect()
    }

    /// Answers nowhere any more.
    pub(super) fn stop(&mut self) {
        self.inherited.clear();
        self.servers.clear();
    }
}
