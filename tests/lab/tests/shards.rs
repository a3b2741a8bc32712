//! Hosts with several packet threads among hosts with one: every pair talks, each peer has one thread,
//! and no flow loses its order.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::thread;
use std::time::Duration;

use lab::fleet::{CHANGE_DEADLINE, Fleet, Host};
use lab::{Lab, LabError};

const OPEN: &str = "\
fleet: test
allow:
  - { id: all, from: any, to: any, icmp: true, tcp: [8080], udp: [8080] }
";

/// Bytes of each connection: more than any buffer on the way holds.
const STREAM_BYTES: usize = 2 << 20;

/// Machines with 4, 2 and 1 packet threads, which know each other.
fn hosts(fleet: &Fleet) -> Result<Vec<Host>, LabError> {
    let token = fleet.coordinator.create_token(&[])?;
    let mut hosts = Vec::new();
    for (name, shards) in [("four", "4"), ("two", "2"), ("one", "1")] {
        let host = fleet.machine_with(name, &["--shards", shards])?;
        host.join(&token)?;
        hosts.push(host);
    }
    for (one, other) in pairs(&hosts) {
        one.wait_reaches(other.name())?;
    }
    Ok(hosts)
}

fn pairs(hosts: &[Host]) -> impl Iterator<Item = (&Host, &Host)> {
    let others = move |one: &Host| {
        let name = one.name().to_owned();
        hosts.iter().filter(move |other| other.name() != name)
    };
    hosts
        .iter()
        .flat_map(move |one| others(one).map(move |other| (one, other)))
}

fn packet_threads(host: &mut Host) -> usize {
    let process = host.process().unwrap().id();
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let names = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("comm")));
    let names = names.filter_map(Result::ok);
    names.filter(|name| name.starts_with("packets-")).count()
}

#[test]
fn connections_pass_between_hosts_with_any_number_of_packet_threads() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    let mut hosts = hosts(&fleet)?;
    fleet.coordinator.apply_policy_text(OPEN)?;
    for (host, threads) in hosts.iter_mut().zip([4, 2, 1]) {
        assert_eq!(packet_threads(host), threads);
        let status = host.ask(&["status"])?;
        assert_eq!(status["daemon"]["detail"]["shards"], threads);
    }
    for (from, to) in pairs(&hosts) {
        let (v4, v6) = to.overlay_addresses()?;
        for address in [IpAddr::from(v4), v6.into()] {
            // Several at once, so that the kernel spreads them over the queues.
            let listener = to
                .namespace()
                .inside(|| TcpListener::bind((address, 8080)).unwrap())?;
            let clients: Vec<_> = (0..4)
                .map(|_| from.namespace().dial((address, 8080))?.connected())
                .collect::<Result<_, LabError>>()?;
            let data: Vec<u8> = (0..STREAM_BYTES).map(|at| (at / 7) as u8).collect();
            thread::scope(|scope| {
                for client in &clients {
                    let (mut server, _) = listener.accept().unwrap();
                    let data = &data;
                    scope.spawn(move || {
                        let mut client = client;
                        client.write_all(data).unwrap();
                        client.shutdown(std::net::Shutdown::Write).unwrap();
                    });
                    scope.spawn(move || {
                        let mut received = Vec::new();
                        server.set_read_timeout(Some(CHANGE_DEADLINE)).unwrap();
                        server.read_to_end(&mut received).unwrap();
                        assert!(received == *data, "{} bytes", received.len());
                    });
                }
            });
        }
    }
    for host in &hosts {
        let status = host.ask(&["status"])?;
        let drops = status["daemon"]["detail"]["drops"].to_string();
        for wrong in ["hand_over_full", "unknown_receiver", "denied_inbound"] {
            assert!(!drops.contains(wrong), "{}: {drops}", host.name());
        }
    }
    Ok(())
}

#[test]
fn datagrams_of_one_flow_arrive_in_their_order() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    let hosts = hosts(&fleet)?;
    fleet.coordinator.apply_policy_text(OPEN)?;
    for (from, to) in pairs(&hosts) {
        let (address, _) = to.overlay_addresses()?;
        let receiver = to
            .namespace()
            .inside(|| UdpSocket::bind((address, 8080)).unwrap())?;
        receiver.set_read_timeout(Some(CHANGE_DEADLINE)).unwrap();
        let sender = from
            .namespace()
            .inside(|| UdpSocket::bind("0.0.0.0:0").unwrap())?;
        sender.connect((address, 8080)).unwrap();
        let numbers: Vec<u32> = thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0u32..2000 {
                    sender.send(&number.to_be_bytes()).unwrap();
                    // In bursts that fit into every queue on the way.
                    if number % 40 == 39 {
                        thread::sleep(Duration::from_millis(2));
                    }
                }
            });
            let mut numbers = Vec::new();
            let mut bytes = [0; 4];
            while numbers.last() != Some(&1999) {
                receiver.recv(&mut bytes).expect("the last one arrives");
                numbers.push(u32::from_be_bytes(bytes));
            }
            numbers
        });
        assert!(numbers.is_sorted(), "{} -> {}", from.name(), to.name());
        assert!(numbers.len() > 1900, "{} arrived", numbers.len());
    }
    Ok(())
}
