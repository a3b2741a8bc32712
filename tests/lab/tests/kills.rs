//! A running fleet whose programs are killed at random moments while it is changed: nothing that was
//! acknowledged is lost, and everything comes together again.

#![allow(
    clippy::print_stdout,
    reason = "a test that fails shows what repeats it"
)]

use std::collections::BTreeMap;
use std::env;
use std::thread;
use std::time::Duration;

use lab::fleet::{CHANGE_DEADLINE, Fleet, Host, Pair};
use lab::{Lab, LabError, wait_until};
use serde_json::Value;

/// Between them, at least this many kills.
const KILLS: usize = 100;
/// The longest that a change goes on before somebody is killed; most take less, some more.
const KILL_WITHIN_MILLIS: u64 = 40;
const SEED_VARIABLE: &str = "MESH_LAB_SEED";

/// Chances that can be repeated: xorshift64*.
struct Dice(u64);

impl Dice {
    /// The seed of `MESH_LAB_SEED`, or the one that every run begins with.
    fn new() -> Self {
        let seed = env::var(SEED_VARIABLE)
            .ok()
            .and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or(0x6d65_7368);
        println!("repeat with {SEED_VARIABLE}={seed}; the moments differ, the order does not");
        Self(seed | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }
}

/// What the coordinator has promised to keep.
#[derive(Default)]
struct Acknowledged {
    tokens: Vec<String>,
    /// What the comment of a policy version says, by version.
    policies: BTreeMap<u64, String>,
    /// The last value of the label that was set on beta.
    label: Option<String>,
}

/// One change, as it was asked for. Nobody knows whether one without an answer was made.
enum Change {
    Token,
    Policy(String),
    Label(String),
}

impl Change {
    fn random(dice: &mut Dice, round: usize) -> Self {
        match dice.below(3) {
            0 => Self::Token,
            1 => Self::Policy(format!("change {round}")),
            _ => Self::Label(format!("r{round}")),
        }
    }

    /// Asks for it; `None` when there is no good answer, as when somebody was killed.
    fn ask(&self, fleet: &Fleet) -> Option<Value> {
        match self {
            Self::Token => fleet.coordinator.ask(&["tokens", "create"]),
            Self::Policy(message) => {
                let port = message.bytes().map(u16::from).sum::<u16>();
                let text = format!(
                    "fleet: test\nallow:\n  - {{ id: ping, from: any, to: any, icmp: true }}\n  \
                     - {{ id: all, from: any, to: any, tcp: [{port}] }}\n# {message}\n"
                );
                let directory = fleet.coordinator.write_policy(&text).ok()?;
                let directory = directory.to_string_lossy();
                let apply = ["policy", "apply", &directory, "--wait", "0", "-m", message];
                fleet.coordinator.ask(&apply)
            }
            Self::Label(value) => {
                let label = format!("round={value}");
                fleet.coordinator.ask(&["hosts", "label", "beta", &label])
            }
        }
        .ok()
    }

