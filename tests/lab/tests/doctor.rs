//! `meshctl doctor` on machines that something is wrong with, and `meshctl bugreport`, which tells all
//! of it and nothing secret.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use lab::fleet::{CHANGE_DEADLINE, Fleet, Host, Pair};
use lab::{Lab, LabError, Launch, wait_until};
use model::key::{Secret, WireguardKey};
use model::wire::stored::decode_identity;
use rustix::process::Signal;
use serde_json::Value;

/// What the doctor says, with its exit code; its answer has the shape that it should.
fn examined(doctor: Launch) -> Result<(Value, Option<i32>), LabError> {
    let ran = doctor.run()?;
    let answer: Value = serde_json::from_str(&ran.stdout)
        .map_err(|error| LabError::new(format!("{error}: {}{}", ran.stdout, ran.stderr)))?;
    assert_eq!(lab::schema::complaints(&answer), Vec::<String>::new());
    Ok((answer["data"].clone(), ran.code()))
}

fn doctor(host: &Host) -> Launch {
    host.meshctl(&["--json", "doctor"])
}

/// One check of it.
fn check<'answer>(answer: &'answer Value, name: &str) -> &'answer Value {
    let all = answer["checks"].as_array().unwrap();
    all.iter().find(|it| it["check"] == name).unwrap()
}

/// Asserts that a check fails, and that it says so in these words.
fn assert_fails(doctor: Launch, name: &str, words: &str) -> Result<(), LabError> {
    let (answer, code) = examined(doctor)?;
    let found = check(&answer, name);
    assert_eq!(found["outcome"], "failure", "{answer:#}");
    let what = found["what"].as_str().unwrap();
    assert!(what.contains(words), "{what}");
    assert!(!found["advice"].as_str().unwrap().is_empty());
    assert_eq!(code, Some(5));
    Ok(())
}

#[test]
fn a_host_that_is_well_is_told_so_and_left_as_it_is() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    pair.alpha.wait_reaches("beta")?;
    let look = "ip -d link; ip address; ip route show table all; nft list ruleset; ls -lA \"$0\"";
    let state = pair.alpha.state_dir();
    let traces = || {
        let arguments = ["-ec", look, &state.to_string_lossy()];
        Ok::<_, LabError>(pair.alpha.namespace().run("sh", arguments)?.stdout)
    };
    let before = traces()?;
    let (answer, code) = examined(doctor(&pair.alpha))?;
    assert_eq!(
        (&answer["failures"], code),
        (&Value::from(0), Some(0)),
        "{answer:#}"
    );
    for name in [
        "daemon",
        "membership",
        "alarms",
        "disk",
        "clock",
        "certificate",
        "tun",
        "interface",
        "routes",
        "port",
        "firewall",
        "coordinator",
        "peers",
        "large_packets",
        "resolution",
    ] {
        assert_eq!(check(&answer, name)["outcome"], "ok", "{name}: {answer:#}");
    }
    assert_eq!(traces()?, before);
    Ok(())
}

#[test]
fn what_breaks_in_the_field_is_found() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    pair.alpha.wait_reaches("beta")?;
    let alpha = &pair.alpha;
    let shell = |script: &str| alpha.namespace().run("sh", ["-ec", script]).map(drop);
    let status = alpha.ask(&["status"])?;
    let port = status["daemon"]["detail"]["listen_port"].as_u64().unwrap();

    shell(&format!(
        "nft 'add table inet host; add chain inet host in {{ type filter hook input priority 0; }};
              add rule inet host in udp dport {port} counter drop'"
    ))?;
    assert_fails(doctor(alpha), "firewall", &format!("drops UDP {port}"))?;
    shell("nft delete table inet host")?;

    shell("ip route add 100.64.0.0/10 dev eth0")?;
    assert_fails(doctor(alpha), "routes", "100.64.0.0/10 dev eth0")?;
    shell("ip route del 100.64.0.0/10 dev eth0")?;

    let without_tun = doctor(alpha).prepared_by("mount -t tmpfs tmpfs /dev/net");
    assert_fails(without_tun, "tun", "there is no /dev/net/tun")?;

    let state = alpha.state_dir();
    let at = state.display();
    let read_only = format!("mount --bind {at} {at}; mount -o remount,bind,ro {at}");
    assert_fails(doctor(alpha).prepared_by(&read_only), "disk", "read-only")?;
    let full = format!(
        "mount -t tmpfs -o size=64k,mode=700 tmpfs {at}; ! head -c 1M /dev/zero 2>&- > {at}/all"
    );
    assert_fails(doctor(alpha).prepared_by(&full), "disk", "is full")?;

    pair.beta.kill();
    assert_fails(doctor(alpha), "peers", "no echo from beta")?;
    pair.fleet.coordinator.kill();
    pair.alpha.wait_state("autonomous")?;
    assert_fails(
        doctor(&pair.alpha),
        "coordinator",
        "no coordinator can be reached",
    )?;

    pair.alpha.kill();
    let (answer, code) = examined(doctor(&pair.alpha))?;
    assert_eq!(
        (&check(&answer, "daemon")["outcome"], code),
        (&"failure".into(), Some(5))
    );
    let left = check(&answer, "leftovers")["what"].as_str().unwrap();
    assert!(left.contains("is kept unreachable"), "{left}");
    Ok(())
}

