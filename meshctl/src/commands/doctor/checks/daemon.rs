//! The daemon itself: whether it runs, as what, and what it says of itself.

use model::local::HostState;

use super::super::facts::{Facts, Process, Verdict};
use super::super::finding::Finding;

pub(super) fn settings(facts: &Facts) -> Finding {
    const CHECK: &str = "settings";
    match (&facts.verdict, &facts.settings) {
        (Verdict::Refused(why), _) | (Verdict::Unknown(_), Err(why)) if facts.is_root => {
            Finding::failure(
                CHECK,
                why.clone(),
                "meshd does not start with them; one that runs keeps the former ones",
                "correct the file; `meshd --check` says whether it is good",
            )
        }
        (Verdict::Good, _) => Finding::ok(CHECK, "meshd takes its settings"),
        (Verdict::Unknown(why), Ok(_)) => {
            let what = format!("they are TOML; whether meshd takes them is not known: {why}");
            Finding::skipped(CHECK, what)
        }
        (Verdict::Refused(why), _) | (_, Err(why)) => {
            Finding::skipped(CHECK, format!("{why}; try as root"))
        }
    }
}

pub(super) fn daemon(facts: &Facts) -> Finding {
    const CHECK: &str = "daemon";
    match (&facts.daemon, facts.process) {
        (Ok(status), _) => Finding::ok(CHECK, format!("meshd {} answers", status.version)),
        (Err(why), Process::None) => gone(CHECK, facts, why),
        (Err(why), Process::Runs { pid, is_stopped }) => hung(CHECK, why, pid, is_stopped),
    }
}

fn gone(check: &'static str, facts: &Facts, why: &str) -> Finding {
    let state = |name: &str| facts.unit.as_ref().ok()?.get(name).map(String::as_str);
    let result = state("Result").filter(|it| *it != "success");
    let result = result.map_or(String::new(), |it| format!("; systemd says: {it}"));
    Finding::failure(
        check,
        format!("meshd does not answer: {why}{result}"),
        "without it this host is not in the overlay",
        match state("LoadState") {
            Some("loaded") => "`systemctl start meshd`; `journalctl -u meshd -e` says why it ended",
            _ => "start meshd; `--socket` names its socket when it is another one",
        },
    )
}

/// Packets may pass all the same; so the first advice is one that cuts nothing.
fn hung(check: &'static str, why: &str, pid: Option<u32>, is_stopped: bool) -> Finding {
    let which = pid.map_or(String::new(), |pid| format!(" (process {pid})"));
    let (what, advice) = match (is_stopped, pid) {
        (true, Some(pid)) => (
            format!("meshd runs{which}, and is held by a signal or a debugger"),
            format!("find out who holds it; `kill -CONT {pid}` lets it go on"),
        ),
        _ => (
            format!("meshd runs{which} and does not answer: {why}"),
            "`journalctl -u meshd -e`; `meshctl bugreport` for who is to mend it; then `systemctl restart meshd`".to_owned(),
        ),
    };
    Finding::failure(
        check,
        what,
        "what depends on its word is not judged below; leave its routes, its table and its files as they are",
        advice,
    )
}

pub(super) fn version(facts: &Facts) -> Finding {
    const CHECK: &str = "version";
    let Ok(status) = &facts.daemon else {
        return Finding::skipped(CHECK, "meshd does not answer");
    };
    let is_replaced = status.detail.as_ref().is_some_and(|it| it.binary_replaced);
    let running = &status.version;
    match &facts.installed_version {
        Ok(installed) if installed != running => Finding::warning(
            CHECK,
            format!("meshd {running} runs, and meshd {installed} is installed"),
            "an upgrade is not in force, and its repairs are not either",
            "`systemctl reload meshd` takes over; `systemctl restart meshd` where that is too old",
        ),
        _ if is_replaced => Finding::warning(
            CHECK,
            format!("the program of meshd {running} was replaced since it was started"),
            "an upgrade is not in force, and its repairs are not either",
            "`systemctl reload meshd` takes over; `systemctl restart meshd` where that is too old",
        ),
        _ if running != facts.version => Finding::warning(
            CHECK,
            format!("meshctl is {}, meshd is {running}", facts.version),
            "they understand each other within one minor version",
            "install both of one version",
        ),
        _ => Finding::ok(CHECK, format!("meshctl and meshd are {running}")),
    }
}

