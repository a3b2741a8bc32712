//! Upgrades and crashes of the daemon under a real systemd, while a connection through the mesh
//! carries data: it lives through all of them.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]
#![allow(
    clippy::print_stdout,
    reason = "what an upgrade costs is shown, and judged by people"
)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lab::{Lab, LabError, wait_until};
use machines::{Machine, Member, Packages, Site, repack};

const SOON: Duration = Duration::from_secs(30);
const PORT: u16 = 8080;
const POLICY: &str = "mkdir -p /root/policy; cat > /root/policy/policy.yaml <<'END'
fleet: mesh
allow:
  - { id: all, from: any, to: any, icmp: true, tcp: [8080] }
END
sed -i \"s/^fleet: .*/fleet: $(meshctl policy show | sed -n 's/^fleet: *//p' | head -1)/\" /root/policy/policy.yaml
meshctl policy apply /root/policy";

/// The daemon's process, as systemd has it.
fn main_process(machine: &Machine) -> Result<String, LabError> {
    let shown = machine.run("systemctl show -P MainPID meshd")?;
    Ok(shown.trim().to_owned())
}

/// The interface's number, which another one of the same name would not have.
fn interface(machine: &Machine) -> Result<String, LabError> {
    machine.run("cat /sys/class/net/mesh0/ifindex")
}

fn connection(from: &Member, to: &Member) -> Result<(TcpStream, TcpStream), LabError> {
    let address = (to.overlay_v4, PORT);
    let listener = to
        .machine
        .namespace()
        .inside(|| TcpListener::bind(address).unwrap())?;
    let client = wait_until("a connection is allowed", SOON, || {
        let dialled = from.machine.namespace().dial(address)?;
        Ok(dialled.connected().ok())
    })?;
    let (server, _) = listener.accept().unwrap();
    for end in [&client, &server] {
        end.set_read_timeout(Some(SOON)).unwrap();
        end.set_write_timeout(Some(SOON)).unwrap();
    }
    Ok((client, server))
}

/// Sends without a pause while something is done; returns the longest time in which nothing arrived.
fn upload_during<T: Send>(
    (mut client, mut server): (TcpStream, TcpStream),
    work: impl FnOnce() -> Result<T, LabError> + Send,
) -> Result<(T, Duration), LabError> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let block = [7; 1 << 15];
            while !done.load(Ordering::Relaxed) {
                client.write_all(&block).unwrap();
            }
            client.shutdown(Shutdown::Write).unwrap();
        });
        let receiver = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            let mut block = vec![0; 1 << 16];
            loop {
                let before = Instant::now();
                match server.read(&mut block).unwrap() {
                    0 => return longest,
                    length => assert!(block[..length].iter().all(|byte| *byte == 7)),
                }
                longest = longest.max(before.elapsed());
            }
        });
        let outcome = work();
        done.store(true, Ordering::Relaxed);
        let longest = receiver.join().unwrap();
        Ok((outcome?, longest))
    })
}

fn site(lab: &Lab) -> Result<(Site, Member, Member), LabError> {
    let site = Site::start(lab)?;
    let alpha = site.member("alpha")?;
    let beta = site.member("beta")?;
    site.coordinator.run(POLICY)?;
    alpha.wait_reaches(&beta)?;
    Ok((site, alpha, beta))
}

#[test]
fn an_upload_lives_through_upgrades_downgrades_and_programs_that_fail() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let (site, alpha, beta) = site(&lab)?;
    let package = &site.packages().meshd;
    for member in [&alpha, &beta] {
        let machine = &member.machine;
        let newer = repack(machine, package, "7.0.0", "true")?;
        let older = repack(machine, package, "0.0.1", "true")?;
        let crashing = "printf '#!/bin/sh\\nexit 7\\n' > usr/bin/meshd";
        let crashing = repack(machine, package, "8.0.0", crashing)?;
        let ends = connection(&alpha, &beta)?;
        let before = interface(machine)?;
        let (processes, longest) = upload_during(ends, || {
            let mut processes = vec![main_process(machine)?];
            for package in [&newer, &older, &newer] {
                machine.install_own(package)?;
                processes.push(main_process(machine)?);
                machine.run("systemctl is-active meshd && meshctl status")?;
            }
            let said = machine.install_own(&crashing)?;
            assert!(said.contains("goes on as it is"), "{said}");
            assert_eq!(main_process(machine)?, *processes.last().unwrap());
            // Two on the way from one to the other, then one.
            machine.wait_for(
                "one daemon is left",
                SOON,
                "test $(pidof meshd | wc -w) = 1",
            )?;
            machine.run("systemctl is-active meshd && meshctl status")?;
            machine.install_own(&newer)?;
            Ok(processes)
        })?;
        println!(
            "{}: nothing arrived for at most {longest:?}",
            machine.name()
        );
        let mut apart = processes.clone();
        apart.dedup();
        assert_eq!(apart, processes, "each upgrade has a daemon of its own");
        assert_eq!(interface(machine)?, before, "the interface is the same");
        let restarts = machine.run("systemctl show -P NRestarts meshd")?;
        assert_eq!(restarts.trim(), "0");
    }
    Ok(())
}

