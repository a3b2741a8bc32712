//! Routes of the overlay: through the interface while it stands, `unreachable` otherwise, so that
//! nothing leaves by the default route while the daemon is down. Refuses prefixes that the host
//! uses already.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use model::address::{HostAddresses, OverlayPrefixes};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::rule::RuleAttribute;
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};

/// Worst metric there is, so that every other route to the overlay wins.
const UNREACHABLE_METRIC: u32 = u32::MAX;
/// Marks our routes as ours: the number is in the range that nobody else has registered.
const OUR_PROTOCOL: RouteProtocol = RouteProtocol::Other(190);

/// Why the routes could not be set.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The host has a route of its own into the overlay's prefix.
    #[error(
        "the overlay's prefix {overlay} overlaps with the route {route} of this host; nothing was changed. Choose another prefix for the fleet, or remove that route"
    )]
    Overlap {
        /// Ours.
        overlay: String,
        /// Theirs.
        route: String,
    },
    /// Netlink itself cannot be used.
    #[error("cannot talk to the kernel by netlink: {0}")]
    Socket(std::io::Error),
    /// The kernel refused.
    #[error("cannot {what}: {source}")]
    Netlink {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: Box<rtnetlink::Error>,
    },
}

fn netlink(what: &'static str) -> impl FnOnce(rtnetlink::Error) -> RouteError {
    move |source| RouteError::Netlink {
        what,
        source: Box::new(source),
    }
}

/// Refuses an overlay whose prefix another route of the host lies in or covers, default routes
/// apart, in any table that the host looks into. Routes of `interface` and our own do not count.
///
/// # Errors
/// Names the route.
pub async fn refuse_overlap(
    handle: &Handle,
    overlay: OverlayPrefixes,
    interface: Option<u32>,
) -> Result<(), RouteError> {
    let tables = tables_in_use(handle).await?;
    for route in all_routes(handle).await? {
        if is_ours(&route, interface) || !tables.contains(&table_of(&route)) {
            continue;
        }
        let Some((address, length)) = destination(&route) else {
            continue;
        };
        if let Some(ours) = overlapping(overlay, address, length) {
            return Err(RouteError::Overlap {
                overlay: ours,
                route: format!("{address}/{length}"),
            });
        }
    }
    Ok(())
}

/// Returns whether the host has a default route, of either family.
///
/// # Errors
/// Netlink cannot be used.
pub async fn has_default() -> Result<bool, RouteError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(RouteError::Socket)?;
    let driver = tokio::spawn(connection);
    let routes = all_routes(&handle).await;
    driver.abort();
    Ok(routes?.iter().any(|route| {
        route.header.destination_prefix_length == 0
            && route.header.kind == RouteType::Unicast
            && table_of(route) == u32::from(RouteHeader::RT_TABLE_MAIN)
    }))
}

async fn all_routes(handle: &Handle) -> Result<Vec<RouteMessage>, RouteError> {
    let mut all = Vec::new();
    for message in [
        RouteMessageBuilder::<Ipv4Addr>::new().build(),
        RouteMessageBuilder::<Ipv6Addr>::new().build(),
    ] {
        let listed: Vec<RouteMessage> = handle
            .route()
            .get(message)
            .execute()
            .try_collect()
            .await
            .map_err(netlink("list the host's routes"))?;
        all.extend(listed);
    }
    Ok(all)
}

/// The tables that the host's rules name. Those of VRFs are asked only for what is bound to them.
async fn tables_in_use(handle: &Handle) -> Result<BTreeSet<u32>, RouteError> {
    let mut tables = BTreeSet::from([u32::from(RouteHeader::RT_TABLE_MAIN)]);
    for family in [IpVersion::V4, IpVersion::V6] {
        let mut rules = handle.rule().get(family).execute();
        while let Some(rule) = rules
            .try_next()
            .await
            .map_err(netlink("list the host's routing rules"))?
        {
            let table = rule
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    RuleAttribute::Table(table) => Some(*table),
                    _ => None,
                });
            tables.insert(table.unwrap_or(u32::from(rule.header.table)));
        }
    }
    Ok(tables)
}

