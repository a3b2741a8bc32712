//! Whether the interface and what stands around it are as they were left, and making again what is
//! not. Only what the daemon made is looked at: what others add is theirs.

use std::net::IpAddr;

use futures_util::TryStreamExt;
use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

use super::firewall;
use super::interface::{Interface, InterfaceError, add_addresses, netlink};
use super::routes::{self, OwnRoute};
use crate::overlay::repairs::{Difference, Part};

fn difference(part: Part, what: String) -> Difference {
    Difference {
        part,
        what,
        may_repair: true,
    }
}

impl Interface {
    /// Returns whether the device is there at all; without it, everything has to be made anew.
    ///
    /// # Errors
    /// Netlink cannot be used.
    pub async fn is_there(&self) -> Result<bool, InterfaceError> {
        Ok(self.link().await?.is_some())
    }

    /// Returns what is not as it was left; nothing when the device itself is gone.
    ///
    /// # Errors
    /// Netlink cannot be used.
    pub async fn differences(&self) -> Result<Vec<Difference>, InterfaceError> {
        let Some(link) = self.link().await? else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        found.extend(self.link_difference(&link));
        found.extend(self.address_difference().await?);
        found.extend(self.route_difference().await?);
        found.extend(self.firewall_difference().await);
        Ok(found)
    }

    /// Makes one part again.
    ///
    /// # Errors
    /// Says what the kernel refused.
    pub async fn repair(&self, part: Part) -> Result<(), InterfaceError> {
        match part {
            Part::Device => self.set_link().await,
            Part::Addresses => {
                let own = self.overlay.addresses;
                add_addresses(&self.handle, self.index, own, self.ipv6).await
            }
            Part::Routes => Ok(routes::install(&self.handle, &self.routes()).await?),
            Part::Firewall => {
                let (table, name) = (&self.settings.table, &self.settings.name);
                let (prefixes, caught) = (self.overlay.prefixes, self.interception.as_ref());
                Ok(firewall::install(table, name, prefixes, caught).await?)
            }
            Part::Resolver => Ok(()),
        }
    }

    async fn set_link(&self) -> Result<(), InterfaceError> {
        let up = LinkUnspec::new_with_index(self.index)
            .mtu(u32::from(self.settings.mtu))
            .up()
            .build();
        let setting = self.handle.link().set(up).execute();
        setting.await.map_err(netlink("bring the interface up"))?;
        // The kernel forgets the routes and the IPv6 addresses of what is down.
        let own = self.overlay.addresses;
        add_addresses(&self.handle, self.index, own, self.ipv6).await?;
        Ok(routes::install(&self.handle, &self.routes()).await?)
    }

    async fn link(&self) -> Result<Option<LinkMessage>, InterfaceError> {
        let mut links = self.handle.link().get().execute();
        while let Some(link) = links
            .try_next()
            .await
            .map_err(netlink("list the interfaces"))?
        {
            if link.header.index == self.index {
                return Ok(Some(link));
            }
        }
        Ok(None)
    }

    fn link_difference(&self, link: &LinkMessage) -> Option<Difference> {
        let name = &self.settings.name;
        if !link.header.flags.contains(LinkFlags::Up) {
            let what = format!("another program took the interface {name} down");
            return Some(difference(Part::Device, what));
        }
        let mtu = link.attributes.iter().find_map(|it| match it {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        })?;
        (mtu != u32::from(self.settings.mtu)).then(|| {
            let what = format!("another program set the MTU of {name} to {mtu}");
            difference(Part::Device, what)
        })
    }

