//! A daemon hands over to another while traffic passes: no connection is cut, and whatever goes wrong
//! with the new one, the old one goes on.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]
#![allow(
    clippy::print_stdout,
    reason = "what a hand-over costs is shown, and judged by people"
)]

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lab::fleet::{CHANGE_DEADLINE, Fleet, Host, Pair};
use lab::{Lab, LabError, replace_program, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Alpha may open connections to beta, and nobody one to alpha.
const POLICY: &str = "\
fleet: test
allow:
  - { id: ping, from: any, to: any, icmp: true }
  - { id: web, from: \"role=web\", to: \"role=db\", tcp: [8080] }
";
const PORT: u16 = 8080;
const ROUNDS: usize = 10;

fn pair(lab: &Lab) -> Result<Pair, LabError> {
    let pair = Pair::start(lab)?;
    pair.fleet.coordinator.apply_policy_text(POLICY)?;
    Ok(pair)
}

/// A connection from alpha to beta, its two ends.
fn connection(alpha: &Host, beta: &Host) -> Result<(TcpStream, TcpStream), LabError> {
    let (address, _) = beta.overlay_addresses()?;
    let listener = beta
        .namespace()
        .inside(|| TcpListener::bind((address, PORT)).unwrap())?;
    let client = wait_until("alpha may connect to beta", CHANGE_DEADLINE, || {
        Ok(alpha.namespace().dial((address, PORT))?.connected().ok())
    })?;
    let (server, _) = listener.accept().unwrap();
    for end in [&client, &server] {
        end.set_read_timeout(Some(CHANGE_DEADLINE)).unwrap();
        end.set_write_timeout(Some(CHANGE_DEADLINE)).unwrap();
    }
    Ok((client, server))
}

/// Sends without a pause until it is told to stop, and returns what arrived and the longest time for
/// which nothing did.
fn upload_during<T: Send>(
    (mut client, mut server): (TcpStream, TcpStream),
    work: impl FnOnce() -> T + Send,
) -> (T, u64, Duration) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut sent = 0u64;
            let mut block = vec![0; 1 << 16];
            while !done.load(Ordering::Relaxed) {
                for (at, byte) in (sent..).zip(&mut block) {
                    *byte = pattern(at);
                }
                client.write_all(&block).unwrap();
                sent += block.len() as u64;
            }
            client.shutdown(Shutdown::Write).unwrap();
        });
        let receiver = scope.spawn(|| {
            let (mut received, mut longest) = (0u64, Duration::ZERO);
            let mut block = vec![0; 1 << 16];
            loop {
                let before = std::time::Instant::now();
                let length = server.read(&mut block).unwrap();
                if length == 0 {
                    return (received, longest);
                }
                longest = longest.max(before.elapsed());
                for (at, byte) in (received..).zip(&block[..length]) {
                    assert_eq!(*byte, pattern(at), "at {at}");
                }
                received += length as u64;
            }
        });
        let outcome = work();
        done.store(true, Ordering::Relaxed);
        let (received, longest) = receiver.join().unwrap();
        (outcome, received, longest)
    })
}

fn pattern(at: u64) -> u8 {
    (at / 251) as u8
}

fn hand_over(host: &Host) -> Result<Value, LabError> {
    let mut reloaded = host.ask(&["reload", "--hand-over"])?;
    Ok(reloaded["handed_over"].take())
}

/// The TCP segments that a machine has sent again.
fn retransmitted(host: &Host) -> Result<u64, LabError> {
    let text = host.namespace().run("cat", ["/proc/net/snmp"])?.stdout;
    let mut rows = text.lines().filter(|line| line.starts_with("Tcp:"));
    let mut row = || rows.next().unwrap_or_default().split_ascii_whitespace();
    let (names, values) = (row(), row());
    let found = names.zip(values).find(|(name, _)| *name == "RetransSegs");
    Ok(found.unwrap().1.parse().unwrap())
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

#[test]
fn an_upload_lives_through_ten_hand_overs_of_either_side() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let Pair { fleet, alpha, beta } = pair(&lab)?;
    for (host, other) in [(&alpha, "beta"), (&beta, "alpha")] {
        let ends = connection(&alpha, &beta)?;
        let lost_before = retransmitted(&alpha)?;
        let (done, received, longest) = upload_during(ends, || {
            let round = |_| {
                // A peer answers twenty handshakes of a host a second at most.
                host.wait_state("online")?;
                host.wait_reaches(other)?;
                hand_over(host)
            };
            (0..ROUNDS).map(round).collect::<Result<Vec<_>, LabError>>()
        });
        let done = done?;
        let lost = retransmitted(&alpha)? - lost_before;
        let pauses = done.iter().map(|it| it["pause_micros"].as_u64().unwrap());
        let pauses: Vec<u64> = pauses.collect();
        println!(
            "{}: pauses {pauses:?} µs, median {} µs; {received} bytes arrived, {lost} segments \
             sent again, nothing for at most {longest:?}",
            host.name(),
            median(pauses.clone()),
        );
        for facts in &done {
            assert_eq!(facts["handshakes_begun"], 1, "{facts}");
            assert_eq!(facts["handshakes_answered"], 1, "{facts}");
            assert!(facts["flows"].as_u64() >= Some(1), "{facts}");
        }
    }
    // What a restart would have forgotten: the fleet, names, the resolver, the coordinator.
    for host in [&alpha, &beta] {
        host.wait_state("online")?;
    }
    alpha.wait_reaches("beta")?;
    beta.wait_reaches("alpha")?;
    drop(fleet);
    Ok(())
}

