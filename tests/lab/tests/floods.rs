//! One host or stranger sends a host as much as it can, and the other hosts' packets pass all the same.
//! What the machine under the test can send and take differs, so that nothing is timed here: the
//! others' pings arrive, and what was too much is counted.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]

use std::net::{IpAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use lab::fleet::{CHANGE_DEADLINE, Fleet, Host};
use lab::{Lab, LabError, Namespace, Wiretap, wait_until};
use serde_json::Value;

const OPEN: &str = "\
fleet: test
allow:
  - { id: all, from: any, to: any, icmp: true, udp: [9000] }
";

/// WireGuard's port, and its type of data messages: whitepaper, section 5.4.
const PORT: u16 = 51820;
const DATA: u8 = 4;

/// Pings of a host that does no harm, and how many of them may be lost: those from before the flood
/// was noticed, and a few.
const PINGS: u32 = 100;
const LOST_MAX: u32 = 30;

/// The same datagram without end, from two threads; ends when this is dropped.
struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Flood {
    fn start(from: &Namespace, to: SocketAddrV4, datagram: &[u8]) -> Result<Self, LabError> {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let threads = (0..2).map(|_| {
            let socket = from.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap())?;
            socket.connect(to).unwrap();
            let (stop, sent, datagram) = (Arc::clone(&stop), Arc::clone(&sent), datagram.to_vec());
            Ok(thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // What the network does not take is missed by nobody.
                    if socket.send(&datagram).is_ok() {
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }))
        });
        Ok(Self {
            threads: threads.collect::<Result<_, LabError>>()?,
            stop,
            sent,
        })
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("the flood does not panic");
        }
    }
}

/// Three hosts that reach each other, on an underlay with IPv4 only.
fn hosts(fleet: &Fleet) -> Result<[Host; 3], LabError> {
    let token = fleet.coordinator.create_token(&[])?;
    let mut hosts = Vec::new();
    for name in ["victim", "friend", "flooder"] {
        let host = fleet.machine(name)?;
        host.namespace()
            .run("ip", ["-6", "address", "flush", "dev", "eth0"])?;
        host.join(&token)?;
        hosts.push(host);
    }
    fleet.coordinator.apply_policy_text(OPEN)?;
    for host in &hosts[1..] {
        host.wait_reaches("victim")?;
    }
    Ok(hosts.try_into().expect("there are three"))
}

fn port_of(host: &Host) -> SocketAddrV4 {
    SocketAddrV4::new(host.attachment().v4, PORT)
}

/// What a host's daemon dropped for a reason, or the kernel for it.
fn dropped(at: &Host, reasons: &[&str]) -> Result<u64, LabError> {
    let status = at.ask(&["status"])?;
    let drops = status["daemon"]["detail"]["drops"].as_array().cloned();
    let drops = drops.unwrap_or_default();
    let is_meant = |it: &&Value| reasons.iter().any(|reason| it["reason"] == *reason);
    let packets = drops.iter().filter(is_meant);
    Ok(packets.filter_map(|it| it["packets"].as_u64()).sum())
}

/// Pings the victim from its friend, and returns how many were lost.
fn lost_pings(from: &Host, to: &Host) -> Result<u32, LabError> {
    let (address, _) = to.overlay_addresses()?;
    let script = format!("ping -n -q -c {PINGS} -i 0.02 -W 3 {address} || true");
    let said = from.namespace().launch("sh").args(["-c", &script]).run()?;
    let text = said.stdout;
    let received = text
        .split(", ")
        .find_map(|part| part.strip_suffix(" received"))
        .and_then(|number| number.parse::<u32>().ok());
    let received = received.ok_or_else(|| LabError::new(format!("ping said {text:?}")))?;
    Ok(PINGS - received)
}

