//! What the daemon owns on a machine that others own too: it says it before, notices when another
//! program takes it away, ends no fight by fighting, and gives everything back.

use std::fs;
use std::path::{Path, PathBuf};

use lab::fleet::{CHANGE_DEADLINE, Fleet, Host, Pair};
use lab::{Lab, LabError, wait_until};
use rustix::process::Signal;

/// What an operator sees at the machine.
fn alarms(host: &Host) -> Result<String, LabError> {
    let status = host.ask(&["status"])?;
    Ok(status["daemon"]["detail"]["alarms"].to_string())
}

fn wait_alarm(host: &Host, text: &str) -> Result<(), LabError> {
    let what = format!("{} tells that {text}", host.name());
    wait_until(&what, CHANGE_DEADLINE, || {
        Ok(alarms(host)?.contains(text).then_some(()))
    })
}

fn shell(host: &Host, script: &str) -> Result<String, LabError> {
    Ok(host.namespace().run("sh", ["-ec", script])?.stdout)
}

/// Routes, links, addresses and rules, as one text.
fn network(host: &Host) -> Result<String, LabError> {
    let look = "ip -br link; ip -br address; ip route show table all; ip -6 route show table all
                ip rule; ip -6 rule; nft -s list ruleset; ss -lntuH";
    shell(host, look)
}

#[test]
fn the_plan_names_what_is_made_and_changes_nothing() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    pair.alpha.wait_reaches("beta")?;
    let during = network(&pair.alpha)?;
    let running = pair.alpha.daemon().arg("--plan").run()?.success()?.stdout;
    assert_eq!(network(&pair.alpha)?, during);
    assert!(pair.alpha.stop()?.success());
    let before = network(&pair.alpha)?;
    let plan = pair.alpha.daemon().arg("--plan").run()?.success()?.stdout;
    assert_eq!(network(&pair.alpha)?, before);

    let values = |what: &str| -> Vec<String> {
        let lines = plan
            .lines()
            .filter_map(|line| line.trim().strip_prefix(what));
        lines.map(|value| value.trim().to_owned()).collect()
    };
    let routes = values("route ");
    assert_eq!(routes.len(), 4, "{plan}");
    let listed = |line: &str| during.lines().any(|it| it.trim().starts_with(line));
    for route in &routes {
        // `ip` shows more between destination and metric.
        let words: Vec<&str> = route.split(' ').collect();
        let end = if words[0] == "unreachable" { 2 } else { 3 };
        assert!(listed(&words[..end].join(" ")), "{route}\n{during}");
    }
    for address in values("address ") {
        let address = address.split(' ').next().expect("a word");
        assert!(during.contains(address), "{address}\n{during}");
    }
    for rule in plan.lines().filter(|line| line.contains("counter drop")) {
        let comment = rule.split('"').next_back().expect("a comment is quoted");
        assert!(during.contains(comment), "{rule}");
    }
    assert!(!plan.contains("In the way"), "{plan}");
    assert!(running.contains("fine when meshd runs"), "{running}");
    Ok(())
}

#[test]
fn the_plan_of_a_host_without_a_fleet_is_short() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    let alpha = fleet.machine("alpha")?;
    let plan = alpha.daemon().arg("--plan").run()?.success()?.stdout;
    assert!(plan.contains("no member of a fleet"), "{plan}");
    Ok(())
}

#[test]
fn what_another_program_removes_is_made_again_and_told() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    pair.alpha.wait_reaches("beta")?;
    shell(&pair.alpha, "nft flush ruleset")?;
    wait_alarm(&pair.alpha, "removed the nftables table inet mesh")?;
    assert!(shell(&pair.alpha, "nft list ruleset")?.contains("table inet mesh"));

    shell(&pair.alpha, "ip link del mesh0")?;
    wait_alarm(&pair.alpha, "removed the interface mesh0")?;
    pair.alpha.wait_reaches("beta")?;
    assert_eq!(pair.alpha.state()?, "online");
    Ok(())
}

#[test]
fn what_a_dead_daemon_owned_is_given_back_under_other_settings_too() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    pair.alpha.wait_reaches("beta")?;
    pair.alpha.kill();
    let tables = |host: &Host| shell(host, "nft list tables");
    assert_eq!(tables(&pair.alpha)?, "table inet mesh\n");
    let mut next = pair
        .alpha
        .daemon()
        .option("--nft-table", "other")
        .spawn("next")?;
    next.wait_for_line("the overlay is up", CHANGE_DEADLINE)?;
    assert_eq!(tables(&pair.alpha)?, "table inet other\n");
    assert!(next.terminate(CHANGE_DEADLINE)?.success());
    assert_eq!(tables(&pair.alpha)?, "");
    Ok(())
}