pub(super) fn unit(facts: &Facts) -> Finding {
    const CHECK: &str = "unit";
    let unit = match &facts.unit {
        Ok(unit) => unit,
        Err(why) => return Finding::skipped(CHECK, why.clone()),
    };
    let value = |name: &str| unit.get(name).map_or("", String::as_str);
    if value("LoadState") != "loaded" {
        return Finding::skipped(CHECK, "systemd has no unit meshd.service");
    }
    let drop_ins = match value("DropInPaths") {
        "" => "its unit".to_owned(),
        paths => format!("its unit or {paths}"),
    };
    let lacks = |name: &str, word: &str| {
        let value = value(name);
        !value.is_empty() && !value.split_whitespace().any(|it| it.contains(word))
    };
    let hindrances = [
        (
            value("PrivateNetwork") == "yes",
            "PrivateNetwork=yes hides the host's network",
        ),
        (
            value("PrivateDevices") == "yes",
            "PrivateDevices=yes hides /dev/net/tun",
        ),
        (
            matches!(value("DevicePolicy"), "strict" | "closed")
                && lacks("DeviceAllow", "/dev/net/tun"),
            "DeviceAllow= leaves /dev/net/tun out",
        ),
        (
            lacks("CapabilityBoundingSet", "cap_net_admin"),
            "CapabilityBoundingSet= leaves CAP_NET_ADMIN out",
        ),
        (
            lacks("RestrictAddressFamilies", "AF_NETLINK"),
            "RestrictAddressFamilies= leaves AF_NETLINK out",
        ),
    ];
    let found = hindrances.into_iter().filter(|(is_so, _)| *is_so);
    let found: Vec<&str> = found.map(|(_, what)| what).collect();
    let restarts: u32 = value("NRestarts").parse().unwrap_or(0);
    if !found.is_empty() {
        return Finding::failure(
            CHECK,
            found.join("; "),
            "meshd cannot make the overlay under it",
            format!("`systemctl edit meshd` takes back what {drop_ins} says there"),
        );
    }
    let lacking = given_and_withheld(value("CapabilityBoundingSet"), facts.withheld);
    if !lacking.is_empty() {
        return Finding::warning(
            CHECK,
            format!("meshd runs without {lacking}, which its unit gives"),
            "the unit has changed since it was started; an upgrade starts the new meshd from the old one, with what that has",
            "`systemctl restart meshd` puts the unit in force, with a gap of a second or two",
        );
    }
    if restarts > RESTARTS_MAX {
        return Finding::warning(
            CHECK,
            format!("systemd had to start meshd again {restarts} times"),
            "each time the host's tunnels are made anew",
            "`journalctl -u meshd` says why it ended; `meshctl bugreport` collects it",
        );
    }
    Finding::ok(CHECK, "systemd lets meshd do its work")
}

/// What meshd uses, with its number (linux/capability.h).
const CAPABILITIES: [(&str, u32); 3] = [
    ("CAP_NET_BIND_SERVICE", 10),
    ("CAP_NET_ADMIN", 12),
    ("CAP_NET_RAW", 13),
];

fn given_and_withheld(given: &str, withheld: u64) -> String {
    let is_given = |name: &str| {
        given
            .split_whitespace()
            .any(|it| it.eq_ignore_ascii_case(name))
    };
    let lacking = CAPABILITIES
        .iter()
        .filter(|(name, number)| withheld & (1 << number) != 0 && is_given(name));
    let names: Vec<&str> = lacking.map(|(name, _)| *name).collect();
    names.join(", ")
}

/// Starts by systemd from which on it is no accident.
const RESTARTS_MAX: u32 = 2;