#[test]
fn a_daemon_that_is_held_is_found_and_nothing_is_advised_that_takes_away_what_it_uses()
-> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    pair.alpha.wait_reaches("beta")?;
    let daemon = pair.alpha.process().unwrap();
    daemon.signal(Signal::STOP)?;
    let held = examined(doctor(&pair.alpha));
    let asked = pair.alpha.meshctl(&["peers"]).run();
    pair.alpha.process().unwrap().signal(Signal::CONT)?;
    let (answer, _) = held?;
    let advice = check(&answer, "daemon")["advice"].as_str().unwrap();
    assert!(advice.contains("kill -CONT"), "{answer:#}");
    for silent in ["leftovers", "port", "plan", "resolver"] {
        assert_eq!(check(&answer, silent)["outcome"], "skipped", "{answer:#}");
    }
    assert_eq!(asked?.code(), Some(3));
    pair.alpha.wait_reaches("beta")
}

/// The one that opened the socket is gone then.
#[test]
fn a_daemon_that_took_over_is_found_when_it_is_held() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    pair.alpha.wait_reaches("beta")?;
    pair.alpha.ask(&["reload", "--hand-over"])?;
    let successor = *pair.alpha.daemons()?.last().unwrap();
    let held = |signal: &str| {
        let arguments = [signal, &successor.to_string()];
        pair.alpha.namespace().run("kill", arguments).map(drop)
    };
    held("-STOP")?;
    let told = examined(doctor(&pair.alpha));
    held("-CONT")?;
    let (answer, _) = told?;
    let advice = check(&answer, "daemon")["advice"].as_str().unwrap();
    let expected = format!("kill -CONT {successor}`");
    assert!(advice.contains(&expected), "{answer:#}");
    pair.alpha.wait_reaches("beta")
}

#[test]
fn who_is_not_root_and_a_host_without_a_fleet_are_told_what_can_be_told() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let fleet = Fleet::start(&lab, "test")?;
    let alpha = fleet.machine("alpha")?;
    let (answer, code) = examined(doctor(&alpha))?;
    assert_eq!(check(&answer, "membership")["outcome"], "warning");
    assert_eq!(
        (&answer["failures"], code),
        (&Value::from(0), Some(0)),
        "{answer:#}"
    );
    let anybody = alpha.shell().args([
        "-c",
        "exec setpriv --reuid 65534 --regid 65534 --clear-groups meshctl --json doctor",
    ]);
    let (answer, _) = examined(anybody)?;
    assert_eq!(check(&answer, "tun")["outcome"], "skipped", "{answer:#}");
    assert_eq!(check(&answer, "alarms")["outcome"], "skipped", "{answer:#}");
    Ok(())
}

/// What is in an identity file behind its frame: two texts, each after its length, from 41 on.
fn stored_identity(file: &[u8]) -> &[u8] {
    let mut rest = &file[41..];
    for _ in 0..2 {
        let (length, behind) = rest.split_first_chunk::<4>().unwrap();
        rest = &behind[u32::from_be_bytes(*length) as usize..];
    }
    rest
}

