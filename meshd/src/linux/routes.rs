//! Routes of the overlay: through the interface while it stands, `unreachable` otherwise, so that
//! nothing leaves by the default route while the daemon is down. Refuses prefixes that the host
//! uses already.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use model::address::{HostAddresses, OverlayPrefixes};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{Handle, RouteMessageBuilder};

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

/// Refuses an overlay whose prefix another route of the host's main table lies in or covers,
/// default routes apart. Routes of `interface` and our own do not count.
///
/// # Errors
/// Names the route.
pub async fn refuse_overlap(
    handle: &Handle,
    overlay: OverlayPrefixes,
    interface: Option<u32>,
) -> Result<(), RouteError> {
    for message in [
        RouteMessageBuilder::<Ipv4Addr>::new().build(),
        RouteMessageBuilder::<Ipv6Addr>::new().build(),
    ] {
        let mut routes = handle.route().get(message).execute();
        while let Some(route) = routes
            .try_next()
            .await
            .map_err(netlink("list the host's routes"))?
        {
            if is_ours(&route, interface) || route.header.table != RouteHeader::RT_TABLE_MAIN {
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
    }
    Ok(())
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

/// Makes the overlay unreachable wherever no better route says otherwise.
///
/// # Errors
/// The kernel refuses.
pub async fn install_unreachable(
    handle: &Handle,
    overlay: OverlayPrefixes,
    ipv6: bool,
) -> Result<(), RouteError> {
    let what = netlink("add the unreachable route of the overlay");
    handle
        .route()
        .add(unreachable_v4(overlay))
        .replace()
        .execute()
        .await
        .map_err(what)?;
    if ipv6 {
        let what = netlink("add the unreachable IPv6 route of the overlay");
        handle
            .route()
            .add(unreachable_v6(overlay))
            .replace()
            .execute()
            .await
            .map_err(what)?;
    }
    Ok(())
}

/// Takes the unreachable routes back; what is not there is no error.
pub async fn remove_unreachable(handle: &Handle, overlay: OverlayPrefixes) {
    for route in [unreachable_v4(overlay), unreachable_v6(overlay)] {
        if let Err(error) = handle.route().del(route).execute().await {
            tracing::debug!(%error, "an unreachable route was not there to be removed");
        }
    }
}

/// Sends the overlay through `interface`, from the host's own addresses.
///
/// # Errors
/// The kernel refuses.
pub async fn install_overlay(
    handle: &Handle,
    overlay: OverlayPrefixes,
    own: HostAddresses,
    interface: u32,
    ipv6: bool,
) -> Result<(), RouteError> {
    let v4 = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(overlay.v4.network(), overlay.v4.prefix_len())
        .output_interface(interface)
        .pref_source(own.v4)
        .scope(RouteScope::Link)
        .protocol(OUR_PROTOCOL)
        .build();
    handle
        .route()
        .add(v4)
        .replace()
        .execute()
        .await
        .map_err(netlink("add the overlay's route"))?;
    if ipv6 {
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(overlay.v6.network(), overlay.v6.prefix_len())
            .output_interface(interface)
            .protocol(OUR_PROTOCOL)
            .build();
        handle
            .route()
            .add(v6)
            .replace()
            .execute()
            .await
            .map_err(netlink("add the overlay's IPv6 route"))?;
    }
    Ok(())
}

fn unreachable_v4(overlay: OverlayPrefixes) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(overlay.v4.network(), overlay.v4.prefix_len())
        .kind(RouteType::Unreachable)
        .priority(UNREACHABLE_METRIC)
        .protocol(OUR_PROTOCOL)
        .build()
}

fn unreachable_v6(overlay: OverlayPrefixes) -> RouteMessage {
    RouteMessageBuilder::<Ipv6Addr>::new()
        .destination_prefix(overlay.v6.network(), overlay.v6.prefix_len())
        .kind(RouteType::Unreachable)
        .priority(UNREACHABLE_METRIC)
        .protocol(OUR_PROTOCOL)
        .build()
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
