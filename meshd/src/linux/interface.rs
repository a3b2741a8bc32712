//! The overlay's interface: a TUN device with the host's addresses, and everything of the kernel
//! that has to stand around it, put up in an order that never lets a packet out in the clear.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use futures_util::TryStreamExt;
use model::address::{HostAddresses, OverlayPrefixes};
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags};
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::{Handle, LinkUnspec};
use tun_rs::{DeviceBuilder, Layer};

use super::firewall::{self, FirewallError};
use super::interception::Interception;
use super::routes::{self, RouteError};

/// Names and sizes of what the daemon owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceSettings {
    /// The TUN device's name.
    pub name: String,
    /// The nftables table's name.
    pub table: String,
    /// Bytes of the largest overlay packet.
    pub mtu: u16,
    /// Queues of the TUN device, one for each packet thread.
    pub queues: u16,
}

/// What the fleet gives this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverlayConfig {
    /// The host's addresses.
    pub addresses: HostAddresses,
    /// The fleet's prefixes.
    pub prefixes: OverlayPrefixes,
}

/// Why the interface does not stand.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// There is no /dev/net/tun, or it may not be used.
    #[error(
        "cannot make the TUN device {name}: {source}; is /dev/net/tun there (modprobe tun), and does the daemon run as root?"
    )]
    Tun {
        /// The device.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// Another program owns an interface of this name.
    #[error(
        "an interface {0} exists already and is not ours; stop what made it, or choose another name with --interface"
    )]
    Taken(String),
    /// Another program owns an nftables table of this name.
    #[error(
        "an nftables table inet {0} exists already and is not ours; remove it (`nft delete table inet {0}`), or choose another name with --nft-table"
    )]
    TableTaken(String),
    /// The kernel refused.
    #[error("cannot {what}: {source}")]
    Netlink {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: Box<rtnetlink::Error>,
    },
    /// Netlink itself cannot be used.
    #[error("cannot talk to the kernel by netlink: {0}")]
    Socket(io::Error),
    /// A route clashes or was refused.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The firewall was refused.
    #[error(transparent)]
    Firewall(#[from] FirewallError),
}

pub(super) fn netlink(what: &'static str) -> impl FnOnce(rtnetlink::Error) -> InterfaceError {
    move |source| InterfaceError::Netlink {
        what,
        source: Box::new(source),
    }
}

/// The interface while it stands.
pub struct Interface {
    pub(super) settings: InterfaceSettings,
    pub(super) overlay: OverlayConfig,
    queues: Vec<Arc<OwnedFd>>,
    pub(super) handle: Handle,
    pub(super) index: u32,
    pub(super) ipv6: bool,
    /// What is caught; `None`: this kernel cannot, for the reason beside.
    pub(super) interception: Option<Interception>,
    pub(super) uncaught: Option<String>,
    /// The firewall's table as `nft` listed it when it was changed last.
    pub(super) ruleset: String,
}

