//! Packages of different versions side by side, and a coordinator's package that goes while its hosts
//! are connected.

use std::time::Duration;

use lab::{Lab, LabError};
use machines::{Machine, Member, Site, repack};

/// The number of the packages as they were made.
const OWN: &str = concat!(env!("CARGO_PKG_VERSION"), "-1");
const SOON: Duration = Duration::from_secs(30);

fn number(machine: &Machine, package: &str) -> Result<String, LabError> {
    machine.run(&format!("dpkg-query -W -f '${{Version}}' {package}"))
}

/// The coordinator's machine is a host of its own fleet here, and each package has its own number.
#[test]
fn packages_of_two_versions_serve_on_one_machine() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let site = Site::start(&lab)?;
    let alpha = site.member("alpha")?;
    let machine = &site.coordinator;
    machine.run(&format!("meshctl join {}", site.token()?))?;
    let packages = site.packages();
    let newer_daemon = repack(machine, &packages.meshd, "99.1.0", "true")?;
    let newer_coordinator = repack(machine, &packages.coordinator, "99.2.0", "true")?;
    let older_daemon = repack(machine, &packages.meshd, "0.0.1", "true")?;
    let reached = "meshctl wait-online --timeout 1 && ping -c 1 -W 1 alpha.mesh.internal";
    for (package, daemon, coordinator) in [
        (&newer_daemon, "99.1.0", OWN),
        (&newer_coordinator, "99.1.0", "99.2.0"),
        (&older_daemon, "0.0.1", "99.2.0"),
    ] {
        machine.install_own(package)?;
        assert_eq!(number(machine, "meshd")?, daemon);
        assert_eq!(number(machine, "mesh-coordinator")?, coordinator);
        machine.run("test -z \"$(dpkg --audit)\"; dpkg --verify meshd mesh-coordinator")?;
        machine.run("systemctl is-active meshd mesh-coordinator")?;
        machine.wait_for("the coordinator answers", SOON, "meshctl hosts list")?;
        machine.wait_for("the mesh is there", SOON, reached)?;
    }

    // Neither takes what is the other's with it.
    machine.run("apt-get purge -q -y meshd 2>&1")?;
    machine.run(
        "systemctl is-active mesh-coordinator && test -S /run/mesh/coordinator.sock &&
         test -e /etc/mesh/coordinator.toml && test -d /var/lib/mesh/coordinator",
    )?;
    machine.install_own(&older_daemon)?;
    machine.run("apt-get purge -q -y mesh-coordinator 2>&1")?;
    machine.run("systemctl is-active meshd && meshctl status && test -S /run/mesh/meshd.sock")?;
    machine.run("test -e /etc/mesh/meshd.toml && ! test -e /var/lib/mesh/coordinator")?;
    alpha.machine.run("meshctl status")?;
    Ok(())
}

#[test]
fn the_coordinator_is_removed_and_comes_back_and_its_hosts_go_on() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let site = Site::start(&lab)?;
    let (alpha, beta): (Member, Member) = (site.member("alpha")?, site.member("beta")?);
    alpha.wait_reaches(&beta)?;
    site.coordinator
        .run("apt-get remove -q -y mesh-coordinator 2>&1")?;
    alpha.machine.wait_for(
        "alpha knows that it is alone",
        SOON,
        "meshctl status | grep -q autonomous",
    )?;
    alpha.wait_reaches(&beta)?;
    beta.machine.run("systemctl restart meshd")?;
    beta.wait_reaches(&alpha)?;
    site.coordinator.install(&site.packages().coordinator)?;
    for host in [&alpha, &beta] {
        host.machine.wait_for(
            "the host is back",
            SOON,
            "meshctl status | grep -q ' online'",
        )?;
    }
    Ok(())
}
