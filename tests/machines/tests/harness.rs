//! The machines themselves: they boot with a network and a TUN device, keep their disk over a reboot
//! and a loss of power, and leave nothing behind.

use std::path::Path;

use lab::{Lab, LabError};
use machines::Machine;

#[test]
fn a_machine_boots_keeps_its_disk_and_is_gone_with_its_lab() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let network = lab.underlay()?;
    let mut one = Machine::boot(&lab, &network, "one")?;
    let two = Machine::boot(&lab, &network, "two")?;
    one.run(&format!("ping -c 1 -W 5 {}", two.attachment().v4))?;
    one.run("test -c /dev/net/tun && nft list ruleset && ls /srv/packages")?;
    assert_eq!(one.run("hostname")?, "one\n");
    assert_eq!(one.run("systemctl is-system-running")?, "running\n");
    one.run("echo kept > /root/note")?;
    one.reboot()?;
    assert_eq!(one.run("cat /root/note")?, "kept\n");
    one.run("sync; echo after > /root/note; sync")?;
    one.cut_power()?;
    one.switch_on()?;
    assert_eq!(one.run("cat /root/note")?, "after\n");

    let groups: Vec<_> = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .map(|hierarchy| Path::new(hierarchy).join(one.namespace().full_name()))
        .into_iter()
        .filter(|group| group.exists())
        .collect();
    assert!(!groups.is_empty());
    drop((one, two, network, lab));
    for group in groups {
        assert!(!group.exists(), "{} is left over", group.display());
    }
    Ok(())
}

#[test]
fn a_small_disk_is_full_soon() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let network = lab.underlay()?;
    let plan = machines::MachinePlan::new(&lab, &network, "small")?;
    plan.write_file("/root/note", "here\n")?;
    let machine = plan.with_disk_of(16 << 20).boot()?;
    assert_eq!(machine.run("cat /root/note")?, "here\n");
    let filled = machine.try_run("head -c 32M /dev/zero > /root/filler")?;
    assert!(filled.stderr.contains("No space left"), "{filled:?}");
    Ok(())
}

#[test]
fn a_machine_that_cannot_boot_says_why() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let network = lab.underlay()?;
    let plan = machines::MachinePlan::new(&lab, &network, "broken")?;
    let Err(error) = plan.with_option("--bind=/nonexistent").boot() else {
        return Err(LabError::new("it has booted without what it was to have"));
    };
    let said = error.to_string();
    assert!(
        said.contains("the machine did not boot") && said.contains("/nonexistent"),
        "{said}"
    );
    Ok(())
}