impl Interface {
    /// Puts everything up: unreachable routes and firewall first, the way through the device last.
    ///
    /// # Errors
    /// Says what the kernel refused; what was put up before stays, so that nothing leaves in the
    /// clear, until the next try or `withdraw`.
    pub async fn up(
        settings: InterfaceSettings,
        overlay: OverlayConfig,
        interception: &Interception,
    ) -> Result<Self, InterfaceError> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(InterfaceError::Socket)?;
        tokio::spawn(connection);
        let ipv6 = ipv6_is_available();
        refuse(&handle, &settings, overlay.prefixes).await?;
        // The routes first: they need no other program.
        routes::install(&handle, &routes::guards(overlay.prefixes, ipv6)).await?;
        let caught = put_up_firewall(&settings, overlay.prefixes, interception).await?;
        let queues = open(&settings)?;
        Self::dress(settings, overlay, caught, queues, handle).await
    }

    /// Takes over a device that another daemon made and gave us, and what stands around it. Nothing
    /// of it is taken away in between; what is missing or of another version is made anew.
    ///
    /// # Errors
    /// As [`Interface::up`].
    pub async fn take_over(
        settings: InterfaceSettings,
        overlay: OverlayConfig,
        interception: &Interception,
        queues: Vec<Arc<OwnedFd>>,
    ) -> Result<Self, InterfaceError> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(InterfaceError::Socket)?;
        tokio::spawn(connection);
        let guards = routes::guards(overlay.prefixes, ipv6_is_available());
        routes::install(&handle, &guards).await?;
        let caught = put_up_firewall(&settings, overlay.prefixes, interception).await?;
        Self::dress(settings, overlay, caught, queues, handle).await
    }

    /// Gives the device its addresses and the ways through it.
    async fn dress(
        settings: InterfaceSettings,
        overlay: OverlayConfig,
        caught: Result<Interception, String>,
        queues: Vec<Arc<OwnedFd>>,
        handle: Handle,
    ) -> Result<Self, InterfaceError> {
        let ipv6 = ipv6_is_available();
        let index = link_index(&handle, &settings.name)
            .await?
            .ok_or_else(|| tun_error(&settings, io::ErrorKind::NotFound.into()))?;
        add_addresses(&handle, index, overlay.addresses, ipv6).await?;
        let up = LinkUnspec::new_with_index(index)
            .mtu(u32::from(settings.mtu))
            .up()
            .build();
        handle
            .link()
            .set(up)
            .execute()
            .await
            .map_err(netlink("bring the interface up"))?;
        let ways = routes::ways(overlay.prefixes, overlay.addresses, index, ipv6);
        routes::install(&handle, &ways).await?;
        let ruleset = firewall::listing(&settings.table).await?;
        let uncaught = caught.as_ref().err().cloned();
        Ok(Self {
            settings,
            overlay,
            queues,
            handle,
            index,
            ipv6,
            interception: caught.ok(),
            uncaught,
            ruleset,
        })
    }

    /// Changes what is caught on its way out, element by element where that is all.
    ///
    /// # Errors
    /// `nft` is missing or refuses: what was caught before still is.
    pub async fn intercept(&mut self, wanted: &Interception) -> Result<(), InterfaceError> {
        let Some(before) = self.interception.as_ref().filter(|it| *it != wanted) else {
            return Ok(());
        };
        let (table, name) = (&self.settings.table, &self.settings.name);
        let changed = match wanted.change(before, table) {
            Some(script) => firewall::change(table, &script).await.is_ok(),
            None => false,
        };
        if !changed {
            firewall::install(table, name, self.overlay.prefixes, Some(wanted)).await?;
        }
        self.interception = Some(wanted.clone());
        self.ruleset = firewall::listing(table).await?;
        Ok(())
    }

    /// Returns why nothing can be caught on this host.
    pub fn uncaught(&self) -> Option<&str> {
        self.uncaught.as_deref()
    }

    /// Returns the number that the kernel knows it by.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Returns the device that packets are read from and written to, queue by queue.
    pub fn device(&self) -> Vec<Arc<OwnedFd>> {
        self.queues.clone()
    }

    /// Returns what the fleet gave.
    pub fn overlay(&self) -> OverlayConfig {
        self.overlay
    }

    /// Returns the host's own addresses on it.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let HostAddresses { v4, v6 } = self.overlay.addresses;
        let v6 = self.ipv6.then_some(v6.into());
        [Some(v4.into()), v6].into_iter().flatten()
    }

    /// Takes everything back. The device itself goes when its last user drops it; it is taken down
    /// here so that no route leads into it.
    ///
    /// # Errors
    /// `nft` cannot be used: what guards the overlay stays.
    pub async fn down(self) -> Result<(), InterfaceError> {
        let down = LinkUnspec::new_with_index(self.index).down().build();
        if let Err(error) = self.handle.link().set(down).execute().await {
            tracing::warn!(%error, interface = %self.settings.name, "cannot take the interface down");
        }
        let (table, prefixes) = (&self.settings.table, self.overlay.prefixes);
        take_guards_back(&self.handle, table, prefixes).await
    }
}

