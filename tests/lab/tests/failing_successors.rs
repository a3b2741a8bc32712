//! Successors that hang, or cannot read what the running daemon wrote: it goes on and says why.
//! Those that end or say what is not understood are in `handing_over`.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]

use std::fs;
use std::path::Path;
use std::thread;

use lab::fleet::{CHANGE_DEADLINE, Host, Pair};
use lab::metrics::MetricsPage;
use lab::{Lab, LabError, replace_program, wait_until};

/// What a successor says first.
const HELLO: &str =
    r#"{"step":"hello","oldest":1,"newest":1,"version":"9.9.9","bequest_format":1}"#;
/// Where the number of the identity file's format stands, after its name.
const FORMAT_AT: usize = 7;

/// Whoever hangs is given twenty seconds: the two hosts wait for it at once.
#[test]
fn a_successor_that_hangs_is_ended_and_the_old_one_goes_on() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let Pair {
        fleet,
        mut alpha,
        mut beta,
    } = Pair::start(&lab)?;
    let silent = "#!/bin/sh\nexec sleep 600\n".to_owned();
    let equips = format!("#!/bin/sh\nprintf '%s' '{HELLO}' >&0\nkill -STOP $$\n");
    let mut programs = Vec::new();
    for host in [&mut alpha, &mut beta] {
        programs.push(host.install_own_program()?);
        host.start()?;
    }
    alpha.wait_reaches("beta")?;
    let hang = |host: &Host, program: &Path, script: &str, when: &str| -> Result<(), LabError> {
        let before = host.daemons()?;
        replace_program(program, script)?;
        let refused = host.meshctl(&["reload"]).run()?;
        assert_eq!(refused.code(), Some(1), "{}", refused.stdout);
        let why = format!("when it was to {when}: it did not answer within");
        assert!(refused.stderr.contains(&why), "{}", refused.stderr);
        assert!(host.log()?.contains(&why), "the log does not say {why:?}");
        assert_eq!(host.daemons()?, before);
        assert_eq!(host.state()?, "online");
        Ok(())
    };
    thread::scope(|scope| {
        let other = scope.spawn(|| hang(&beta, &programs[1], &equips, "equip itself"));
        hang(&alpha, &programs[0], &silent, "start")?;
        other.join().unwrap()
    })?;
    // A change of the policy arrives, so both brains are awake.
    let policy = "fleet: test\nallow: [{ id: all, from: any, to: any, icmp: true }]\n";
    fleet.coordinator.apply_policy_text(policy)?;
    beta.wait_reaches("alpha")
}

#[test]
fn a_scrape_is_answered_while_the_brain_rests_for_a_successor_that_hangs() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let Pair {
        fleet: _fleet,
        mut alpha,
        ..
    } = Pair::start(&lab)?;
    let program = alpha.install_own_program()?;
    alpha.start()?;
    let rests = program.with_extension("rests");
    let script = format!(
        "#!/bin/sh\nprintf '%s' '{HELLO}' >&0\nprintf '%s' '{{\"step\":\"equipped\"}}' >&0\n\
         until dd bs=65536 count=1 2>/dev/null | grep -q '\"quiet\"'; do :; done\n\
         : >'{}'\nkill -STOP $$\n",
        rests.display()
    );
    replace_program(&program, &script)?;
    thread::scope(|scope| {
        let reload = scope.spawn(|| alpha.meshctl(&["reload"]).run());
        wait_until("the brain rests", CHANGE_DEADLINE, || {
            Ok(rests.exists().then_some(()))
        })?;
        let told = alpha.meshctl(&["metrics"]).run()?.success()?;
        let page = MetricsPage::parse(&told.stdout)?;
        assert!(page.has("meshd_build_info"));
        assert!(!reload.is_finished(), "the successor does not hang");
        let refused = reload.join().unwrap()?;
        assert!(refused.stderr.contains("load"), "{}", refused.stderr);
        assert_eq!(refused.code(), Some(1), "{}", refused.stdout);
        Ok(())
    })
}

#[test]
fn a_state_directory_that_the_successor_cannot_read_is_left_to_the_old_one() -> Result<(), LabError>
{
    let lab = Lab::new()?;
    let Pair {
        fleet: _fleet,
        alpha,
        beta,
    } = Pair::start(&lab)?;
    let path = alpha.state_dir().join("identity");
    let ours = fs::read(&path).unwrap();
    let mut newer = ours.clone();
    newer[FORMAT_AT] += 1;
    fs::write(&path, &newer).unwrap();
    let before = alpha.daemons()?;
    let refused = alpha.meshctl(&["reload", "--hand-over"]).run()?;
    assert_eq!(refused.code(), Some(1), "{}", refused.stdout);
    for why in [
        "it could not load its state",
        "was this program downgraded?",
    ] {
        assert!(refused.stderr.contains(why), "{}", refused.stderr);
    }
    assert_eq!(fs::read(&path).unwrap(), newer, "it is left as it is");
    assert_eq!(alpha.daemons()?, before);
    assert_eq!(alpha.state()?, "online");
    beta.wait_reaches("alpha")?;

    fs::write(&path, &ours).unwrap();
    alpha.ask(&["reload", "--hand-over"])?;
    assert_ne!(alpha.daemons()?.last(), before.last());
    beta.wait_reaches("alpha")
}
