//! What goes wrong on machines: settings that are broken, state of a newer version, a full disk, and
//! machines that lack what others have. Each starts with what it can, or says exactly why not.

use std::time::Duration;

use lab::{Lab, LabError};
use machines::{Machine, Member, Packages, Site};

const SOON: Duration = Duration::from_secs(30);

fn wait_log(machine: &Machine, text: &str) -> Result<(), LabError> {
    machine.wait_for(
        &format!("the log says {text:?}"),
        SOON,
        &format!("journalctl --sync; journalctl -u meshd -o cat | grep -qF -- '{text}'"),
    )
}

fn main_process(machine: &Machine) -> Result<String, LabError> {
    machine.run("systemctl show -P MainPID meshd")
}

#[test]
fn broken_settings_are_named_and_the_daemon_keeps_those_it_has() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let machine = Machine::boot(&lab, &lab.underlay()?, "broken")?;
    machine.install(&Packages::find()?.meshd)?;
    let before = main_process(&machine)?;
    machine.run(
        "mkdir /etc/mesh/meshd.conf.d
         printf 'mtu = 1400\\nlisten_prot = 1\\n' > /etc/mesh/meshd.conf.d/site.toml",
    )?;
    let reload = machine.try_run("systemctl reload meshd")?;
    assert!(!reload.status.success(), "{reload:?}");
    let said = machine.try_run("meshctl reload")?.stderr;
    assert!(
        said.contains("site.toml") && said.contains("line 2"),
        "{said}"
    );
    for text in ["/etc/mesh/meshd.conf.d/site.toml", "line 2", "listen_prot"] {
        wait_log(&machine, text)?;
    }
    assert_eq!(main_process(&machine)?, before);
    machine.run("meshctl status >&2")?;

    // At a start there are none that it could keep: it says the same, and starts once they are right.
    machine.try_run("systemctl restart meshd")?;
    let state = machine.run("systemctl show -P ActiveState meshd")?;
    assert_ne!(state, "active\n");
    machine.run("rm /etc/mesh/meshd.conf.d/site.toml")?;
    machine.wait_for("the daemon is back", SOON, "systemctl is-active meshd")
}

#[test]
fn state_of_a_newer_version_is_refused_and_left_as_it_is() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let site = Site::start(&lab)?;
    let alpha = site.member("alpha")?.machine;
    alpha.run("systemctl stop meshd")?;
    // The file begins with its name and the number of its format.
    alpha.run("printf '\\002' | dd of=/var/lib/mesh/meshd/identity bs=1 seek=7 conv=notrunc")?;
    let sum = "cd /var/lib/mesh/meshd && sha256sum identity map";
    let before = alpha.run(sum)?;
    alpha.try_run("systemctl start meshd")?;
    wait_log(&alpha, "was this program downgraded?")?;
    alpha.try_run("systemctl stop meshd")?;
    assert_eq!(alpha.run(sum)?, before);
    alpha.run("printf '\\001' | dd of=/var/lib/mesh/meshd/identity bs=1 seek=7 conv=notrunc")?;
    alpha.run("systemctl start meshd && meshctl wait-online")?;
    Ok(())
}

#[test]
fn an_upgrade_on_a_full_disk_fails_and_the_daemon_goes_on() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let site = Site::start(&lab)?;
    let machine = site.plan("full")?.with_disk_of(192 << 20).boot()?;
    machine.install(&site.packages().meshd)?;
    machine.run(&format!("meshctl join {}", site.token()?))?;
    let full = Member::of(machine)?;
    let beta = site.member("beta")?;
    full.wait_reaches(&beta)?;
    let machine = &full.machine;
    let before = main_process(machine)?;
    machine.try_run("cat /dev/zero > /root/filler; sync")?;
    let deb = "/srv/packages/dev/*/meshd_*.deb";
    let upgrade = machine.try_run(&format!("dpkg -i {deb}"))?;
    assert!(!upgrade.status.success(), "{upgrade:?}");
    let said = format!("{}{}", upgrade.stdout, upgrade.stderr);
    assert!(said.contains("No space left"), "{said}");
    assert_eq!(main_process(machine)?, before);
    full.wait_reaches(&beta)?;

    machine.run("rm /root/filler")?;
    machine.install(&site.packages().meshd)?;
    machine.run("dpkg --verify meshd && systemctl is-active meshd")?;
    full.wait_reaches(&beta)
}