/// Every form in which a secret could be in a text.
fn forms(secret: &Secret) -> Vec<Vec<u8>> {
    let bytes = *secret.expose();
    let hexadecimal: String = bytes.iter().map(|it| format!("{it:02x}")).collect();
    let base64 = WireguardKey::from_bytes(bytes).to_string();
    let base64 = base64.trim_end_matches('=').to_owned();
    vec![
        bytes.to_vec(),
        hexadecimal.to_uppercase().into_bytes(),
        hexadecimal.into_bytes(),
        base64.replace('+', "-").replace('/', "_").into_bytes(),
        base64.into_bytes(),
    ]
}

fn assert_has_none(whole: &[u8], secrets: &[Vec<u8>]) {
    for secret in secrets {
        let found = whole.windows(secret.len()).any(|it| it == secret);
        assert!(
            !found,
            "a secret is in the report: {}",
            String::from_utf8_lossy(secret)
        );
    }
}

#[test]
fn a_bugreport_has_everything_but_secrets() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    pair.alpha.wait_reaches("beta")?;
    let token = pair.fleet.coordinator.create_token(&[])?;
    let file = fs::read(pair.alpha.state_dir().join("identity")).unwrap();
    let identity = decode_identity(stored_identity(&file)).unwrap();
    let keys = [&identity.wireguard_private_key, &identity.tls_private_key];
    let mut secrets: Vec<Vec<u8>> = keys.into_iter().flat_map(forms).collect();
    secrets.push(token.clone().into_bytes());
    let credential = "Zx81secretOfAnAdminWhoPastedItSomewhere";
    secrets.push(credential.into());
    // As careless as people are.
    let key = WireguardKey::from_bytes(*identity.wireguard_private_key.expose());
    let config = lab.directory().join("careless.toml");
    let text = format!(
        "log_level = 'info' # joined by {token}\n# secret: {credential}\n# PrivateKey = {key}\n"
    );
    fs::write(&config, text).unwrap();

    let file = lab.directory().join("report.tar.gz");
    let run = |host: &Host, more: &[&str]| {
        let (file, config) = (file.to_string_lossy(), config.to_string_lossy());
        let all = ["--json", "bugreport", "--file", &file, "--config", &config];
        let report = host
            .meshctl(&[&all, more].concat())
            .run()?
            .success()?
            .json()?;
        assert_eq!(lab::schema::complaints(&report), Vec::<String>::new());
        let unpacked = host.namespace().run("tar", ["xzOf", &file])?.stdout;
        let mode = fs::metadata(&*file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::remove_file(&*file).unwrap();
        Ok::<_, LabError>((report["data"].clone(), unpacked))
    };
    let (report, unpacked) = run(&pair.alpha, &[])?;
    assert_has_none(unpacked.as_bytes(), &secrets);
    for told in [
        "table inet mesh",
        "proto 190",
        "log_level = 'info'",
        "\"beta\"",
        "meshctl ",
    ] {
        assert!(unpacked.contains(told), "{told}");
    }
    let names: Vec<&str> = report["contents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    for name in [
        "doctor.json",
        "status.json",
        "drops.json",
        "nftables.txt",
        "settings.txt",
    ] {
        assert!(names.contains(&name), "{names:?}");
    }

    pair.alpha
        .namespace()
        .run("ip", ["address", "add", "198.51.100.77/32", "dev", "eth0"])?;
    let (_, open) = run(&pair.alpha, &[])?;
    let (_, masked) = run(&pair.alpha, &["--redact-addresses"])?;
    assert!(open.contains("198.51.100.77") && !masked.contains("198.51.100.77"));
    assert!(masked.contains("public-1"));

    pair.alpha.kill();
    let (_, unpacked) = run(&pair.alpha, &[])?;
    assert_has_none(unpacked.as_bytes(), &secrets);
    assert!(unpacked.contains("failure  daemon"), "the doctor is in it");
    let listed = pair
        .alpha
        .meshctl(&["bugreport", "--list"])
        .run()?
        .success()?
        .stdout;
    assert!(
        listed.contains("nothing was written") && !file.exists(),
        "{listed}"
    );
    wait_until("the daemon is back", CHANGE_DEADLINE, || {
        pair.alpha.start()?;
        Ok(Some(()))
    })
}