pub(super) fn membership(facts: &Facts) -> Finding {
    const CHECK: &str = "membership";
    let Ok(status) = &facts.daemon else {
        return Finding::skipped(CHECK, "meshd does not answer");
    };
    match (status.state, &status.detail) {
        (HostState::Online | HostState::Autonomous, Some(detail)) => Finding::ok(
            CHECK,
            format!("this host is {} of fleet {}", detail.name, detail.fleet),
        ),
        (HostState::Online | HostState::Autonomous, None) => {
            Finding::ok(CHECK, "this host is a member of a fleet")
        }
        (HostState::Unenrolled, _) => Finding::warning(
            CHECK,
            "this host is no member of a fleet",
            "meshd waits, and touches nothing",
            "`meshctl join TOKEN`, with a token of `meshctl tokens create`",
        ),
        (HostState::Joining, _) => Finding::warning(
            CHECK,
            "this host is joining",
            "it is in no fleet yet",
            "`meshctl join` again shows what it waits for",
        ),
        (HostState::Removed, _) => Finding::failure(
            CHECK,
            "this host was removed from its fleet",
            "no peer lets it in",
            "`meshctl join` with a new token, or `meshctl leave`",
        ),
        (HostState::Cloned, _) => Finding::failure(
            CHECK,
            "the state directory is a copy of another machine's",
            "two hosts of one identity take each other's place; nothing of it is used",
            "`meshctl join TOKEN` makes it a host of its own",
        ),
    }
}

