//! The lab itself: it connects what it should, and leaves nothing behind however it ends.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use lab::{Lab, LabError, wait_until};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

const SOON: Duration = Duration::from_secs(20);

fn namespaces_of(id: &str) -> Vec<String> {
    let prefix = format!("{id}-");
    fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(&prefix))
        .collect()
}

fn assert_nothing_left(id: &str) {
    assert_eq!(namespaces_of(id), Vec::<String>::new());
    assert!(!Path::new("/run/mesh-lab").join(id).exists());
}

fn is_alive(pid: u32) -> bool {
    let pid = pid.try_into().ok().and_then(Pid::from_raw);
    test_kill_process(pid.expect("a process id fits")).is_ok()
}

#[test]
fn two_namespaces_reach_each_other_by_both_families() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let network = lab.underlay()?;
    let (a, b) = (lab.namespace("a")?, lab.namespace("b")?);
    network.attach(&a, "eth0")?;
    let there = network.attach(&b, "eth0")?;
    a.run("ping", ["-c1", "-W5", &there.v4.to_string()])?;
    a.run("ping", ["-c1", "-W5", &there.v6.to_string()])?;
    Ok(())
}

#[test]
fn services_answer_over_both_families() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let a = lab.namespace("a")?;
    let _web = a.serve_http(8080, "hello from a")?;
    let _echo = a.serve_udp_echo(9)?;
    for address in ["127.0.0.1", "[::1]"] {
        let page = a.run("curl", ["-sS", "-m5", &format!("http://{address}:8080/")])?;
        assert_eq!(page.stdout, "hello from a\n");
        let target = format!("UDP:{address}:9");
        let echoed = a
            .launch("socat")
            .args(["-t1", "-", &target])
            .input("sound")
            .run()?;
        assert_eq!(echoed.success()?.stdout, "sound");
    }
    Ok(())
}

#[test]
fn a_pulled_cable_carries_nothing_until_it_is_plugged_in() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let network = lab.underlay()?;
    let (a, b) = (lab.namespace("a")?, lab.namespace("b")?);
    network.attach(&a, "eth0")?;
    let there = network.attach(&b, "eth0")?;
    let ping = || {
        let ran = a
            .launch("ping")
            .args(["-c1", "-W1", &there.v4.to_string()])
            .run()?;
        Ok::<_, LabError>(ran.status.success())
    };
    network.disconnect(&there)?;
    assert!(!ping()?);
    network.reconnect(&there)?;
    wait_until(
        "the cable carries again",
        SOON,
        || Ok(ping()?.then_some(())),
    )
}

#[test]
fn a_network_that_loses_everything_can_be_repaired() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let network = lab.underlay()?;
    let (a, b) = (lab.namespace("a")?, lab.namespace("b")?);
    network.attach(&a, "eth0")?;
    let there = network.attach(&b, "eth0")?.v4.to_string();
    network.lose(100)?;
    assert!(
        !a.launch("ping")
            .args(["-c1", "-W1", &there])
            .run()?
            .status
            .success()
    );
    network.lose(0)?;
    a.run("ping", ["-c1", "-W5", &there])?;
    Ok(())
}

#[test]
fn programs_see_the_resolver_of_their_namespace_only() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut a = lab.namespace("a")?;
    a.set_resolver("127.0.0.53".parse().unwrap(), "mesh.internal")?;
    let inside = a.run("cat", ["/etc/resolv.conf"])?.stdout;
    assert!(inside.starts_with("nameserver 127.0.0.53\n"), "{inside}");
    assert_ne!(
        fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
        inside
    );
    Ok(())
}

#[test]
fn a_program_that_runs_too_long_is_killed_and_told_of() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let a = lab.namespace("a")?;
    let endless = a.launch("sh").args(["-c", "echo started; sleep 1000"]);
    let error = endless
        .within(Duration::from_millis(200))
        .run()
        .unwrap_err();
    assert!(error.to_string().contains("started"), "{error}");
    Ok(())
}

#[test]
fn a_failed_program_tells_what_it_said() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let a = lab.namespace("a")?;
    let ran = a
        .launch("sh")
        .args(["-c", "echo the reason >&2; exit 3"])
        .run()?;
    assert_eq!(ran.code(), Some(3));
    let error = ran.success().unwrap_err().to_string();
    assert!(error.contains("the reason"), "{error}");
    Ok(())
}