/// Puts the table up with what is caught, or without it where the kernel cannot: the overlay's guard
/// does not depend on it.
async fn put_up_firewall(
    settings: &InterfaceSettings,
    prefixes: OverlayPrefixes,
    interception: &Interception,
) -> Result<Result<Interception, String>, InterfaceError> {
    let (table, name) = (&settings.table, &settings.name);
    match firewall::install(table, name, prefixes, Some(interception)).await {
        Ok(()) => Ok(Ok(interception.clone())),
        Err(refused @ FirewallError::Refused { .. }) => {
            firewall::install(table, name, prefixes, None).await?;
            Ok(Err(refused.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Puts up what guards an overlay that cannot stand: nothing for it leaves this host.
///
/// # Errors
/// The kernel or `nft` refuses.
pub async fn guard(
    table: &str,
    interface: &str,
    prefixes: OverlayPrefixes,
) -> Result<(), InterfaceError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(InterfaceError::Socket)?;
    let driver = tokio::spawn(connection);
    let guards = routes::guards(prefixes, ipv6_is_available());
    let installed = routes::install(&handle, &guards).await;
    driver.abort();
    installed?;
    Ok(firewall::install(table, interface, prefixes, None).await?)
}

/// Refuses to replace a table that another program made.
///
/// # Errors
/// There is one of this name, without the chains of ours.
pub async fn refuse_table(table: &str) -> Result<(), InterfaceError> {
    match firewall::listing(table).await {
        Ok(listing) if !firewall::is_ours(&listing) => {
            Err(InterfaceError::TableTaken(table.to_owned()))
        }
        // Without `nft` there is none; `up` says what is missing, once the routes stand.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Refuses what `Interface::up` would refuse before it touches anything.
///
/// # Errors
/// The interface's name is taken, or the host has routes of its own into the overlay.
pub async fn refuse_clash(
    settings: &InterfaceSettings,
    prefixes: OverlayPrefixes,
) -> Result<(), InterfaceError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(InterfaceError::Socket)?;
    let driver = tokio::spawn(connection);
    let refused = refuse(&handle, settings, prefixes).await;
    driver.abort();
    refused
}

async fn refuse(
    handle: &Handle,
    settings: &InterfaceSettings,
    prefixes: OverlayPrefixes,
) -> Result<(), InterfaceError> {
    if link_index(handle, &settings.name).await?.is_some() {
        return Err(InterfaceError::Taken(settings.name.clone()));
    }
    Ok(routes::refuse_overlap(handle, prefixes, None).await?)
}

/// Returns whether an interface of this name exists.
///
/// # Errors
/// Netlink cannot be used.
pub async fn exists(name: &str) -> Result<bool, InterfaceError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(InterfaceError::Socket)?;
    let driver = tokio::spawn(connection);
    let index = link_index(&handle, name).await;
    driver.abort();
    Ok(index?.is_some())
}

/// Takes back what a failed `Interface::up`, or a daemon that died, left standing.
///
/// # Errors
/// Netlink or `nft` cannot be used.
pub async fn withdraw(table: &str, prefixes: OverlayPrefixes) -> Result<(), InterfaceError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(InterfaceError::Socket)?;
    let driver = tokio::spawn(connection);
    let withdrawn = take_guards_back(&handle, table, prefixes).await;
    driver.abort();
    withdrawn
}

async fn take_guards_back(
    handle: &Handle,
    table: &str,
    prefixes: OverlayPrefixes,
) -> Result<(), InterfaceError> {
    routes::remove(handle, &routes::guards(prefixes, true)).await;
    Ok(firewall::remove(table).await?)
}

fn open(settings: &InterfaceSettings) -> Result<Vec<Arc<OwnedFd>>, InterfaceError> {
    open_queues(settings).map_err(|source| tun_error(settings, source))
}

fn open_queues(settings: &InterfaceSettings) -> io::Result<Vec<Arc<OwnedFd>>> {
    let first = DeviceBuilder::new()
        .name(settings.name.clone())
        .layer(Layer::L3)
        .mtu(settings.mtu)
        .multi_queue(settings.queues > 1)
        .offload(true)
        .enable(false)
        .build_sync()?;
    let mut queues = vec![first];
    for _ in 1..settings.queues {
        queues.push(queues[0].try_clone()?);
    }
    queues
        .into_iter()
        .map(|queue| {
            queue.set_nonblocking(true)?;
            // The descriptor is all that is used from here on, and all that can be handed over.
            Ok(Arc::new(queue.as_fd().try_clone_to_owned()?))
        })
        .collect()
}

fn tun_error(settings: &InterfaceSettings, source: io::Error) -> InterfaceError {
    InterfaceError::Tun {
        name: settings.name.clone(),
        source,
    }
}

/// A kernel without IPv6 still carries IPv4.
pub(crate) fn ipv6_is_available() -> bool {
    Path::new("/proc/net/if_inet6").exists()
        && std::fs::read_to_string("/proc/sys/net/ipv6/conf/default/disable_ipv6")
            .is_ok_and(|text| text.trim() == "0")
}

async fn link_index(handle: &Handle, name: &str) -> Result<Option<u32>, InterfaceError> {
    let mut links = handle.link().get().execute();
    while let Some(link) = links
        .try_next()
        .await
        .map_err(netlink("list the interfaces"))?
    {
        let named = link
            .attributes
            .iter()
            .any(|attribute| matches!(attribute, LinkAttribute::IfName(other) if other == name));
        if named {
            return Ok(Some(link.header.index));
        }
    }
    Ok(None)
}

pub(super) async fn add_addresses(
    handle: &Handle,
    index: u32,
    own: HostAddresses,
    ipv6: bool,
) -> Result<(), InterfaceError> {
    let v4 = handle.address().add(index, own.v4.into(), 32).replace();
    v4.execute()
        .await
        .map_err(netlink("set the overlay address"))?;
    if ipv6 {
        let mut v6 = handle.address().add(index, own.v6.into(), 128).replace();
        // Nobody else has it, and a tentative address cannot be bound to.
        v6.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        v6.execute()
            .await
            .map_err(netlink("set the IPv6 overlay address"))?;
    }
    Ok(())
}

/// Lists the addresses of the host's other interfaces: where peers may reach it.
///
/// # Errors
/// Netlink cannot be used.
pub async fn underlay_addresses(overlay_interface: &str) -> Result<Vec<IpAddr>, InterfaceError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(InterfaceError::Socket)?;
    let driver = tokio::spawn(connection);
    let own = link_index(&handle, overlay_interface).await?;
    let mut found = BTreeSet::new();
    let mut addresses = handle.address().get().execute();
    while let Some(message) = addresses
        .try_next()
        .await
        .map_err(netlink("list the addresses"))?
    {
        if Some(message.header.index) == own {
            continue;
        }
        // `Local` is the host's end where an interface has two; else only `Address` is there.
        let local = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Local(address) => Some(*address),
                _ => None,
            });
        let address = local.or_else(|| {
            message
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    AddressAttribute::Address(address) => Some(*address),
                    _ => None,
                })
        });
        found.extend(address.filter(|address| !address.is_loopback()));
    }
    driver.abort();
    Ok(found.into_iter().collect())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::process::Command;

    use dataplane::ShardConfig;
    use model::ids::FleetId;

    use super::*;
    use crate::packets::{PacketWorker, UdpSockets, WorkerMessage};

    /// Runs a test of this name again, in a network namespace of its own. Needs root.
    pub(crate) fn is_in_namespace(test: &str) -> bool {
        if std::env::var_os("MESHD_TEST_NAMESPACE").is_some() {
            return true;
        }
        let status = Command::new("unshare")
            .args([
                "--net",
                "sh",
                "-c",
                "ip link set lo up && exec \"$@\"",
                "sh",
            ])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", test])
            .env("MESHD_TEST_NAMESPACE", "1")
            .status()
            .unwrap();
        assert!(status.success());
        false
    }

    pub(crate) fn said_by(program: &str, arguments: &[&str]) -> String {
        let output = Command::new(program).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[tokio::test]
    async fn a_device_that_was_given_back_can_be_made_again_at_once() {
        if !is_in_namespace(
            "linux::interface::tests::a_device_that_was_given_back_can_be_made_again_at_once",
        ) {
            return;
        }
        let prefixes = OverlayPrefixes::derived_from(FleetId::from_bytes([0; 16]));
        let settings = InterfaceSettings {
            name: "mesh0".into(),
            table: "mesh".into(),
            mtu: 1420,
            queues: 2,
        };
        let overlay = OverlayConfig {
            addresses: prefixes.nth_host(0).unwrap(),
            prefixes,
        };
        let sockets = UdpSockets::bind_group(0, 2).unwrap();
        let (news, _events) = tokio::sync::mpsc::channel(16);
        let clock = runtime::clock::Clock::start();
        let worker =
            PacketWorker::start(ShardConfig::default(), sockets, [1; 32], clock, news).unwrap();
        for _ in 0..20 {
            let interface = Interface::up(settings.clone(), overlay, &Interception::default())
                .await
                .unwrap();
            let device = WorkerMessage::Device(interface.device());
            worker.handle().send(device).unwrap();
            worker.handle().release_device().await;
            interface.down().await.unwrap();
        }
        worker.stop();
    }

    #[tokio::test]
    async fn a_failed_try_guards_the_overlay_until_it_is_withdrawn() {
        if !is_in_namespace(
            "linux::interface::tests::a_failed_try_guards_the_overlay_until_it_is_withdrawn",
        ) {
            return;
        }
        let prefixes = OverlayPrefixes::derived_from(FleetId::from_bytes([0; 16]));
        let settings = InterfaceSettings {
            name: "longer-than-linux-takes".into(),
            table: "mesh".into(),
            mtu: 1420,
            queues: 1,
        };
        let overlay = OverlayConfig {
            addresses: prefixes.nth_host(0).unwrap(),
            prefixes,
        };
        assert!(
            Interface::up(settings.clone(), overlay, &Interception::default())
                .await
                .is_err()
        );
        let route = format!("unreachable {}", prefixes.v4);
        assert!(said_by("ip", &["route"]).contains(&route));
        withdraw(&settings.table, prefixes).await.unwrap();
        assert!(!said_by("ip", &["route"]).contains(&route));
        assert_eq!(said_by("nft", &["list", "tables"]), "");
    }
}
