//! Lanes: what two hosts with two packet threads each have to say to each other goes by both of them
//! at both ends, through one port.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use lab::fleet::{CHANGE_DEADLINE, Fleet, Host};
use lab::{Lab, LabError, wait_until};

const OPEN: &str = "\
fleet: test
allow:
  - { id: streams, from: any, to: any, tcp: [8080] }
";

/// Enough of them that both lanes have some: one in 32,768 times they have not.
const STREAMS: usize = 16;

/// Connections that are never silent, until they are dropped.
struct Streams {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Streams {
    fn start(from: &Host, to: &Host) -> Result<Self, LabError> {
        let (address, _) = to.overlay_addresses()?;
        let listener = to
            .namespace()
            .inside(|| TcpListener::bind((address, 8080)).unwrap())?;
        let is_over = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for _ in 0..STREAMS {
            let client = from.namespace().dial((address, 8080))?.connected()?;
            let (server, _) = listener.accept().unwrap();
            let over = Arc::clone(&is_over);
            threads.push(thread::spawn(move || write(client, &over)));
            threads.push(thread::spawn(move || read(server)));
        }
        Ok(Self { is_over, threads })
    }

    /// Ends them, and returns when all is read that was written.
    fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

fn write(mut client: TcpStream, is_over: &AtomicBool) {
    client.set_write_timeout(Some(CHANGE_DEADLINE)).unwrap();
    while !is_over.load(Ordering::Relaxed) {
        client.write_all(&[7; 65536]).unwrap();
    }
}

fn read(mut server: TcpStream) {
    server.set_read_timeout(Some(CHANGE_DEADLINE)).unwrap();
    let mut memory = vec![0; 65536];
    loop {
        match server.read(&mut memory) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("a connection was cut: {error}"),
        }
    }
}

/// Processor time of each packet thread, in clock ticks: `utime` and `stime` of proc(5).
fn packet_ticks(host: &mut Host) -> Vec<u64> {
    let process = host.process().unwrap().id();
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let mut ticks: Vec<(String, u64)> = tasks
        .filter_map(|task| fs::read_to_string(task.unwrap().path().join("stat")).ok())
        .filter_map(|stat| {
            let (start, rest) = stat.rsplit_once(") ")?;
            let (_, name) = start.split_once('(')?;
            let fields: Vec<&str> = rest.split(' ').collect();
            let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
            let is_its = name.starts_with("packets-");
            is_its.then_some((name.to_owned(), ticks(11)? + ticks(12)?))
        })
        .collect();
    ticks.sort();
    ticks.into_iter().map(|(_, ticks)| ticks).collect()
}

fn lanes(host: &Host) -> Result<u64, LabError> {
    Ok(host.ask(&["peers"])?[0]["lanes"].as_u64().unwrap_or(0))
}

/// Returns how much processor time each packet thread of both used while the streams ran on.
fn work(alpha: &mut Host, beta: &mut Host) -> Result<Vec<u64>, LabError> {
    /// A second in all: far more than threads need that only keep time.
    const TICKS: u64 = 100;
    let mut ticks = || [packet_ticks(alpha), packet_ticks(beta)].concat();
    let before = ticks();
    wait_until("the packet threads have worked", CHANGE_DEADLINE, || {
        let used: Vec<u64> = ticks()
            .iter()
            .zip(&before)
            .map(|(now, it)| now - it)
            .collect();
        Ok((used.iter().sum::<u64>() >= TICKS).then_some(used))
    })
}

#[test]
fn one_pair_of_hosts_uses_both_packet_threads_of_each() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    let token = fleet.coordinator.create_token(&[])?;
    let mut alpha = fleet.machine_with("alpha", &["--shards", "2"])?;
    let mut beta = fleet.machine_with("beta", &["--shards", "2"])?;
    for host in [&mut alpha, &mut beta] {
        host.join(&token)?;
    }
    alpha.wait_reaches("beta")?;
    fleet.coordinator.apply_policy_text(OPEN)?;
    assert!(lanes(&alpha)? <= 1, "a ping is not worth a second one");

    let streams = Streams::start(&alpha, &beta)?;
    for host in [&alpha, &beta] {
        wait_until("both lanes are used", CHANGE_DEADLINE, || {
            Ok((lanes(host)? == 2).then_some(()))
        })?;
    }
    let used = work(&mut alpha, &mut beta)?;
    assert!(
        used.iter().all(|ticks| *ticks > 0),
        "of alpha and beta, in clock ticks: {used:?}"
    );
    // No stream was cut on the way into its lane, or in it.
    streams.end();
    for host in [&alpha, &beta] {
        let status = host.ask(&["status"])?;
        let drops = status["daemon"]["detail"]["drops"].to_string();
        for wrong in ["denied", "unknown_receiver", "bad_control"] {
            assert!(!drops.contains(wrong), "{}: {drops}", host.name());
        }
    }
    Ok(())
}