#[test]
fn a_table_of_another_program_under_our_name_is_not_touched() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    let beta = fleet.member("beta", &[])?;
    let alpha = fleet.machine("alpha")?;
    shell(
        &alpha,
        "nft add table inet mesh; nft add chain inet mesh mine",
    )?;
    let before = shell(&alpha, "nft list ruleset")?;
    alpha.join(&fleet.coordinator.create_token(&[])?)?;
    wait_alarm(&alpha, "an nftables table inet mesh exists already")?;
    assert_eq!(shell(&alpha, "nft list ruleset")?, before);
    assert!(!shell(&alpha, "ip -br link")?.contains("mesh0"));
    // Where the fleet's hosts are listed, it is told too.
    wait_until("the coordinator tells of it", CHANGE_DEADLINE, || {
        let host = fleet.coordinator.ask(&["hosts", "show", "alpha"])?;
        let trouble = host["trouble"].as_str().unwrap_or_default().to_owned();
        Ok(trouble.contains("table inet mesh exists").then_some(()))
    })?;
    shell(&alpha, "nft delete table inet mesh")?;
    alpha.wait_reaches("beta")?;
    wait_until("the coordinator tells so", CHANGE_DEADLINE, || {
        let host = fleet.coordinator.ask(&["hosts", "show", "alpha"])?;
        Ok(host["trouble"].is_null().then_some(()))
    })?;
    drop(beta);
    Ok(())
}

#[test]
fn a_stop_does_not_wait_for_a_ping() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    pair.alpha.wait_reaches("beta")?;
    pair.beta.kill();
    let ping = ["ping", "beta", "-c1", "-W60000", "--no-mtu"];
    let ping = pair.alpha.meshctl(&ping).spawn("ping")?;
    wait_until("the echo is under way", CHANGE_DEADLINE, || {
        let sockets = shell(&pair.alpha, "tail -qn +2 /proc/net/icmp /proc/net/raw")?;
        Ok((!sockets.is_empty()).then_some(()))
    })?;
    assert!(pair.alpha.stop()?.success());
    ping.kill();
    Ok(())
}

/// A machine whose /etc is its own; returns where the test sees what is changed in it.
fn own_etc(lab: &Lab, host: &mut Host, resolv_conf: &str) -> PathBuf {
    let home = lab.directory().join(format!("{}.etc", host.name()));
    let at = home.display();
    host.set_preparation(format!(
        "mkdir -p {at}/changed {at}/work
         mount -t overlay overlay -o lowerdir=/etc,upperdir={at}/changed,workdir={at}/work /etc
         [ -e {at}/changed/resolv.conf ] || {{
             rm -f /etc/resolv.conf
             printf '{resolv_conf}' > /etc/resolv.conf
         }}"
    ));
    home.join("changed/resolv.conf")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("the file is there")
}

const OWN: &str = "# mine\\nsearch example\\nnameserver 10.77.0.1\\n";

#[test]
fn a_resolver_of_the_hosts_own_is_given_back_as_it_was() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    let mut alpha = fleet.machine("alpha")?;
    let file = own_etc(&lab, &mut alpha, OWN);
    alpha.start()?;
    let before = read(&file);
    assert_eq!(before, "# mine\nsearch example\nnameserver 10.77.0.1\n");
    alpha.join(&fleet.coordinator.create_token(&[])?)?;
    let block = format!("nameserver 127.0.0.53\n# end of meshd mesh0\n{before}");
    let set = |alpha: &Host| {
        wait_until("the block stands", CHANGE_DEADLINE, || {
            let status = alpha.state()?;
            Ok(read(&file).ends_with(&block).then_some(status))
        })
    };
    set(&alpha)?;
    // Dead, it has left the block; the next one starts from the file as it was.
    alpha.kill();
    assert!(read(&file).ends_with(&block));
    alpha.start()?;
    set(&alpha)?;
    assert_eq!(read(&file).matches("begin of meshd").count(), 1);

    // Another program that writes the file is told of and not fought.
    fs::write(&file, "nameserver 10.77.0.1\n").expect("the file can be written");
    wait_alarm(&alpha, "took the block of meshd out of /etc/resolv.conf")?;
    assert_eq!(read(&file), "nameserver 10.77.0.1\n");
    wait_until(
        "the change is told where names are",
        CHANGE_DEADLINE,
        || {
            let dns = alpha.ask(&["dns", "show"])?;
            Ok((dns["resolver"]["state"] == "changed").then_some(()))
        },
    )?;

    // Told to try once more, it does; stopped, it leaves what the others wrote.
    let process = alpha.process().expect("it runs");
    process.signal(Signal::HUP)?;
    alpha.wait_log("the settings were read again")?;
    wait_until("the block stands again", CHANGE_DEADLINE, || {
        let stands = read(&file).starts_with("# begin of meshd mesh0");
        Ok(stands.then_some(()))
    })?;
    assert!(alpha.stop()?.success());
    assert_eq!(read(&file), "nameserver 10.77.0.1\n");
    Ok(())
}