    async fn address_difference(&self) -> Result<Option<Difference>, InterfaceError> {
        let mut there: Vec<IpAddr> = Vec::new();
        let mut listed = self
            .handle
            .address()
            .get()
            .set_link_index_filter(self.index)
            .execute();
        while let Some(message) = listed
            .try_next()
            .await
            .map_err(netlink("list the addresses"))?
        {
            there.extend(message.attributes.iter().filter_map(|it| match it {
                AddressAttribute::Local(ip) | AddressAttribute::Address(ip) => Some(*ip),
                _ => None,
            }));
        }
        let missing: Vec<String> = self
            .addresses()
            .filter(|ip| !there.contains(ip))
            .map(|ip| ip.to_string())
            .collect();
        Ok((!missing.is_empty()).then(|| {
            let what = format!(
                "another program removed {} from {}",
                missing.join(" and "),
                self.settings.name
            );
            difference(Part::Addresses, what)
        }))
    }

    async fn route_difference(&self) -> Result<Option<Difference>, InterfaceError> {
        let missing = routes::missing(&self.handle, &self.routes()).await?;
        if !missing.is_empty() {
            let name = &self.settings.name;
            let shown: Vec<String> = missing.iter().map(|it| it.describe(name)).collect();
            let what = format!("another program removed the route {}", shown.join(" and "));
            return Ok(Some(difference(Part::Routes, what)));
        }
        let overlap =
            routes::refuse_overlap(&self.handle, self.overlay.prefixes, Some(self.index)).await;
        Ok(match overlap {
            Err(error @ routes::RouteError::Overlap { .. }) => Some(Difference {
                may_repair: false,
                ..difference(Part::Routes, error.to_string())
            }),
            Err(error) => return Err(error.into()),
            Ok(()) => None,
        })
    }

    async fn firewall_difference(&self) -> Option<Difference> {
        let table = &self.settings.table;
        match firewall::listing(table).await {
            Ok(ruleset) if ruleset == self.ruleset => None,
            Ok(_) => {
                let what = format!("another program changed the nftables table inet {table}");
                Some(difference(Part::Firewall, what))
            }
            Err(firewall::FirewallError::Refused { .. }) => {
                let what = format!("another program removed the nftables table inet {table}");
                Some(difference(Part::Firewall, what))
            }
            Err(error) => {
                tracing::debug!(%error, "the firewall cannot be looked at");
                None
            }
        }
    }