pub(super) fn alarms(facts: &Facts) -> Finding {
    const CHECK: &str = "alarms";
    let Ok(status) = &facts.daemon else {
        return Finding::skipped(CHECK, "meshd does not answer");
    };
    match status.detail.as_ref().map(|detail| &detail.alarms[..]) {
        None if !facts.is_root => Finding::skipped(CHECK, "only root and group mesh may see them"),
        None | Some([]) => Finding::ok(CHECK, "meshd has no alarm"),
        Some(alarms) => Finding::failure(
            CHECK,
            alarms.join("\n"),
            "meshd tells what it cannot mend itself",
            "as each of them says; docs/troubleshooting.md has more",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::finding::Outcome;
    use super::super::healthy;
    use super::*;

    #[test]
    fn settings_that_make_no_sense_fail_and_unreadable_ones_do_not() {
        let mut facts = healthy::facts();
        facts.verdict = Verdict::Refused("/etc/mesh/meshd.toml, line 3: mtu 99".into());
        assert_eq!(settings(&facts).outcome, Outcome::Failure);
        assert!(settings(&facts).what.contains("line 3"));
        facts.is_root = false;
        assert_eq!(settings(&facts).outcome, Outcome::Skipped);
        let mut facts = healthy::facts();
        facts.verdict = Verdict::Unknown("there is no meshd".into());
        assert_eq!(settings(&facts).outcome, Outcome::Skipped);
        facts.settings = Err("/etc/mesh/meshd.toml, line 3: no TOML".into());
        assert_eq!(settings(&facts).outcome, Outcome::Failure);
    }

    #[test]
    fn a_capability_that_a_newer_unit_gives_needs_a_restart() {
        const RAW: u64 = 1 << 13;
        let given = "cap_net_bind_service cap_net_admin cap_net_raw";
        let mut facts = healthy::facts();
        let properties = facts.unit.as_mut().unwrap();
        properties.insert("CapabilityBoundingSet".into(), given.into());
        // Others are withheld on purpose.
        facts.withheld = !(1 << 10 | 1 << 12 | RAW);
        assert_eq!(unit(&facts).outcome, Outcome::Ok);
        facts.withheld |= RAW;
        let finding = unit(&facts);
        assert_eq!(finding.outcome, Outcome::Warning);
        assert!(finding.what.contains("without CAP_NET_RAW,"), "{finding:?}");
        assert!(finding.advice.unwrap().contains("systemctl restart meshd"));
    }

    #[test]
    fn a_daemon_that_is_held_is_found_first_and_nothing_is_said_that_needs_its_word() {
        let mut facts = healthy::facts();
        facts.daemon = Err("no answer".into());
        facts.obstacles = Ok(Vec::new());
        facts.dns = Err("no answer".into());
        facts.resolv_conf = Ok("# begin of meshd\n".into());
        facts.process = Process::Runs {
            pid: Some(7),
            is_stopped: true,
        };
        let findings = super::super::run(&facts);
        let told: Vec<_> = findings
            .iter()
            .filter(|it| it.outcome > Outcome::Skipped)
            .collect();
        assert_eq!(told.len(), 1, "{told:#?}");
        assert_eq!(told[0].check, "daemon");
        assert!(told[0].advice.as_ref().unwrap().contains("kill -CONT 7"));
        facts.process = Process::Runs {
            pid: None,
            is_stopped: false,
        };
        let advice = daemon(&facts).advice.unwrap();
        assert!(advice.contains("systemctl restart meshd"), "{advice}");
    }

    #[test]
    fn a_daemon_that_does_not_run_is_told_with_what_systemd_says() {
        let mut facts = healthy::facts();
        facts.daemon = Err("nobody listens".into());
        facts.process = Process::None;
        let unit = facts.unit.as_mut().unwrap();
        unit.insert("Result".into(), "oom-kill".into());
        let finding = daemon(&facts);
        assert_eq!(finding.outcome, Outcome::Failure);
        assert!(finding.what.contains("oom-kill"), "{finding:?}");
        assert!(finding.advice.unwrap().contains("journalctl"));
    }

    #[test]
    fn an_upgrade_that_is_not_in_force_is_seen_in_three_ways() {
        let mut facts = healthy::facts();
        facts.installed_version = Ok("9.0.0".into());
        assert!(version(&facts).what.contains("meshd 9.0.0 is installed"));
        let mut facts = healthy::facts();
        healthy::detail(&mut facts).binary_replaced = true;
        assert!(version(&facts).what.contains("was replaced"));
        let mut facts = healthy::facts();
        facts.version = "9.0.0";
        facts.installed_version = Err("there is none".into());
        assert!(version(&facts).what.contains("meshctl is 9.0.0"));
    }

    #[test]
    fn hardening_that_hinders_is_named() {
        for (name, value, said) in [
            ("PrivateNetwork", "yes", "network"),
            ("PrivateDevices", "yes", "tun"),
            ("DeviceAllow", "/dev/null rw", "DeviceAllow"),
            ("CapabilityBoundingSet", "cap_chown", "CAP_NET_ADMIN"),
            ("RestrictAddressFamilies", "AF_INET AF_UNIX", "AF_NETLINK"),
        ] {
            let mut facts = healthy::facts();
            let properties = facts.unit.as_mut().unwrap();
            properties.insert(name.into(), value.into());
            let finding = unit(&facts);
            assert_eq!(finding.outcome, Outcome::Failure, "{name}");
            assert!(finding.what.contains(said), "{finding:?}");
        }
        let mut facts = healthy::facts();
        let properties = facts.unit.as_mut().unwrap();
        properties.insert("NRestarts".into(), "7".into());
        assert_eq!(unit(&facts).outcome, Outcome::Warning);
    }

    #[test]
    fn who_is_no_member_is_told_what_to_do() {
        for (state, outcome) in [
            (HostState::Unenrolled, Outcome::Warning),
            (HostState::Removed, Outcome::Failure),
            (HostState::Cloned, Outcome::Failure),
        ] {
            let mut facts = healthy::facts();
            facts.daemon.as_mut().unwrap().state = state;
            let finding = membership(&facts);
            assert_eq!(finding.outcome, outcome);
            assert!(finding.advice.unwrap().contains("meshctl join"));
        }
    }

    #[test]
    fn alarms_are_passed_on() {
        let mut facts = healthy::facts();
        healthy::detail(&mut facts).alarms = vec!["the disk is full".into()];
        assert_eq!(alarms(&facts).what, "the disk is full");
    }
}
