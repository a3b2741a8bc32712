//! The coordinator of this machine: whether it runs, has room, and shows what hosts believe.

use super::super::facts::{OwnCoordinator, Process, Shown, Verdict};
use super::super::finding::Finding;
use crate::output::bytes;

type Check = fn(&OwnCoordinator) -> Finding;

pub(super) const ALL: &[Check] = &[settings, runs, alarms, disk, certificate];

/// Free bytes below which changes may not fit soon.
const FREE_BYTES_MIN: u64 = 64 << 20;

fn settings(own: &OwnCoordinator) -> Finding {
    const CHECK: &str = "coordinator_settings";
    match &own.verdict {
        Verdict::Good => Finding::ok(CHECK, "mesh-coordinator takes its settings"),
        Verdict::Refused(why) => Finding::failure(
            CHECK,
            why.clone(),
            "mesh-coordinator does not start with them; one that runs keeps the former ones",
            "correct the file; `mesh-coordinator --check` says whether it is good",
        ),
        Verdict::Unknown(why) => Finding::skipped(CHECK, why.clone()),
    }
}

fn alarms(own: &OwnCoordinator) -> Finding {
    const CHECK: &str = "coordinator_alarms";
    match own.status.as_ref().map(|status| &status.alarms[..]) {
        None => Finding::skipped(CHECK, "only root and group mesh may see them"),
        Some([]) => Finding::ok(CHECK, "mesh-coordinator has no alarm"),
        Some(alarms) => Finding::failure(
            CHECK,
            alarms.join("\n"),
            "mesh-coordinator tells what it cannot mend itself",
            "as each of them says; docs/troubleshooting.md has more",
        ),
    }
}

fn runs(own: &OwnCoordinator) -> Finding {
    const CHECK: &str = "coordinator_runs";
    const WHY: &str =
        "hosts keep their peers, names and rules; nobody joins and nothing can be changed";
    let state = |name: &str| own.unit.as_ref().ok()?.get(name).map(String::as_str);
    let restarts: u32 = state("NRestarts")
        .and_then(|it| it.parse().ok())
        .unwrap_or(0);
    match (&own.version, own.process) {
        (Ok(version), _) if restarts > RESTARTS_MAX => Finding::warning(
            CHECK,
            format!("systemd had to start mesh-coordinator {version} again {restarts} times"),
            WHY,
            "`journalctl -u mesh-coordinator` says why it ended",
        ),
        (Ok(version), _) => Finding::ok(CHECK, format!("mesh-coordinator {version} answers")),
        (
            Err(_),
            Process::Runs {
                pid: Some(pid),
                is_stopped: true,
            },
        ) => Finding::failure(
            CHECK,
            format!("mesh-coordinator runs (process {pid}), and is held by a signal or a debugger"),
            WHY,
            format!("find out who holds it; `kill -CONT {pid}` lets it go on"),
        ),
        (Err(why), Process::Runs { .. }) => Finding::failure(
            CHECK,
            format!("mesh-coordinator runs and does not answer: {why}"),
            WHY,
            "`journalctl -u mesh-coordinator -e`; then `systemctl restart mesh-coordinator`",
        ),
        (Err(why), Process::None) => {
            let result = state("Result").filter(|it| *it != "success");
            let result = result.map_or(String::new(), |it| format!("; systemd says: {it}"));
            Finding::failure(
                CHECK,
                format!("mesh-coordinator does not run: {why}{result}"),
                WHY,
                "`systemctl start mesh-coordinator`; `journalctl -u mesh-coordinator -e` says why it ended",
            )
        }
    }
}

/// Starts by systemd from which on it is no accident.
const RESTARTS_MAX: u32 = 2;

fn disk(own: &OwnCoordinator) -> Finding {
    const CHECK: &str = "coordinator_disk";
    const WHY: &str = "each change is on the disk before it is answered: nothing can be changed";
    let state = match &own.state_dir {
        Ok(state) => state,
        Err(why) => return Finding::skipped(CHECK, why.clone()),
    };
    let shown = state.path.display();
    if state.is_read_only {
        let what = format!("{shown} is on a file system that is mounted read-only");
        let advice = "`dmesg` says whether the disk failed; mount it read-write again";
        return Finding::failure(CHECK, what, WHY, advice);
    }
    if state.free_bytes == 0 || state.free_files == Some(0) {
        let what = format!("the disk of {shown} is full");
        return Finding::failure(CHECK, what, WHY, "make room; it goes on by itself");
    }
    let left = bytes(state.free_bytes);
    if state.free_bytes < FREE_BYTES_MIN {
        let what = format!("{left} are left on the disk of {shown}");
        return Finding::warning(CHECK, what, WHY, "make room");
    }
    Finding::ok(CHECK, format!("{shown} has {left} left"))
}