#[test]
fn hosts_with_several_packet_threads_hand_over_too() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    let token = fleet.coordinator.create_token(&["role=web"])?;
    let alpha = fleet.machine_with("alpha", &["--shards", "4"])?;
    alpha.join(&token)?;
    let token = fleet.coordinator.create_token(&["role=db"])?;
    let beta = fleet.machine_with("beta", &["--shards", "2"])?;
    beta.join(&token)?;
    fleet.coordinator.apply_policy_text(POLICY)?;
    alpha.wait_reaches("beta")?;
    let ends = connection(&alpha, &beta)?;
    let (done, ..) = upload_during(ends, || -> Result<(), LabError> {
        for host in [&alpha, &beta, &alpha] {
            hand_over(host)?;
        }
        Ok(())
    });
    done?;
    beta.wait_reaches("alpha")
}

#[test]
fn a_host_that_is_no_member_hands_over_too() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    let host = fleet.machine("alpha")?;
    hand_over(&host)?;
    let token = fleet.coordinator.create_token(&[])?;
    host.join(&token)?;
    host.wait_state("online")
}

#[test]
fn the_policy_of_the_new_daemon_decides_about_flows_it_took_over() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let Pair { fleet, alpha, beta } = pair(&lab)?;
    let (mut client, mut server) = connection(&alpha, &beta)?;
    hand_over(&beta)?;
    client.write_all(b"still here").unwrap();
    server.read_exact(&mut [0; 10]).unwrap();
    fleet
        .coordinator
        .apply_policy_text("fleet: test\nallow: []\n")?;
    // In force on both hosts when `apply` has returned: nothing of this may arrive.
    let _ = client.write_all(b"no more");
    let patience = Duration::from_millis(700);
    server.set_read_timeout(Some(patience)).unwrap();
    assert!(!matches!(server.read(&mut [0; 10]), Ok(1..)));
    Ok(())
}

#[test]
fn a_restart_of_the_coordinator_is_a_pause_for_nobody_but_operators() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let Pair {
        mut fleet,
        alpha,
        beta,
    } = pair(&lab)?;
    let ends = connection(&alpha, &beta)?;
    let (outcome, _, longest) = upload_during(ends, || -> Result<Duration, LabError> {
        let before = std::time::Instant::now();
        fleet.coordinator.restart()?;
        wait_until("both hosts are back", CHANGE_DEADLINE, || {
            let hosts = fleet.coordinator.ask(&["hosts", "list"])?.to_string();
            Ok((hosts.matches("\"online\"").count() == 2).then_some(()))
        })?;
        Ok(before.elapsed())
    });
    println!(
        "hosts were back after {:?}; nothing arrived for at most {longest:?}",
        outcome?
    );
    fleet.coordinator.apply_policy_text(POLICY)?;
    alpha.wait_reaches("beta")
}