#[test]
fn a_block_that_a_dead_daemon_left_under_another_name_goes() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    let mut alpha = fleet.machine("alpha")?;
    let file = own_etc(&lab, &mut alpha, OWN);
    alpha.start()?;
    let before = read(&file);
    alpha.join(&fleet.coordinator.create_token(&[])?)?;
    wait_until("the block stands", CHANGE_DEADLINE, || {
        let stands = read(&file).starts_with("# begin of meshd mesh0");
        Ok(stands.then_some(()))
    })?;
    alpha.kill();
    let next = alpha.daemon().option("--interface", "mesh7");
    let mut next = next.option("--resolver", "off").spawn("next")?;
    next.wait_for_line("the overlay is up", CHANGE_DEADLINE)?;
    assert_eq!(read(&file), before);
    assert!(next.terminate(CHANGE_DEADLINE)?.success());
    Ok(())
}

#[test]
fn an_overlay_that_covers_the_hosts_resolver_is_refused() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    let status = fleet.coordinator.ask(&["status"])?;
    let prefix = status["coordinator"]["overlay_v4"].as_str();
    let prefix = prefix.expect("a fleet has an IPv4 prefix");
    let server = prefix.replace(".0.0/16", ".255.53");
    let mut alpha = fleet.machine("alpha")?;
    own_etc(&lab, &mut alpha, &format!("nameserver {server}\\n"));
    alpha.start()?;
    alpha.join(&fleet.coordinator.create_token(&[])?)?;
    wait_alarm(
        &alpha,
        &format!("covers {server}, which this host asks for names"),
    )?;
    assert!(!shell(&alpha, "ip -br link")?.contains("mesh0"));
    assert_eq!(shell(&alpha, "nft list ruleset")?, "");
    Ok(())
}

#[test]
fn a_change_that_costs_the_default_route_is_taken_back() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    let mut alpha = fleet.machine("alpha")?;
    let route = "ip route add default via 10.77.0.1";
    shell(&alpha, route)?;
    let token = fleet.coordinator.create_token(&[])?;
    alpha.join(&token)?;
    let stands = |alpha: &Host| Ok(shell(alpha, "ip -br link")?.contains("mesh0"));
    wait_until("the overlay stands", CHANGE_DEADLINE, || {
        Ok(stands(&alpha)?.then_some(()))
    })?;
    shell(&alpha, "ip route del default")?;
    wait_alarm(&alpha, "the default route of this host went away")?;
    assert!(!stands(&alpha)?);
    assert_eq!(shell(&alpha, "nft list ruleset")?, "");
    // It comes back without the overlay: so it was the overlay, as far as anybody can tell.
    shell(&alpha, route)?;
    wait_alarm(&alpha, "it helped to take the change back")?;
    // Whoever knows better says so.
    alpha.process().expect("it runs").signal(Signal::HUP)?;
    wait_until("the overlay stands again", CHANGE_DEADLINE, || {
        Ok(stands(&alpha)?.then_some(()))
    })?;
    assert!(!alarms(&alpha)?.contains("default route"));
    Ok(())
}

#[test]
fn settings_are_read_again_and_those_that_cannot_change_are_named() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    let file = lab.directory().join("alpha.toml");
    fs::write(&file, "log_level = 'info'\n").expect("the file can be written");
    let path = file.to_string_lossy().into_owned();
    let mut alpha = fleet.machine_with("alpha", &["--config", &path])?;
    alpha.join(&fleet.coordinator.create_token(&[])?)?;
    let reload = |alpha: &mut Host, text: &str| {
        fs::write(&file, text).expect("the file can be written");
        alpha.process().expect("it runs").signal(Signal::HUP)
    };
    reload(
        &mut alpha,
        "mtu = 1300\nendpoints = ['203.0.113.7:51820']\n",
    )?;
    alpha.wait_log("mtu has changed, and takes a restart")?;
    alpha.wait_log("endpoints, resolver and metrics are in force")?;
    reload(&mut alpha, "mtu = 'many'\n")?;
    alpha.wait_log("the settings were read again and are not used")?;
    // What peers are told of this host follows.
    let beta = fleet.member("beta", &[])?;
    wait_until("beta knows the endpoint", CHANGE_DEADLINE, || {
        let peers = beta.ask(&["peers"])?.to_string();
        Ok(peers.contains("203.0.113.7:51820").then_some(()))
    })
}
