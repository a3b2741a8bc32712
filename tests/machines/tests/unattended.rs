//! Machines that join by themselves: with a token that an image or a provisioner left, or with a
//! credential of the machine.

use std::time::Duration;

use lab::{Lab, LabError};
use machines::{Member, Site};

const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_machine_joins_with_the_token_that_was_left_on_it_and_wipes_it() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let site = Site::start(&lab)?;
    let plan = site.plan("image")?;
    plan.write_file("/etc/mesh/join-token", &format!("{}\n", site.token()?))?;
    let machine = plan.boot()?;
    machine.install(&site.packages().meshd)?;
    machine.wait_for("the machine is a member", SOON, "meshctl wait-online")?;
    machine.wait_for("the token is gone", SOON, "! test -e /etc/mesh/join-token")?;
    let image = Member::of(machine)?;

    // cloud-init writes files when the daemon runs already; a token that is no good is set aside.
    let late = site.plan("late")?.boot()?;
    late.install(&site.packages().meshd)?;
    let once = site.token_with("--uses 1 --name 'other-*'")?;
    late.run(&format!("umask 077; echo '{once}' > /etc/mesh/join-token"))?;
    late.wait_for(
        "the token is set aside",
        SOON,
        "test -e /etc/mesh/join-token.refused && ! test -e /etc/mesh/join-token",
    )?;
    late.wait_for(
        "the reason is in the log",
        SOON,
        "journalctl -u meshd-join | grep -q 'put a new one into /etc/mesh/join-token'",
    )?;
    late.run(&format!(
        "umask 077; echo '{}' > /etc/mesh/join-token",
        site.token()?
    ))?;
    late.wait_for(
        "the machine is a member",
        SOON,
        "meshctl wait-online --timeout 1",
    )?;
    let late = Member::of(late)?;
    late.wait_reaches(&image)
}

#[test]
fn a_machine_joins_with_its_credential_when_the_coordinator_comes_up() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let site = Site::start(&lab)?;
    let token = site.token()?;
    site.coordinator.run("systemctl stop mesh-coordinator")?;
    let plan = site.plan("cloud")?;
    let machine = plan
        .with_option(&format!("--set-credential=mesh.join-token:{token}"))
        .boot()?;
    machine.install(&site.packages().meshd)?;
    machine.wait_for(
        "it was tried in vain",
        SOON,
        "journalctl -u meshd-join | grep -q 'cannot reach the coordinator'",
    )?;
    site.coordinator.run("systemctl start mesh-coordinator")?;
    machine.wait_for(
        "the machine is a member",
        SOON,
        "meshctl wait-online --timeout 1",
    )?;
    Ok(())
}
