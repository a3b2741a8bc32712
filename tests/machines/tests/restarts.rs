//! What a restart by systemd keeps and a stop takes back, and what the doctor says of a machine as the
//! packages leave it.

use lab::{Lab, LabError};
use machines::Site;

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
