//! What a restart by systemd keeps and a stop takes back, and what the doctor says of a machine as the
//! packages leave it.

use std::time::Duration;

use lab::{Lab, LabError};
use machines::{Machine, Member, Site};

const SOON: Duration = Duration::from_secs(30);
const SETTINGS: &str = "/etc/mesh/meshd.conf.d/site.toml";

#[test]
fn a_restart_keeps_what_guards_the_overlay_and_a_stop_takes_it_back() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let site = Site::start(&lab)?;
    let alpha = site.member("alpha")?;
    let machine = &alpha.machine;
    machine.run("nft list table inet mesh && ip route show table all | grep -q 'proto 190'")?;
    machine.run("meshctl doctor --all >&2")?;

    // Looked at without a pause, the table is never away.
    machine.run(
        "(while :; do nft list table inet mesh > /dev/null 2>&1 || echo gone; done) > /tmp/watched &
         watch=$!
         systemctl restart meshd
         kill $watch
         ! grep gone /tmp/watched",
    )?;
    machine.run("journalctl -u meshd | grep -q 'what guards the overlay stays'")?;
    machine.run("meshctl status | grep -q online || meshctl wait-online")?;

    machine.run("systemctl stop meshd")?;
    machine.run(
        "! nft list table inet mesh 2>&- && ! ip route show table all | grep 'proto 190' &&
         ! ip -br link | grep mesh0",
    )?;
    let told = machine.try_run("meshctl doctor")?;
    assert_eq!(told.code(), Some(5), "{told:?}");
    assert!(told.stdout.contains("systemctl start meshd"), "{told:?}");
    machine.run("meshctl bugreport --file /root/report.tar.gz && tar tzf /root/report.tar.gz")?;
    Ok(())
}

/// The interfaces of the overlay, and how many packet threads have UDP sockets.
fn shape(machine: &Machine) -> Result<(String, String), LabError> {
    let interfaces = machine.run("ip -br link | awk '/^mesh/ {print $1}'")?;
    let sockets = machine.run("ss -lunH4 'sport = :51820' | wc -l")?;
    Ok((interfaces, sockets))
}

fn shape_of(interface: &str, shards: u32) -> (String, String) {
    (format!("{interface}\n"), format!("{shards}\n"))
}

fn restart_after_a_kill(machine: &Machine) -> Result<(), LabError> {
    let killed = machine.run("systemctl show -P MainPID meshd")?;
    let replaced = format!(
        "systemctl is-active meshd && test $(systemctl show -P MainPID meshd) != {}",
        killed.trim()
    );
    machine.run(&format!("kill -9 {killed}"))?;
    machine.wait_for("systemd has started it anew", SOON, &replaced)
}

#[test]
fn another_interface_and_other_packet_threads_come_with_a_restart() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let site = Site::start(&lab)?;
    let plan = site.plan("alpha")?;
    plan.write_file(SETTINGS, "shards = 1\n")?;
    let machine = plan.boot()?;
    machine.install(&site.packages().meshd)?;
    machine.run(&format!("meshctl join {}", site.token()?))?;
    let alpha = Member::of(machine)?;
    let beta = site.member("beta")?;
    alpha.wait_reaches(&beta)?;
    let machine = &alpha.machine;
    assert_eq!(shape(machine)?, shape_of("mesh0", 1));

    // A hand-over keeps what the descriptors were made with, and says so.
    let settings = "shards = 4\ninterface = \"mesh7\"\n";
    machine.run(&format!("printf '{settings}' > {SETTINGS}"))?;
    machine.run("meshctl reload --hand-over")?;
    assert_eq!(shape(machine)?, shape_of("mesh0", 1));
    for key in ["shards", "interface"] {
        let told = format!("{key} has changed, and takes a restart");
        machine.run(&format!(
            "journalctl --sync; journalctl -u meshd | grep -q '{told}'"
        ))?;
    }
    alpha.wait_reaches(&beta)?;

    // Of what systemd kept for the daemon of before, nothing fits.
    machine.run("systemctl restart meshd && meshctl wait-online")?;
    assert_eq!(shape(machine)?, shape_of("mesh7", 4));
    machine.run(
        "! ip route show table all | grep 'dev mesh0' && ! nft list table inet mesh | grep mesh0",
    )?;
    alpha.wait_reaches(&beta)?;
    beta.wait_reaches(&alpha)?;

    // What it keeps from here on does: through a hand-over and a crash.
    let number = machine.run("cat /sys/class/net/mesh7/ifindex")?;
    machine.run("meshctl reload --hand-over")?;
    restart_after_a_kill(machine)?;
    machine.run("meshctl wait-online")?;
    assert_eq!(shape(machine)?, shape_of("mesh7", 4));
    assert_eq!(machine.run("cat /sys/class/net/mesh7/ifindex")?, number);
    beta.wait_reaches(&alpha)?;

    // Fewer packet threads, after a crash.
    machine.run(&format!("echo 'shards = 2' > {SETTINGS}"))?;
    restart_after_a_kill(machine)?;
    machine.run("meshctl wait-online")?;
    assert_eq!(shape(machine)?, shape_of("mesh0", 2));
    alpha.wait_reaches(&beta)?;
    beta.wait_reaches(&alpha)
}