#[test]
fn a_crash_keeps_the_interface_and_its_connections() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let (_site, alpha, beta) = site(&lab)?;
    let ends = connection(&alpha, &beta)?;
    let machine = &alpha.machine;
    let before = (interface(machine)?, main_process(machine)?);
    let ((), longest) = upload_during(ends, || {
        machine.run("kill -9 $(systemctl show -P MainPID meshd)")?;
        let restarted = format!(
            "systemctl is-active meshd && test $(systemctl show -P MainPID meshd) != {}",
            before.1
        );
        machine.wait_for("systemd has started it anew", SOON, &restarted)?;
        alpha.wait_reaches(&beta)
    })?;
    println!("a crash: nothing arrived for at most {longest:?}");
    assert_eq!(interface(machine)?, before.0);
    machine.run("journalctl -u meshd | grep -q 'outlived the daemon before'")?;
    machine.run("ss -lunH 'sport = :51820' | grep -q .")?;

    // One that hangs is as good as dead.
    let hanging = main_process(machine)?;
    machine.run(
        "mkdir -p /run/systemd/system/meshd.service.d
         printf '[Service]\\nWatchdogSec=2s\\n' > /run/systemd/system/meshd.service.d/soon.conf
         systemctl daemon-reload && systemctl restart meshd && meshctl wait-online",
    )?;
    assert_eq!(interface(machine)?, before.0, "a restart keeps it, too");
    let stopped = main_process(machine)?;
    assert_ne!(stopped, hanging);
    machine.run(&format!("kill -STOP {stopped}"))?;
    let replaced = format!(
        "systemctl is-active meshd && test $(systemctl show -P MainPID meshd) != {stopped}"
    );
    machine.wait_for("the watchdog has it replaced", SOON, &replaced)?;
    alpha.wait_reaches(&beta)
}

#[test]
fn an_upload_lives_through_upgrades_and_downgrades_of_the_rpm() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let site = Site::start(&lab)?;
    let beta = site.member("beta")?;
    let alpha = site.plan("alpha")?.boot()?;
    let [built, newer] = [site.packages().clone(), Packages::find_newer()?];
    // What it depends on is no rpm on this machine; `packages` has dnf see to that.
    alpha.rpm("-i", &built.meshd_rpm)?;
    alpha.run("systemctl enable --now meshd")?;
    alpha.run(&format!("meshctl join {}", site.token()?))?;
    let alpha = Member::of(alpha)?;
    site.coordinator.run(POLICY)?;
    alpha.wait_reaches(&beta)?;
    let ends = connection(&alpha, &beta)?;
    let machine = &alpha.machine;
    let before = interface(machine)?;
    let (processes, longest) = upload_during(ends, || {
        let mut processes = vec![main_process(machine)?];
        for package in [&newer.meshd_rpm, &built.meshd_rpm] {
            machine.rpm("-U --oldpackage", package)?;
            processes.push(main_process(machine)?);
            machine.run("systemctl is-active meshd && meshctl status")?;
        }
        Ok(processes)
    })?;
    println!("by rpm: nothing arrived for at most {longest:?}");
    let mut apart = processes.clone();
    apart.dedup();
    assert_eq!(apart, processes, "each upgrade has a daemon of its own");
    assert_eq!(interface(machine)?, before, "the interface is the same");
    assert_eq!(machine.run("systemctl show -P NRestarts meshd")?, "0\n");

    machine.run("rpm -e meshd")?;
    machine.run(
        "! ip link show mesh0 && ! nft list table inet mesh && ! pidof meshd &&
         ! ip route show table all | grep 'proto 190' && ! systemctl cat meshd &&
         test -e /var/lib/mesh/meshd/identity",
    )?;
    Ok(())
}