#[test]
fn a_machine_without_a_tun_device_says_so_and_joins_none_the_less() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let site = Site::start(&lab)?;
    let machine = site.plan("no-tun")?.boot()?;
    machine.run("umount /dev/net/tun; rm -r /dev/net")?;
    machine.install(&site.packages().meshd)?;
    machine.run("systemctl is-active meshd")?;
    machine.try_run(&format!("meshctl join {}", site.token()?))?;
    wait_log(&machine, "/dev/net/tun")?;
    let online = machine.try_run("meshctl wait-online --timeout 0")?;
    assert_eq!(online.code(), Some(5), "{online:?}");
    assert!(online.stderr.contains("interface"), "{online:?}");
    Ok(())
}

#[test]
fn a_machine_without_nft_says_so() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let site = Site::start(&lab)?;
    let machine = site.plan("no-nft")?.boot()?;
    machine.install(&site.packages().meshd)?;
    machine.run("mv /usr/sbin/nft /usr/sbin/nft.away")?;
    machine.try_run(&format!("meshctl join {}", site.token()?))?;
    wait_log(&machine, "nft")?;
    // Without its guard the overlay stays away, and it comes when the guard can be set.
    machine.run("mv /usr/sbin/nft.away /usr/sbin/nft; systemctl restart meshd")?;
    machine.wait_for("the overlay is up", SOON, "meshctl wait-online --timeout 1")
}

#[test]
fn a_machine_without_resolved_and_ipv6_is_a_member_with_names() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let site = Site::start(&lab)?;
    let plan = site.plan("plain")?;
    plan.write_file(
        "/etc/systemd/system/systemd-resolved.service.d/off.conf",
        "[Unit]\nConditionPathExists=/nonexistent\n",
    )?;
    let machine = plan.boot()?;
    machine.run(
        "rm /etc/resolv.conf; echo 'nameserver 192.0.2.53' > /etc/resolv.conf
         sed -i 's/^hosts:.*/hosts: files dns/' /etc/nsswitch.conf
         sysctl -q net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1",
    )?;
    machine.install(&site.packages().meshd)?;
    machine.run(&format!("meshctl join {}", site.token()?))?;
    let plain = Member::of(machine)?;
    let beta = site.member("beta")?;
    plain.wait_reaches(&beta)?;
    let machine = &plain.machine;
    machine.wait_for(
        "mesh names resolve",
        SOON,
        "getent ahostsv4 beta.mesh.internal",
    )?;
    machine.run("systemctl stop meshd")?;
    assert_eq!(
        machine.run("cat /etc/resolv.conf")?,
        "nameserver 192.0.2.53\n"
    );
    Ok(())
}

#[test]
fn the_units_are_as_hard_as_they_are_meant_to_be() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let site = Site::start(&lab)?;
    for (unit, tenths_max) in [("meshd", 30), ("mesh-coordinator", 15), ("meshd-join", 30)] {
        site.coordinator.run(&format!(
            "systemd-analyze security --no-pager --threshold={} {unit}.service",
            tenths_max - 1
        ))?;
    }
    site.coordinator
        .run("systemd-analyze verify --man=no meshd.service mesh-coordinator.service mesh-online.target meshd-join.path")?;
    Ok(())
}

#[test]
fn a_package_is_removed_while_others_talk_with_the_host() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let site = Site::start(&lab)?;
    let (alpha, beta) = (site.member("alpha")?, site.member("beta")?);
    alpha.wait_reaches(&beta)?;
    let ping = format!("ping -i 0.01 -c 100000 {} > /dev/null", alpha.overlay_v4);
    let pinging = beta.machine.shell(&ping)?.spawn("pinging")?;
    alpha.machine.run("apt-get remove -q -y meshd 2>&1")?;
    alpha
        .machine
        .run("! ip link show mesh0 && ! nft list table inet mesh && ! pidof meshd")?;
    pinging.kill();
    alpha.machine.install(&site.packages().meshd)?;
    beta.wait_reaches(&alpha)?;

    // Removed after a crash that nothing came back from.
    alpha.machine.run(
        "systemctl kill --signal=KILL --kill-whom=main meshd
         systemctl mask --runtime --now meshd; nft list table inet mesh",
    )?;
    alpha.machine.run("apt-get purge -q -y meshd 2>&1")?;
    alpha
        .machine
        .run("! nft list table inet mesh && ! ip route show table all | grep 'proto 190'")?;
    Ok(())
}