/// A friend's pings pass while the flood goes on, and what it costs is counted under these reasons or
/// as above its share.
fn friend_gets_through(hosts: &[Host; 3], flood: Flood, reasons: &[&str]) -> Result<(), LabError> {
    let [victim, friend, _] = hosts;
    let counted = [reasons, &["underlay_above_share", "underlay_queue_full"]].concat();
    wait_until("the flood is counted", CHANGE_DEADLINE, || {
        Ok((dropped(victim, &counted)? > 1000).then_some(()))
    })?;
    let lost = lost_pings(friend, victim)?;
    let sent = flood.sent();
    drop(flood);
    let above_share = dropped(victim, &["underlay_above_share"])?;
    let queue_full = dropped(victim, &["underlay_queue_full"])?;
    let handled = dropped(victim, reasons)?;
    assert!(
        lost <= LOST_MAX,
        "{lost} of {PINGS} pings were lost; of {sent} sent: {handled} dropped by the daemon, {above_share} above their share, {queue_full} for a full buffer"
    );
    let all = victim.ask(&["drops"])?;
    assert!(handled > 0, "none of {reasons:?}: {all}");
    friend.wait_reaches("victim")?;
    Ok(())
}

#[test]
fn a_stranger_who_sends_garbage_does_not_cut_hosts_off() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    let hosts = hosts(&fleet)?;
    let stranger = lab.namespace("stranger")?;
    fleet.underlay.attach(&stranger, "eth0")?;
    let garbage = [&[DATA, 0, 0, 0][..], &[0x5a; 1200]].concat();
    let flood = Flood::start(&stranger, port_of(&hosts[0]), &garbage)?;
    friend_gets_through(&hosts, flood, &["unknown_receiver"])
}

#[test]
fn packets_forged_in_a_host_s_name_harm_that_host_only() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    let hosts = hosts(&fleet)?;
    let [victim, _, flooder] = &hosts;
    let tap = Wiretap::start(&fleet.underlay)?;
    flooder.wait_reaches("victim")?;
    let (from, to) = (flooder.attachment().v4, port_of(victim));
    let said = wait_until("its data is overheard", CHANGE_DEADLINE, || {
        flooder.wait_reaches("victim")?;
        let heard = tap.datagrams()?.into_iter();
        let mut data = heard
            .filter(|it| *it.source.ip() == from && it.destination == to && it.payload[0] == DATA);
        Ok(data.next_back())
    })?;
    // The session's index, and a counter that is still to come.
    let forged = [
        &said.payload[..8],
        &(1u64 << 20).to_le_bytes(),
        &[0xff; 1200],
    ]
    .concat();
    let stranger = lab.namespace("stranger")?;
    fleet.underlay.attach(&stranger, "eth0")?;
    let flood = Flood::start(&stranger, to, &forged)?;
    friend_gets_through(&hosts, flood, &["forged"])
}

#[test]
fn a_host_that_sends_all_it_can_leaves_the_others_their_share() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    let hosts = hosts(&fleet)?;
    let [victim, friend, flooder] = &hosts;
    let (address, _) = victim.overlay_addresses()?;
    let received = victim
        .namespace()
        .inside(|| UdpSocket::bind((IpAddr::from(address), 9000)).unwrap())?;
    let flood = Flood::start(
        flooder.namespace(),
        SocketAddrV4::new(address, 9000),
        &[0x5a; 600],
    )?;
    received.set_read_timeout(Some(CHANGE_DEADLINE)).unwrap();
    let mut memory = [0; 1000];
    received.recv(&mut memory).unwrap();
    let lost = lost_pings(friend, victim)?;
    let sent = flood.sent();
    drop(flood);
    assert!(
        lost <= LOST_MAX,
        "{lost} of {PINGS} pings were lost beside {sent} datagrams"
    );
    friend.wait_reaches("victim")
}

#[test]
fn a_program_that_floods_one_host_leaves_room_for_packets_to_the_others() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    let hosts = hosts(&fleet)?;
    let [victim, friend, flooder] = &hosts;
    let (address, _) = victim.overlay_addresses()?;
    friend.wait_reaches("flooder")?;
    let to = SocketAddrV4::new(address, 9000);
    let flood = Flood::start(flooder.namespace(), to, &[0x5a; 64])?;
    let before = lost_pings(flooder, friend)?;
    let lost = lost_pings(flooder, friend)?;
    let sent = flood.sent();
    drop(flood);
    let full = dropped(flooder, &["overlay_queue_full"])?;
    let above = dropped(flooder, &["overlay_above_share"])?;
    assert!(
        lost <= LOST_MAX,
        "{lost} of {PINGS} pings were lost, {before} at first; of {sent} datagrams {above} were above their share, \
         {full} found the queue full"
    );
    flooder.wait_reaches("victim")
}
