//! From `apt install` to traffic between hosts, over reboots, to a machine on which nothing is left.

use std::time::Duration;

use lab::{Lab, LabError};
use machines::{Machine, Member, Site};

const SOON: Duration = Duration::from_secs(30);

/// What a machine has that ours could have changed, without what changes by itself.
const TRACES: &str = "
    ip -br link | awk '{print $1}'; ip route show table all; ip -6 route show table all
    ip rule; ip -6 rule; nft list ruleset; cat /etc/resolv.conf; ls -l /etc/resolv.conf
    resolvectl domain; resolvectl dns; ss -lntuH | awk '{print $5}' | sort
    find / /run -xdev -name '*mesh*' ! -path '/proc/*' ! -path '/sys/*' ! -path '/srv/*' \\
        ! -path '/var/lib/dpkg/*' ! -path '/var/lib/apt/*' ! -path '/var/cache/*' \\
        ! -path '/var/log/*' ! -path '/tmp/systemd-private-*' ! -path '/var/tmp/systemd-private-*' \\
        ! -path '/run/log/*' | sort
    systemctl list-unit-files --no-legend '*mesh*' || true";

#[test]
fn hosts_join_talk_reboot_without_a_coordinator_and_leave_nothing_behind() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut site = Site::start(&lab)?;
    let alpha = site.plan("alpha")?.boot()?;
    let clean = alpha.run(TRACES)?;
    alpha.install(&site.packages().meshd)?;
    alpha.run("systemctl is-active meshd && systemctl is-enabled meshd")?;
    alpha.run(&format!("meshctl join {}", site.token()?))?;
    let mut alpha = Member::of(alpha)?;
    let beta = site.member("beta")?;
    alpha.wait_reaches(&beta)?;
    beta.wait_reaches(&alpha)?;
    alpha
        .machine
        .run("meshctl wait-online && systemctl start mesh-online.target")?;
    alpha.machine.run("getent hosts beta.mesh.internal")?;

    // Everything else is away, and the host comes back by itself.
    site.coordinator.power_off()?;
    alpha.machine.reboot()?;
    alpha.wait_reaches(&beta)?;
    alpha.machine.run("getent hosts beta.mesh.internal")?;
    alpha.machine.cut_power()?;
    alpha.machine.switch_on()?;
    alpha.wait_reaches(&beta)?;
    site.coordinator.switch_on()?;
    alpha.machine.wait_for(
        "alpha is online again",
        SOON,
        "meshctl status | grep -q ' online'",
    )?;

    // Removal ends what runs and keeps who the host is; purge forgets it.
    alpha.machine.run("apt-get remove -q -y meshd 2>&1")?;
    let removed = alpha.machine.run(TRACES)?;
    assert!(removed.contains("/var/lib/mesh/meshd"), "{removed}");
    assert!(!removed.contains("mesh0"), "{removed}");
    assert!(!removed.contains("table inet mesh"), "{removed}");
    alpha.machine.install(&site.packages().meshd)?;
    alpha.wait_reaches(&beta)?;
    alpha.machine.run("apt-get purge -q -y meshd 2>&1")?;
    assert_eq!(alpha.machine.run(TRACES)?, clean);
    Ok(())
}

#[test]
fn the_coordinators_data_outlives_a_removal_and_ends_with_a_purge() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let site = Site::start(&lab)?;
    let coordinator: &Machine = &site.coordinator;
    let root = "meshctl status | sed -n 's/^ *root *//p'";
    let before = coordinator.run(root)?;
    assert!(before.contains("sha256"), "{before}");
    coordinator.run("apt-get remove -q -y mesh-coordinator 2>&1")?;
    coordinator.run("test -d /var/lib/mesh/coordinator && ! pidof mesh-coordinator")?;
    coordinator.install(&site.packages().coordinator)?;
    coordinator.wait_for("the coordinator is back", SOON, root)?;
    assert_eq!(coordinator.run(root)?, before);
    coordinator.run("apt-get purge -q -y mesh-coordinator meshd 2>&1")?;
    let left = coordinator.run(TRACES)?;
    assert!(!left.contains("/mesh"), "{left}");
    Ok(())
}