/// The header has room for small numbers only.
fn table_of(route: &RouteMessage) -> u32 {
    let table = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Table(table) => Some(*table),
            _ => None,
        });
    table.unwrap_or(u32::from(route.header.table))
}

fn is_ours(route: &RouteMessage, interface: Option<u32>) -> bool {
    route.header.protocol == OUR_PROTOCOL
        || route.attributes.iter().any(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index) == interface,
            _ => false,
        })
}

fn destination(route: &RouteMessage) -> Option<(IpAddr, u8)> {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => {
                Some((IpAddr::V4(*v4), route.header.destination_prefix_length))
            }
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => {
                Some((IpAddr::V6(*v6), route.header.destination_prefix_length))
            }
            _ => None,
        })
}

/// Returns our prefix when the other one lies in it or covers it. A default route covers all and
/// is no clash, since ours is more specific.
fn overlapping(overlay: OverlayPrefixes, address: IpAddr, length: u8) -> Option<String> {
    if length == 0 {
        return None;
    }
    match address {
        IpAddr::V4(v4) => {
            let common = length.min(overlay.v4.prefix_len());
            let mask = u32::MAX.checked_shl(32 - u32::from(common)).unwrap_or(0);
            let same = u32::from(v4) & mask == u32::from(overlay.v4.network()) & mask;
            same.then(|| overlay.v4.to_string())
        }
        IpAddr::V6(v6) => {
            let common = length.min(overlay.v6.prefix_len());
            let mask = u128::MAX.checked_shl(128 - u32::from(common)).unwrap_or(0);
            let same = u128::from(v6) & mask == u128::from(overlay.v6.network()) & mask;
            same.then(|| overlay.v6.to_string())
        }
    }
}

/// A route that the daemon owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnRoute {
    destination: IpAddr,
    prefix_length: u8,
    way: Way,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    /// Through the overlay's interface, from the host's own address.
    Through {
        interface: u32,
        source: Option<IpAddr>,
    },
    /// Nowhere, unless a better route says otherwise.
    Nowhere,
}

/// Returns the routes that make the overlay unreachable wherever no better route says otherwise.
pub fn guards(overlay: OverlayPrefixes, ipv6: bool) -> Vec<OwnRoute> {
    destinations(overlay, ipv6)
        .map(|(destination, prefix_length)| OwnRoute {
            destination,
            prefix_length,
            way: Way::Nowhere,
        })
        .collect()
}

/// Returns the routes that send the overlay through `interface`, from the host's own addresses.
pub fn ways(
    overlay: OverlayPrefixes,
    own: HostAddresses,
    interface: u32,
    ipv6: bool,
) -> Vec<OwnRoute> {
    destinations(overlay, ipv6)
        .map(|(destination, prefix_length)| OwnRoute {
            destination,
            prefix_length,
            way: Way::Through {
                interface,
                // IPv6 finds it by itself, and takes none that may still be tentative.
                source: destination.is_ipv4().then_some(own.v4.into()),
            },
        })
        .collect()
}

fn destinations(overlay: OverlayPrefixes, ipv6: bool) -> impl Iterator<Item = (IpAddr, u8)> {
    let v4 = (overlay.v4.network().into(), overlay.v4.prefix_len());
    let v6 = (overlay.v6.network().into(), overlay.v6.prefix_len());
    [Some(v4), ipv6.then_some(v6)].into_iter().flatten()
}

/// Adds routes, in place of others of ours for the same.
///
/// # Errors
/// The kernel refuses.
pub async fn install(handle: &Handle, routes: &[OwnRoute]) -> Result<(), RouteError> {
    for route in routes {
        let adding = handle.route().add(route.message()).replace().execute();
        adding
            .await
            .map_err(netlink("add a route of the overlay"))?;
    }
    Ok(())
}