    fn routes(&self) -> Vec<OwnRoute> {
        let overlay = self.overlay;
        let mut all = routes::guards(overlay.prefixes, self.ipv6);
        all.extend(routes::ways(
            overlay.prefixes,
            overlay.addresses,
            self.index,
            self.ipv6,
        ));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::interception::Interception;
    use crate::linux::interface::tests::{is_in_namespace, said_by};
    use crate::linux::interface::{InterfaceSettings, OverlayConfig};
    use model::address::OverlayPrefixes;
    use model::ids::FleetId;
    use model::rule::PortRange;

    async fn overlay() -> Interface {
        let prefixes = OverlayPrefixes::derived_from(FleetId::from_bytes([0; 16]));
        let settings = InterfaceSettings {
            name: "mesh0".into(),
            table: "mesh".into(),
            mtu: 1420,
            queues: 1,
        };
        let overlay = OverlayConfig {
            addresses: prefixes.nth_host(0).unwrap(),
            prefixes,
        };
        Interface::up(settings, overlay, &Interception::default())
            .await
            .unwrap()
    }

    fn shell(script: &str) {
        said_by("sh", &["-ec", script]);
    }

    #[tokio::test]
    async fn what_another_program_does_is_seen_and_mended() {
        if !is_in_namespace(
            "linux::inspection::tests::what_another_program_does_is_seen_and_mended",
        ) {
            return;
        }
        let interface = overlay().await;
        assert_eq!(interface.differences().await.unwrap(), []);
        for (script, part, expected) in [
            (
                "ip route del 100.64.0.0/16 dev mesh0",
                Part::Routes,
                "removed the route 100.64.0.0/16 dev mesh0 src 100.64.0.16",
            ),
            (
                "ip -6 route flush proto 190",
                Part::Routes,
                "metric 4294967295 and",
            ),
            (
                "ip address del 100.64.0.16/32 dev mesh0; ip route replace 100.64.0.0/16 dev mesh0 proto 190",
                Part::Addresses,
                "removed 100.64.0.16 from mesh0",
            ),
            (
                "ip link set mesh0 mtu 1300",
                Part::Device,
                "MTU of mesh0 to 1300",
            ),
            (
                "ip link set mesh0 down",
                Part::Device,
                "took the interface mesh0 down",
            ),
            (
                "nft flush ruleset",
                Part::Firewall,
                "removed the nftables table",
            ),
            (
                "nft insert rule inet mesh to_network accept",
                Part::Firewall,
                "changed the nftables table",
            ),
        ] {
            shell(script);
            let found = interface.differences().await.unwrap();
            let difference = found.iter().find(|it| it.part == part);
            let what = &difference.expect(script).what;
            assert!(what.contains(expected), "{script}: {what}");
            interface.repair(part).await.unwrap();
            assert_eq!(interface.differences().await.unwrap(), [], "{script}");
        }
    }

    #[tokio::test]
    async fn what_is_caught_changes_by_element_and_is_mended_with_the_table() {
        if !is_in_namespace(
            "linux::inspection::tests::what_is_caught_changes_by_element_and_is_mended_with_the_table",
        ) {
            return;
        }
        let mut interface = overlay().await;
        let [one, two] = [7, 8].map(|nth| interface.overlay().prefixes.nth_host(nth).unwrap());
        let ports = [PortRange::single(80), PortRange::ALL];
        assert!(!said_by("nft", &["list", "ruleset"]).contains("type nat"));
        let first = Interception::new(747, [one], []);
        interface.intercept(&first).await.unwrap();
        // A rule of somebody else shows whether the table was replaced.
        shell("nft add chain inet mesh theirs");
        for ports in ports {
            let wanted = Interception::new(747, [one], [(two, ports)]);
            interface.intercept(&wanted).await.unwrap();
            let listing = said_by("nft", &["list", "table", "inet", "mesh"]);
            assert!(listing.contains("chain theirs"), "{listing}");
            let element = match ports.first == ports.last {
                true => format!("elements = {{ {} . 80 }}", two.v4),
                false => format!("elements = {{ {} . 0-65535 }}", two.v4),
            };
            assert!(listing.contains(&element), "{listing}");
            assert_eq!(interface.differences().await.unwrap(), []);
        }
        let before = said_by("nft", &["list", "set", "inet", "mesh", "direct_v6"]);
        shell("nft flush ruleset");
        interface.repair(Part::Firewall).await.unwrap();
        let after = said_by("nft", &["list", "set", "inet", "mesh", "direct_v6"]);
        assert_eq!(before, after);
        // What another program took out is no hindrance.
        shell("nft flush set inet mesh services_v4");
        let none = Interception::default();
        interface.intercept(&none).await.unwrap();
        assert_eq!(interface.differences().await.unwrap(), []);
        assert!(!said_by("nft", &["list", "ruleset"]).contains("type nat"));
    }

    #[tokio::test]
    async fn a_route_that_leads_the_overlay_away_is_told_and_left() {
        if !is_in_namespace(
            "linux::inspection::tests::a_route_that_leads_the_overlay_away_is_told_and_left",
        ) {
            return;
        }
        let interface = overlay().await;
        for script in [
            "ip route add 100.64.3.0/24 dev lo",
            "ip route del 100.64.3.0/24; ip rule add table 77; ip route add blackhole 100.64.0.0/10 table 77",
        ] {
            shell(script);
            let found = interface.differences().await.unwrap();
            assert_eq!(found.len(), 1, "{script}");
            assert!(!found[0].may_repair && found[0].what.contains("overlaps"));
        }
    }

    #[tokio::test]
    async fn a_device_that_is_gone_is_missed() {
        if !is_in_namespace("linux::inspection::tests::a_device_that_is_gone_is_missed") {
            return;
        }
        let interface = overlay().await;
        assert!(interface.is_there().await.unwrap());
        shell("ip link del mesh0");
        assert!(!interface.is_there().await.unwrap());
        assert_eq!(interface.differences().await.unwrap(), []);
    }
}