#[test]
fn whatever_a_new_program_does_wrong_the_old_one_goes_on() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let Pair {
        fleet,
        mut alpha,
        beta,
    } = pair(&lab)?;
    let program = alpha.install_own_program()?;
    alpha.start()?;
    alpha.wait_reaches("beta")?;
    let ends = connection(&alpha, &beta)?;
    let hello = r#"{"step":"hello","oldest":7,"newest":9,"version":"9.9.9","bequest_format":1}"#;
    let good = r#"{"step":"hello","oldest":1,"newest":1,"version":"9.9.9","bequest_format":1}"#;
    let wrong = [
        ("#!/bin/sh\nexit 3\n".to_owned(), "exit status: 3"),
        ("#!/bin/sh\nkill -SEGV $$\n".to_owned(), "it ended"),
        ("not a program\n".to_owned(), "cannot start"),
        ("#!/bin/sh\nprintf hello >&0\n".to_owned(), "not understood"),
        (
            format!("#!/bin/sh\nprintf '%s' '{hello}' >&0\nexec sleep 600\n"),
            "systemctl restart meshd",
        ),
        (format!("#!/bin/sh\nprintf '%s' '{good}' >&0\n"), "it ended"),
    ];
    let (outcome, ..) = upload_during(ends, || -> Result<(), LabError> {
        let before = alpha.daemons()?;
        for (script, why) in &wrong {
            replace_program(&program, script)?;
            let refused = alpha.meshctl(&["reload"]).run()?;
            assert_eq!(refused.code(), Some(1), "{script}: {}", refused.stdout);
            assert!(refused.stderr.contains(why), "{script}: {}", refused.stderr);
            assert_eq!(alpha.state()?, "online");
            assert_eq!(alpha.daemons()?, before, "{script}");
        }
        Ok(())
    });
    outcome?;
    // A change of the policy arrives, so the brain is awake again.
    fleet.coordinator.apply_policy_text(POLICY)?;
    beta.wait_reaches("alpha")?;
    Ok(())
}

#[test]
fn settings_that_came_with_descriptors_stay_until_a_restart() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    let settings = lab.directory().join("alpha.toml");
    fs::write(&settings, "mtu = 1400\n").unwrap();
    let config = settings.to_string_lossy();
    let mut host = fleet.machine_with("alpha", &["--config", &config])?;
    fs::write(&settings, "mtu = 1300\nlisten_port = 51821\n").unwrap();
    hand_over(&host)?;
    host.wait_log("listen_port has changed, and takes a restart")?;
    host.wait_log("mtu has changed, and takes a restart")?;
    fs::write(&settings, "mtu = \n").unwrap();
    let refused = host.meshctl(&["reload", "--hand-over"]).run()?;
    assert_eq!(refused.code(), Some(1), "{}", refused.stdout);
    assert!(refused.stderr.contains("alpha.toml"), "{}", refused.stderr);
    assert_eq!(host.state()?, "unenrolled");
    Ok(())
}

/// Chances that can be repeated: xorshift64*.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }
}

fn kill(process: u32) {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw).unwrap();
    // It may have ended by itself.
    let _ = kill_process(process, Signal::KILL);
}

/// The nftables table and the unreachable route that keep overlay packets in.
fn is_guarded(host: &Host) -> Result<bool, LabError> {
    let table = host
        .namespace()
        .launch("nft")
        .args(["list", "table", "inet", "mesh"])
        .run()?;
    let routes = host.namespace().run("ip", ["route"])?.stdout;
    Ok(table.status.success() && routes.contains("unreachable"))
}

#[test]
fn whoever_is_killed_and_when_the_overlay_is_guarded_and_comes_back() -> Result<(), LabError> {
    const KILLS: usize = 24;
    let lab = Lab::new()?;
    let Pair {
        fleet,
        mut alpha,
        beta,
    } = pair(&lab)?;
    let mut dice = Dice(0x6d65_7368);
    let (mut survived, mut restarted) = (0, 0);
    for round in 0..KILLS {
        alpha.wait_reaches("beta")?;
        let running = alpha.daemons()?;
        let old = *running.last().unwrap();
        let hits_old = dice.below(2) == 0;
        let pause = Duration::from_micros(dice.below(250_000));
        thread::scope(|scope| {
            let asked = scope.spawn(|| alpha.meshctl(&["reload", "--hand-over"]).run());
            thread::sleep(pause);
            let now = alpha.daemons().unwrap();
            let new = now.iter().find(|it| !running.contains(it)).copied();
            if let Some(victim) = if hits_old { Some(old) } else { new } {
                kill(victim);
            }
            // Whatever it was told, it was told something.
            asked.join().unwrap().unwrap();
        });
        assert!(is_guarded(&alpha)?, "round {round}");
        let is_up = wait_until("a daemon serves, or none is left", CHANGE_DEADLINE, || {
            if alpha.state().is_ok() {
                return Ok(Some(true));
            }
            Ok(alpha.daemons()?.is_empty().then_some(false))
        })?;
        match is_up {
            true => survived += 1,
            false => {
                restarted += 1;
                alpha.start()?;
            }
        }
    }
    println!("{survived} times a daemon went on, {restarted} times one was started anew");
    assert!(survived > 0, "one of the two should have gone on");
    alpha.wait_state("online")?;
    beta.wait_reaches("alpha")?;
    drop(fleet);
    Ok(())
}