/// Takes routes back; what is not there is no error.
pub async fn remove(handle: &Handle, routes: &[OwnRoute]) {
    for route in routes {
        if let Err(error) = handle.route().del(route.message()).execute().await {
            tracing::debug!(%error, ?route, "a route was not there to be removed");
        }
    }
}

/// Returns those of the routes that are not there.
///
/// # Errors
/// Netlink cannot be used.
pub async fn missing(handle: &Handle, routes: &[OwnRoute]) -> Result<Vec<OwnRoute>, RouteError> {
    let there = all_routes(handle).await?;
    let is_missing = |route: &&OwnRoute| !there.iter().any(|it| route.is(it));
    Ok(routes.iter().filter(is_missing).cloned().collect())
}

impl OwnRoute {
    fn message(&self) -> RouteMessage {
        match self.destination {
            IpAddr::V4(v4) => {
                let route = RouteMessageBuilder::<Ipv4Addr>::new()
                    .destination_prefix(v4, self.prefix_length)
                    .protocol(OUR_PROTOCOL);
                match &self.way {
                    Way::Nowhere => route
                        .kind(RouteType::Unreachable)
                        .priority(UNREACHABLE_METRIC),
                    Way::Through { interface, source } => {
                        let route = route.output_interface(*interface).scope(RouteScope::Link);
                        match source {
                            Some(IpAddr::V4(source)) => route.pref_source(*source),
                            _ => route,
                        }
                    }
                }
                .build()
            }
            IpAddr::V6(v6) => {
                let route = RouteMessageBuilder::<Ipv6Addr>::new()
                    .destination_prefix(v6, self.prefix_length)
                    .protocol(OUR_PROTOCOL);
                match &self.way {
                    Way::Nowhere => route
                        .kind(RouteType::Unreachable)
                        .priority(UNREACHABLE_METRIC),
                    Way::Through { interface, .. } => route.output_interface(*interface),
                }
                .build()
            }
        }
    }

    /// Whether the kernel's route is this one.
    fn is(&self, route: &RouteMessage) -> bool {
        let same_way = match &self.way {
            Way::Nowhere => route.header.kind == RouteType::Unreachable,
            Way::Through { interface, .. } => {
                let out = RouteAttribute::Oif(*interface);
                route.header.kind == RouteType::Unicast && route.attributes.contains(&out)
            }
        };
        same_way
            && route.header.protocol == OUR_PROTOCOL
            && destination(route) == Some((self.destination, self.prefix_length))
    }

    /// Shows it as ip-route(8) does, with the name of its interface.
    pub fn describe(&self, interface: &str) -> String {
        match &self.way {
            Way::Nowhere => format!("unreachable {self} metric {UNREACHABLE_METRIC}"),
            Way::Through { source: None, .. } => format!("{self} dev {interface}"),
            Way::Through {
                source: Some(source),
                ..
            } => format!("{self} dev {interface} src {source}"),
        }
    }
}

/// Only where it leads to.
impl fmt::Display for OwnRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.destination, self.prefix_length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay() -> OverlayPrefixes {
        OverlayPrefixes {
            v4: "100.64.0.0/16".parse().unwrap(),
            v6: "fd12:3456:789a::/48".parse().unwrap(),
        }
    }

    #[test]
    fn prefixes_overlap_in_both_directions() {
        for (route, length) in [("100.64.3.0", 24), ("100.64.0.0", 10), ("100.64.0.0", 16)] {
            assert_eq!(
                overlapping(overlay(), route.parse().unwrap(), length),
                Some("100.64.0.0/16".into()),
                "{route}"
            );
        }
        assert!(overlapping(overlay(), "fd12:3456:789a:1::".parse().unwrap(), 64).is_some());
    }

    #[test]
    fn neighbours_and_default_routes_do_not_overlap() {
        for (route, length) in [
            ("100.65.0.0", 16),
            ("10.0.0.0", 8),
            ("0.0.0.0", 0),
            ("fd12:3456:789b::", 48),
            ("::", 0),
        ] {
            assert_eq!(
                overlapping(overlay(), route.parse().unwrap(), length),
                None,
                "{route}"
            );
        }
    }
}