    fn note(self, answer: &Value, acknowledged: &mut Acknowledged) {
        match self {
            Self::Token => {
                let id = answer["id"].as_str().expect("a token has an id");
                acknowledged.tokens.push(id.to_owned());
            }
            Self::Policy(message) => {
                let version = answer["version"].as_u64().expect("a policy has a version");
                acknowledged.policies.insert(version, message);
            }
            Self::Label(value) => acknowledged.label = Some(value),
        }
    }
}

fn check_kept(fleet: &Fleet, acknowledged: &Acknowledged) -> Result<(), LabError> {
    let listed = fleet.coordinator.ask(&["tokens", "list"])?.to_string();
    for id in &acknowledged.tokens {
        assert!(listed.contains(id.as_str()), "token {id} is lost");
    }
    let history = fleet.coordinator.ask(&["policy", "history"])?;
    for (version, message) in &acknowledged.policies {
        let row = history
            .as_array()
            .into_iter()
            .flatten()
            .find(|row| row["version"] == *version);
        let row = row.unwrap_or_else(|| panic!("policy version {version} is lost"));
        assert_eq!(row["message"], message.as_str());
    }
    Ok(())
}

/// All hosts are online, enforce the version in force, and reach each other.
fn check_converges(fleet: &Fleet, hosts: &[&Host]) -> Result<(), LabError> {
    wait_until(
        "all hosts enforce the policy in force",
        CHANGE_DEADLINE,
        || {
            let rollout = fleet.coordinator.ask(&["policy", "status"]);
            Ok(rollout
                .is_ok_and(|it| it["in_force"] == hosts.len())
                .then_some(()))
        },
    )?;
    for from in hosts {
        for to in hosts.iter().filter(|to| to.name() != from.name()) {
            from.wait_reaches(to.name())?;
        }
    }
    Ok(())
}

#[test]
fn no_acknowledged_change_is_lost_whoever_is_killed_and_when() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    let mut dice = Dice::new();
    let mut acknowledged = Acknowledged::default();
    for round in 0..KILLS {
        let change = Change::random(&mut dice, round);
        let pause = Duration::from_micros(dice.below(KILL_WITHIN_MILLIS * 1000));
        // Two of four kills hit the coordinator, which does the writing.
        let victim = dice.below(4);
        let answer = {
            let Pair { fleet, alpha, beta } = &mut pair;
            let pid = match victim {
                0 => alpha.process(),
                1 => beta.process(),
                _ => fleet.coordinator.process(),
            };
            let pid = pid.expect("everybody runs between the rounds").id();
            thread::scope(|scope| {
                let asked = scope.spawn(|| change.ask(fleet));
                thread::sleep(pause);
                kill(pid);
                asked.join().expect("asking does not panic")
            })
        };
        if let Some(answer) = answer {
            change.note(&answer, &mut acknowledged);
        }
        match victim {
            0 => pair.alpha.start()?,
            1 => pair.beta.start()?,
            _ => pair.fleet.coordinator.restart()?,
        }
        if round % 20 == 19 {
            check_kept(&pair.fleet, &acknowledged)?;
        }
    }
    println!(
        "{} tokens and {} policies were acknowledged",
        acknowledged.tokens.len(),
        acknowledged.policies.len()
    );
    assert!(!acknowledged.tokens.is_empty() && !acknowledged.policies.is_empty());
    check_kept(&pair.fleet, &acknowledged)?;
    check_converges(&pair.fleet, &[&pair.alpha, &pair.beta])
}

fn kill(pid: u32) {
    use rustix::process::{Pid, Signal, kill_process};
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .expect("a process id");
    kill_process(pid, Signal::KILL).expect("it runs");
}

#[test]
fn a_join_that_is_killed_in_the_middle_ends_as_one_member() -> Result<(), LabError> {
    const ROUNDS: usize = 8;
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    let mut dice = Dice::new();
    let token = pair.fleet.coordinator.create_token(&[])?;
    let mut gamma = pair.fleet.machine("gamma")?;
    for round in 0..ROUNDS {
        let pause = Duration::from_micros(dice.below(KILL_WITHIN_MILLIS * 1000));
        let hits_coordinator = dice.below(2) == 0;
        let pid = match hits_coordinator {
            true => pair.fleet.coordinator.process(),
            false => gamma.process(),
        };
        let pid = pid.expect("everybody runs between the rounds").id();
        thread::scope(|scope| {
            let joined = scope.spawn(|| gamma.try_join(&token, "gamma"));
            thread::sleep(pause);
            kill(pid);
            // Whatever it was told, it was told something.
            joined.join().expect("joining does not panic")
        })?;
        match hits_coordinator {
            true => pair.fleet.coordinator.restart()?,
            false => gamma.start()?,
        }
        // A join under way goes on by itself, sooner when it is asked for again; one that was
        // given up is made anew.
        wait_until("gamma is online", CHANGE_DEADLINE, || {
            match gamma.state()?.as_str() {
                "online" => return Ok(Some(())),
                "unenrolled" | "joining" => drop(gamma.try_join(&token, "gamma")?),
                _ => {}
            }
            Ok(None)
        })?;
        let hosts = pair.fleet.coordinator.ask(&["hosts", "list"])?;
        let named = hosts
            .as_array()
            .into_iter()
            .flatten()
            .filter(|it| it["name"] == "gamma");
        assert_eq!(named.count(), 1, "round {round}: {hosts}");
        gamma.wait_reaches("beta")?;
        gamma.ask(&["leave"])?;
    }
    check_converges(&pair.fleet, &[&pair.alpha, &pair.beta])
}
