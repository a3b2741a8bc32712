//! Whole fleets under faults. `SIM_SEED=N cargo test -p sim --test fleet -- one_seed --nocapture`
//! repeats one run, `SIM_SCENARIO` names another scenario than `rough`; `SIM_SECONDS` says how long
//! fresh seeds are tried, `SIM_LONG_SECONDS` for how long in the long test.

#![allow(clippy::print_stdout)] // what happened is told to whoever asks with --nocapture

use std::time::{Duration, Instant, SystemTime};

use sim::{Scenario, Summary, run};

#[test]
fn one_seed() {
    let name = std::env::var("SIM_SCENARIO").unwrap_or_else(|_| "rough".to_owned());
    let scenario = Scenario::named(&name).unwrap_or_else(|| panic!("no scenario {name}"));
    hold(scenario, setting("SIM_SEED").unwrap_or(1));
}

#[test]
fn a_quiet_fleet_forms_talks_and_lives_without_its_coordinator() {
    let summary = hold(Scenario::quiet(), 7);
    assert!(summary.traffic.answered > 100, "{summary}");
    assert!(summary.traffic.refused > 100, "{summary}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let scenario = Scenario::small();
    let (one, again, other) = (hold(scenario, 3), hold(scenario, 3), hold(scenario, 4));
    assert_eq!(one, again);
    assert_ne!(one.trace, other.trace);
}

/// Seeds that found something once: a pair that never met, an alarm that never ended, a peer that
/// had moved before a restart, a change of a key that waited for a coordinator with a full disk, a
/// version that was brought back after another host had taken a name in it.
const SEEDS_OF_THE_PAST: [u64; 5] = [
    1,
    117_661_015_539_712,
    117_662_066_409_476,
    117_663_061_835_797,
    117_664_331_595_776,
];

#[test]
fn seeds_of_the_past_hold() {
    for seed in SEEDS_OF_THE_PAST {
        hold(Scenario::rough(), seed);
    }
}

#[test]
fn three_hundred_hosts_hold() {
    hold(Scenario::large(), 1);
}

#[test]
fn a_coordinator_from_an_old_backup_takes_up_what_its_hosts_remember() {
    hold(Scenario::restored(), 1);
}

#[test]
fn an_authority_changes_its_keys_in_the_middle_of_everything() {
    hold(Scenario::rotated(), 1);
}

#[test]
fn fresh_seeds_hold() {
    let budget = Duration::from_secs(setting("SIM_SECONDS").unwrap_or(60));
    try_fresh_seeds(
        budget,
        &[
            Scenario::rough(),
            Scenario::restored(),
            Scenario::rotated(),
            Scenario::spread(),
        ],
    );
}

#[test]
#[ignore = "long: ten minutes of fresh seeds, or SIM_LONG_SECONDS"]
fn fresh_seeds_hold_for_long() {
    let budget = Duration::from_secs(setting("SIM_LONG_SECONDS").unwrap_or(600));
    let [rough, large, small] = [Scenario::rough(), Scenario::large(), Scenario::small()];
    let [restored, rotated] = [Scenario::restored(), Scenario::rotated()];
    let spread = Scenario::spread();
    try_fresh_seeds(
        budget,
        &[
            rough, small, restored, rotated, spread, rough, small, restored, spread, large,
        ],
    );
}

/// Tries seeds that nobody tried before, in these scenarios by turns, and tells how fast time passed
/// in them. Begins none that would not end in time, going by those before.
fn try_fresh_seeds(budget: Duration, scenarios: &[Scenario]) {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let first = since_epoch.expect("it is later than 1970").as_secs() << 16;
    let started = Instant::now();
    let (mut host_time, mut longest) = (Duration::ZERO, Duration::ZERO);
    for (seed, scenario) in (first..).zip(scenarios.iter().cycle()) {
        let began = Instant::now();
        host_time += hold(*scenario, seed).host_time;
        longest = longest.max(began.elapsed());
        if started.elapsed() + longest > budget {
            break;
        }
    }
    let minutes = started.elapsed().as_secs_f64() / 60.0;
    let host_hours = host_time.as_secs_f64() / 3600.0;
    println!("{:.0} simulated host-hours a minute", host_hours / minutes);
}

/// Runs a seed and tells what happened.
fn hold(scenario: Scenario, seed: u64) -> Summary {
    match run(scenario, seed) {
        Ok(summary) => {
            println!("{summary}");
            summary
        }
        Err(failure) => panic!("{failure}"),
    }
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number")),
    )
}