#[test]
fn a_process_is_heard_ready_and_ends_on_request() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let a = lab.namespace("a")?;
    let script = "trap 'exit 7' TERM; echo READY=1 | socat - UNIX-SENDTO:$NOTIFY_SOCKET; \
                  echo up; while :; do sleep 0.01; done";
    let mut process = a.launch("sh").args(["-c", script]).spawn("daemon")?;
    process.wait_ready(SOON)?;
    assert_eq!(process.wait_for_line("up", SOON)?, "up");
    assert_eq!(process.terminate(SOON)?.code(), Some(7));
    Ok(())
}

#[test]
fn a_process_that_ends_before_it_is_ready_is_told_of_at_once() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let a = lab.namespace("a")?;
    let mut process = a
        .launch("sh")
        .args(["-c", "echo no config >&2; exit 1"])
        .spawn("daemon")?;
    let error = process
        .wait_ready(Duration::from_secs(600))
        .unwrap_err()
        .to_string();
    assert!(error.contains("no config"), "{error}");
    Ok(())
}

#[test]
fn a_dropped_lab_leaves_nothing_behind() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let id = lab.id().to_owned();
    let a = lab.namespace("a")?;
    lab.underlay()?.attach(&a, "eth0")?;
    // A daemon that left its process group, which only the namespace still knows.
    let script = "setsid sleep 1000 >/dev/null 2>&1 & echo $!";
    let daemon: u32 = a.run("sh", ["-c", script])?.stdout.trim().parse().unwrap();
    assert!(is_alive(daemon));
    drop((a, lab));
    assert_nothing_left(&id);
    wait_until("the daemon is gone", SOON, || {
        Ok((!is_running(daemon)).then_some(()))
    })
}

/// Neither gone nor a zombie that nobody has waited for yet.
fn is_running(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_panic_leaves_nothing_behind() {
    let id = std::thread::spawn(|| {
        let lab = Lab::new().unwrap();
        lab.namespace("a").unwrap();
        std::panic::panic_any(lab.id().to_owned());
    })
    .join()
    .unwrap_err()
    .downcast::<String>()
    .unwrap();
    assert_nothing_left(&id);
}

#[test]
fn a_kept_lab_stays_until_it_is_removed() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let id = lab.id().to_owned();
    let a = lab.namespace("a")?;
    let process = a.launch("sleep").arg("1000").spawn("sleeper")?;
    let pid = process.id();
    lab.keep()?;
    drop((process, a, lab));
    // Another lab removes what crashed runs left, and must not take this one for such.
    drop(Lab::new()?);
    assert!(is_alive(pid));
    assert!(lab::kept_labs()?.contains(&id));
    lab::remove_lab(&id)?;
    assert_nothing_left(&id);
    Ok(())
}

#[test]
fn the_guardian_removes_the_lab_of_an_owner_that_was_killed() {
    let mut owner = Command::new(env!("CARGO_BIN_EXE_hold-lab"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut id = String::new();
    let mut output = BufReader::new(owner.stdout.take().unwrap());
    output.read_line(&mut id).unwrap();
    let id = id.trim();
    assert_eq!(namespaces_of(id).len(), 2);
    kill_process(Pid::from_child(&owner), Signal::KILL).unwrap();
    assert_eq!(owner.wait().unwrap().signal(), Some(9));
    wait_until("the guardian has removed everything", SOON, || {
        let directory = Path::new("/run/mesh-lab").join(id);
        Ok((namespaces_of(id).is_empty() && !directory.exists()).then_some(()))
    })
    .unwrap();
}

#[test]
fn a_later_run_removes_what_a_crashed_one_left() -> Result<(), LabError> {
    // As after a crash of owner and guardian: files and namespaces that nobody holds a lock on.
    let id = format!("mesh-crashed-{}", std::process::id());
    let directory = Path::new("/run/mesh-lab").join(&id);
    let first = Lab::new()?;
    fs::create_dir(&directory).unwrap();
    let name = format!("{id}-a");
    assert!(
        Command::new("ip")
            .args(["netns", "add", &name])
            .status()
            .unwrap()
            .success()
    );
    drop(Lab::new()?);
    assert_nothing_left(&id);
    assert!(first.directory().exists(), "a lab with an owner stays");
    Ok(())
}
