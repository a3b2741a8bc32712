//! Where this host itself may be reached: what its operator configured, then its interfaces. What
//! others see is theirs to tell.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use model::address::OverlayPrefixes;
use model::control::{EndpointReport, FromHost};
use model::limits::Limits;
use model::map::{Endpoint, EndpointKind};
use model::time::Instant;

use crate::output::Outputs;
use crate::timer::{Timeout, is_due};

/// This host's own endpoints, and what the coordinator was told of them.
#[derive(Debug)]
pub(crate) struct OwnEndpoints {
    configured: Vec<SocketAddr>,
    interfaces: Vec<IpAddr>,
    listen_port: u16,
    stream_port: u16,
    told: Option<EndpointReport>,
    tell_at: Option<Instant>,
}

/// Addresses often change several at once: a change waits this long for the next one.
const TELL_AFTER: Duration = Duration::from_secs(2);

impl OwnEndpoints {
    pub(crate) fn new(configured: Vec<SocketAddr>, listen_port: u16, stream_port: u16) -> Self {
        Self {
            configured,
            interfaces: Vec::new(),
            listen_port,
            stream_port,
            told: None,
            tell_at: None,
        }
    }

    pub(crate) fn handle_interfaces(&mut self, mut addresses: Vec<IpAddr>, now: Instant) {
        addresses.sort_unstable();
        addresses.dedup();
        if self.interfaces != addresses {
            self.interfaces = addresses;
            self.tell_at.get_or_insert(now + TELL_AFTER);
        }
    }

    pub(crate) fn handle_configured(&mut self, configured: Vec<SocketAddr>, now: Instant) {
        if self.configured != configured {
            self.configured = configured;
            self.tell_at.get_or_insert(now + TELL_AFTER);
        }
    }

    /// Tells the whole list to a coordinator that has just said welcome.
    pub(crate) fn handle_welcome(&mut self, overlay: &OverlayPrefixes, out: &mut Outputs) {
        self.told = None;
        self.tell(overlay, out);
    }

    /// Tells the list when a change is due; `overlay` is `None` while no coordinator listens.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        overlay: Option<&OverlayPrefixes>,
        out: &mut Outputs,
    ) {
        if !self.tell_at.is_some_and(|at| is_due(at, now)) {
            return;
        }
        self.tell_at = None;
        if let Some(overlay) = overlay {
            self.tell(overlay, out);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Timeout {
        self.tell_at.map(|at| (at, "tell where this host is"))
    }

    fn tell(&mut self, overlay: &OverlayPrefixes, out: &mut Outputs) {
        self.tell_at = None;
        let report = self.report(overlay);
        if self.told.as_ref() != Some(&report) {
            self.told = Some(report.clone());
            out.send(FromHost::Endpoints(report));
        }
    }

    fn report(&self, overlay: &OverlayPrefixes) -> EndpointReport {
        let configured = self.configured.iter().map(|&address| Endpoint {
            address,
            kind: EndpointKind::Configured,
        });
        let interfaces = self
            .interfaces
            .iter()
            .filter(|&&ip| is_reachable(ip, overlay))
            .map(|&ip| {
                let address = SocketAddr::new(ip, self.listen_port);
                Endpoint {
                    address,
                    kind: EndpointKind::Interface,
                }
            });
        EndpointReport {
            endpoints: configured
                .chain(interfaces)
                .take(Limits::ENDPOINTS_PER_HOST)
                .collect(),
            listen_port: self.listen_port,
            stream_port: Some(self.stream_port),
        }
    }
}

/// Returns whether another host could reach this one at an address of its interfaces.
fn is_reachable(ip: IpAddr, overlay: &OverlayPrefixes) -> bool {
    let is_link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !ip.is_loopback()
        && !ip.is_unspecified()
        && !ip.is_multicast()
        && !is_link_local
        && !overlay.contains(ip)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Output;
    use model::ids::FleetId;

    fn overlay() -> OverlayPrefixes {
        OverlayPrefixes::derived_from(FleetId::from_bytes([0; 16]))
    }

    fn told(out: &mut Outputs) -> Vec<EndpointReport> {
        std::iter::from_fn(|| out.pop())
            .map(|output| match output {
                Output::Send(FromHost::Endpoints(report)) => report,
                other => panic!("unexpected {other:?}"),
            })
            .collect()
    }

    #[test]
    fn only_addresses_that_others_can_reach_are_told_configured_ones_first() {
        let overlay = overlay();
        let inside = IpAddr::from(overlay.nth_host(3).unwrap().v6);
        let mut addresses: Vec<IpAddr> = [
            "127.0.0.1",
            "::1",
            "169.254.1.1",
            "fe80::1",
            "192.0.2.4",
            "2001:db8::4",
        ]
        .map(|text| text.parse().unwrap())
        .to_vec();
        addresses.push(inside);
        let mut own = OwnEndpoints::new(vec!["203.0.113.1:4500".parse().unwrap()], 51820, 7444);
        own.handle_interfaces(addresses, Instant::START);
        let mut out = Outputs::default();
        own.handle_welcome(&overlay, &mut out);
        let addresses: Vec<String> = told(&mut out)[0]
            .endpoints
            .iter()
            .map(|e| e.address.to_string())
            .collect();
        assert_eq!(
            addresses,
            ["203.0.113.1:4500", "192.0.2.4:51820", "[2001:db8::4]:51820"]
        );
    }

    #[test]
    fn changes_are_told_together_and_no_change_is_not_told() {
        let (mut own, mut out) = (OwnEndpoints::new(vec![], 1, 2), Outputs::default());
        own.handle_welcome(&overlay(), &mut out);
        told(&mut out);
        for last in 1..4 {
            own.handle_interfaces(vec![IpAddr::from([192, 0, 2, last])], Instant::START);
        }
        let (at, _) = own.poll_timeout().unwrap();
        own.handle_timeout(at, Some(&overlay()), &mut out);
        let reports = told(&mut out);
        assert_eq!(reports.len(), 1);
        assert_eq!(
            reports[0].endpoints[0].address,
            "192.0.2.3:1".parse().unwrap()
        );
        own.handle_interfaces(vec![IpAddr::from([192, 0, 2, 3])], at);
        assert_eq!(own.poll_timeout(), None);
    }

    #[test]
    fn what_the_operator_changes_is_told() {
        let (mut own, mut out) = (OwnEndpoints::new(vec![], 1, 2), Outputs::default());
        own.handle_welcome(&overlay(), &mut out);
        told(&mut out);
        let endpoint: SocketAddr = "203.0.113.7:51820".parse().unwrap();
        own.handle_configured(vec![endpoint], Instant::START);
        let (at, _) = own.poll_timeout().unwrap();
        own.handle_timeout(at, Some(&overlay()), &mut out);
        assert_eq!(told(&mut out)[0].endpoints[0].address, endpoint);
        own.handle_configured(vec![endpoint], at);
        assert_eq!(own.poll_timeout(), None);
    }
}