fn certificate(own: &OwnCoordinator) -> Finding {
    const CHECK: &str = "coordinator_certificate";
    let Some(status) = &own.status else {
        return Finding::skipped(CHECK, "only root and group mesh are told where it answers");
    };
    let refused = told_of(&own.shown, |shown| match shown {
        Shown::Refused(why) => Some(why),
        Shown::Believed | Shown::NotReached(_) => None,
    });
    if !refused.is_empty() {
        return Finding::failure(
            CHECK,
            refused,
            "hosts and operators reach it there, and believe what shows the fleet's root",
            "is the clock right, does the name lead here, and is the port its own? `advertise` in coordinator.toml says where it is",
        );
    }
    if status.disbelieving > 0 {
        return Finding::warning(
            CHECK,
            format!(
                "{} machines said of late that they do not believe it, as anybody who reaches its port can",
                status.disbelieving
            ),
            "hosts among them are cut off from changes: their root is another one",
            "does `meshctl hosts list` have hosts offline that run? docs/troubleshooting.md has what to do when hosts do not believe the coordinator",
        );
    }
    let silent = told_of(&own.shown, |shown| match shown {
        Shown::NotReached(why) => Some(why),
        Shown::Believed | Shown::Refused(_) => None,
    });
    if !silent.is_empty() {
        return Finding::warning(
            CHECK,
            format!("from this machine: {silent}"),
            "where hosts do not reach it either, they get no changes; behind a NAT that does not lead back in, they may",
            "`meshctl doctor` on a host says whether it reaches the coordinator; `advertise` in coordinator.toml says where it is",
        );
    }
    Finding::ok(
        CHECK,
        format!("{} addresses show what hosts believe", own.shown.len()),
    )
}

/// The addresses of which something is to be told, each with that.
fn told_of(shown: &[(String, Shown)], why: impl Fn(&Shown) -> Option<&String>) -> String {
    let told = shown.iter().filter_map(|(address, shown)| {
        let why = why(shown)?;
        Some(format!("{address}: {why}"))
    });
    told.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::super::super::facts::{Facts, StateDirectory};
    use super::super::super::finding::Outcome;
    use super::super::healthy;
    use super::*;

    fn own() -> OwnCoordinator {
        let status = serde_json::json!({
            "version": "1.0.0", "fleet": "01010101010101010101010101010101",
            "fleet_name": "prod", "dns_suffix": "mesh.internal",
            "overlay_v4": "100.64.0.0/16", "overlay_v6": "fd00::/48",
            "root_pin": "01".repeat(32), "revision": {"epoch": 1, "counter": 1},
            "hosts": 1, "hosts_online": 1, "policy": 1, "addresses": ["c:7443"],
        });
        OwnCoordinator {
            verdict: Verdict::Good,
            process: Process::Runs {
                pid: Some(9),
                is_stopped: false,
            },
            version: Ok("1.0.0".into()),
            status: Some(serde_json::from_value(status).unwrap()),
            unit: Ok([("NRestarts".to_owned(), "0".to_owned())].into()),
            state_dir: Ok(StateDirectory {
                path: "/var/lib/mesh/coordinator".into(),
                free_bytes: 10 << 30,
                free_files: None,
                is_read_only: false,
                mode: 0o700,
                exposed: Vec::new(),
                is_foreign: true,
            }),
            shown: vec![("c:7443".into(), Shown::Believed)],
        }
    }

    #[test]
    fn a_coordinator_that_is_well_has_nothing_to_tell() {
        for check in ALL {
            let finding = check(&own());
            assert_eq!(finding.outcome, Outcome::Ok, "{finding:?}");
        }
    }

    #[test]
    fn a_machine_with_a_coordinator_alone_is_not_told_that_it_lacks_a_daemon() {
        let mut facts = healthy::unknown();
        facts.own_coordinator = Some(own());
        let findings = super::super::run(&facts);
        assert_eq!(findings.len(), ALL.len());
        // But it has settings for one, which may be where it is not found.
        let is_of_daemon = |facts: &Facts| {
            let findings = super::super::run(facts);
            findings.iter().any(|it| it.check == "daemon")
        };
        facts.has_settings_file = true;
        assert!(is_of_daemon(&facts));
        facts.has_settings_file = false;
        facts.own_coordinator = None;
        assert!(is_of_daemon(&facts));
    }

    #[test]
    fn what_keeps_a_coordinator_from_its_work_is_told() {
        let mut stopped = own();
        stopped.version = Err("no answer".into());
        stopped.process = Process::Runs {
            pid: Some(9),
            is_stopped: true,
        };
        assert!(runs(&stopped).advice.unwrap().contains("kill -CONT 9"));
        stopped.process = Process::None;
        assert!(runs(&stopped).advice.unwrap().contains("systemctl start"));
        let mut wrong = own();
        wrong.verdict = Verdict::Refused("coordinator.toml, line 3: advertise".into());
        let finding = settings(&wrong);
        assert_eq!(finding.outcome, Outcome::Failure);
        assert!(finding.what.contains("line 3"), "{finding:?}");
        let mut deaf = own();
        let taken = "cannot answer for metrics at 127.0.0.1:7446: it is taken".to_owned();
        deaf.status.as_mut().unwrap().alarms.push(taken);
        let finding = alarms(&deaf);
        assert_eq!(finding.outcome, Outcome::Failure);
        assert!(finding.what.contains("7446"), "{finding:?}");
        let mut full = own();
        full.state_dir.as_mut().unwrap().free_bytes = 0;
        assert_eq!(disk(&full).outcome, Outcome::Failure);
        let mut expired = own();
        expired.shown[0].1 = Shown::Refused("the certificate has expired".into());
        let finding = certificate(&expired);
        assert_eq!(finding.outcome, Outcome::Failure);
        assert!(
            finding.what.contains("c:7443: the certificate has expired"),
            "{finding:?}"
        );
        let mut behind_nat = own();
        let silent = (
            "203.0.113.7:7443".into(),
            Shown::NotReached("no answer".into()),
        );
        behind_nat.shown.push(silent);
        let finding = certificate(&behind_nat);
        assert_eq!(finding.outcome, Outcome::Warning);
        assert!(
            finding.what.contains("203.0.113.7:7443: no answer"),
            "{finding:?}"
        );
        let mut other = own();
        other.status.as_mut().unwrap().disbelieving = 4;
        assert_eq!(certificate(&other).outcome, Outcome::Warning);
    }
}
