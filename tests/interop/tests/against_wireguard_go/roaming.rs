//! A side moves to another address while bytes flow, and the other follows.

use std::net::{Ipv4Addr, SocketAddr};

use interop::WIREGUARD_PORT;
use lab::{LabError, wait_until};

use crate::pair::{Initiator, Pair, SOON, Station, Terms};
use crate::transfer::carry;

/// Moves the station while bytes flow and waits until the other side sends to its new address.
fn assert_followed(
    pair: &Pair,
    mover: &Station,
    other: &Station,
    relocate: impl FnOnce(&Station) -> Result<SocketAddr, LabError>,
) -> Result<(), LabError> {
    let (ours, theirs) = (pair.ours.namespace(), pair.theirs.namespace());
    carry(ours, theirs, pair.theirs.overlay_v4(), || {
        let expected = relocate(mover)?;
        wait_until("the other side has followed", SOON, || {
            let seen = other.device.only_peer()?.endpoint;
            Ok((seen == Some(expected)).then_some(()))
        })
    })
}

/// The interface gets another address, and loses the one that it had.
fn change_address(station: &Station) -> Result<SocketAddr, LabError> {
    let address = Ipv4Addr::new(10, 77, 0, 201);
    let interface = &station.attachment.interface;
    let old = station.attachment.v4;
    // Without the setting, all addresses of a network go with the first of them.
    let commands = format!(
        "echo 1 > /proc/sys/net/ipv4/conf/{interface}/promote_secondaries
         ip address add {address}/24 dev {interface}
         ip address del {old}/24 dev {interface}"
    );
    station.namespace().run("sh", ["-ec", &commands])?;
    Ok(SocketAddr::new(address.into(), WIREGUARD_PORT))
}

/// Another interface comes up, and the first one goes with its address.
fn change_interface(pair: &Pair, station: &Station) -> Result<SocketAddr, LabError> {
    let other = pair.network.attach(station.namespace(), "eth1")?;
    let interface = &station.attachment.interface;
    let commands = format!("ip link set {interface} down; ip address flush dev {interface}");
    station.namespace().run("sh", ["-ec", &commands])?;
    Ok(SocketAddr::new(other.v4.into(), WIREGUARD_PORT))
}

#[test]
fn they_follow_when_our_address_changes() -> Result<(), LabError> {
    let pair = Pair::joined(Initiator::Ours, &Terms::default())?;
    assert_followed(&pair, &pair.ours, &pair.theirs, change_address)
}

#[test]
fn they_follow_when_we_change_the_interface() -> Result<(), LabError> {
    let pair = Pair::joined(Initiator::Ours, &Terms::default())?;
    let relocate = |station: &Station| change_interface(&pair, station);
    assert_followed(&pair, &pair.ours, &pair.theirs, relocate)
}

#[test]
fn we_follow_when_their_address_and_port_change() -> Result<(), LabError> {
    let pair = Pair::joined(Initiator::Ours, &Terms::default())?;
    assert_followed(&pair, &pair.theirs, &pair.ours, |station| {
        let mut moved = change_address(station)?;
        // On kernels that answer ENETUNREACH to a source address that is gone, wireguard-go
        // 0.0.20220316 goes on naming it until it binds anew, or for 15 seconds.
        moved.set_port(WIREGUARD_PORT + 1);
        station.device.listen_on(moved.port())?;
        Ok(moved)
    })
}

#[test]
fn we_follow_when_they_change_the_family() -> Result<(), LabError> {
    let pair = Pair::joined(Initiator::Ours, &Terms::default())?;
    assert_followed(&pair, &pair.theirs, &pair.ours, |station| {
        let terms = Terms {
            over_ipv6: true,
            ..Terms::default()
        };
        // Else our packets over IPv4 that are under way would call them back.
        let interface = &station.attachment.interface;
        let leave = ["-4", "address", "flush", "dev", interface];
        station.namespace().run("ip", leave)?;
        let us = pair.us(Initiator::Theirs, &terms);
        station.device.update_peer(&us)?;
        Ok(station.endpoint(true))
    })
}
