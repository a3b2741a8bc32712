//! What happens to a fleet, how a run ends, and how a failure is told so that it can be repeated.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use dataplane::{Limits, ShardConfig};

use crate::event::HostIndex;
use crate::traffic::Counts;
use crate::world::World;

/// What happens to a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// What it is called where a run is to be repeated.
    pub name: &'static str,
    /// Machines.
    pub hosts: u32,
    /// How many of a thousand are members from the beginning; the others join during the faults.
    pub early_per_mille: u32,
    /// How long the fleet has to form.
    pub joining: Duration,
    /// How long things go wrong.
    pub faults: Duration,
    /// How often something goes wrong, on average.
    pub fault_every: Duration,
    /// How often somebody opens a flow, on average.
    pub flow_every: Duration,
    /// How many of a thousand live behind a NAT box.
    pub natted_per_mille: u32,
    /// How many of a thousand messages say more than this version understands.
    pub newer_per_mille: u32,
    /// Sites, each with roles of its own; with more than one, no rule speaks of the whole fleet.
    pub sites: u32,
    /// The coordinator is restored from an old backup at the end.
    pub is_restored: bool,
    /// The fleet's authority is rotated while things go wrong, and its old root retired afterwards.
    pub is_rotated: bool,
    /// Half of the machines have two packet threads, and links differ in what they take at once.
    pub is_spread: bool,
    /// How many others each host tries when everything is right.
    pub probes_per_host: usize,
}

/// Machines behind one NAT box, on average.
const HOSTS_PER_BOX: u32 = 3;

impl Scenario {
    /// Fifty hosts, and everything goes wrong for ten minutes.
    pub const fn rough() -> Self {
        Self {
            name: "rough",
            hosts: 50,
            early_per_mille: 800,
            joining: Duration::from_secs(60),
            faults: Duration::from_secs(600),
            fault_every: Duration::from_secs(4),
            flow_every: Duration::from_millis(250),
            natted_per_mille: 200,
            newer_per_mille: 100,
            sites: 1,
            is_restored: false,
            is_rotated: false,
            is_spread: false,
            probes_per_host: 100,
        }
    }

    /// Three hundred hosts, and everything goes wrong for three minutes.
    pub const fn large() -> Self {
        Self {
            name: "large",
            hosts: 300,
            faults: Duration::from_secs(180),
            fault_every: Duration::from_secs(1),
            flow_every: Duration::from_millis(60),
            sites: 10,
            probes_per_host: 12,
            ..Self::rough()
        }
    }

    /// Ten hosts, and everything goes wrong for two minutes.
    pub const fn small() -> Self {
        Self {
            name: "small",
            hosts: 10,
            faults: Duration::from_secs(120),
            ..Self::rough()
        }
    }

    /// Twenty hosts, two minutes in which everything goes wrong, and a coordinator that is restored
    /// from a backup of before.
    pub const fn restored() -> Self {
        Self {
            name: "restored",
            hosts: 20,
            early_per_mille: 500,
            faults: Duration::from_secs(120),
            is_restored: true,
            ..Self::rough()
        }
    }

    /// Forty hosts, three minutes in which everything goes wrong, and an authority that gets other keys.
    pub const fn rotated() -> Self {
        Self {
            name: "rotated",
            hosts: 40,
            early_per_mille: 700,
            faults: Duration::from_secs(180),
            is_rotated: true,
            ..Self::rough()
        }
    }

    /// Thirty hosts of which half have two packet threads, over links of many sizes, and everything
    /// goes wrong for four minutes.
    pub const fn spread() -> Self {
        Self {
            name: "spread",
            hosts: 30,
            faults: Duration::from_secs(240),
            flow_every: Duration::from_millis(100),
            is_spread: true,
            ..Self::rough()
        }
    }

    /// Fifty hosts, and nothing goes wrong.
    pub const fn quiet() -> Self {
        Self {
            name: "quiet",
            early_per_mille: 1000,
            faults: Duration::ZERO,
            ..Self::rough()
        }
    }

    /// Returns the scenario of a name.
    pub fn named(name: &str) -> Option<Self> {
        let all = [
            Self::rough(),
            Self::large(),
            Self::small(),
            Self::restored(),
            Self::rotated(),
            Self::spread(),
            Self::quiet(),
        ];
        all.into_iter().find(|scenario| scenario.name == name)
    }

    /// Returns how many shards a machine has.
    pub(crate) const fn shards_of(&self, host: HostIndex) -> u16 {
        match self.is_spread && host.0 % 4 < 2 {
            true => 2,
            false => 1,
        }
    }

    /// Returns how one of them is set. Where there are two, any traffic is worth a lane.
    pub(crate) fn shard_config(&self, host: HostIndex, number: u16) -> ShardConfig {
        let count = self.shards_of(host);
        if count == 1 {
            return ShardConfig::default();
        }
        ShardConfig {
            place: dataplane::Place::new(number, count),
            limits: Limits {
                lane_bytes_per_sec: 1,
                lane_bytes_kept: 1,
                ..Limits::default()
            },
            ..ShardConfig::default()
        }
    }

    pub(crate) const fn nat_boxes(&self) -> u32 {
        (self.hosts * self.natted_per_mille).div_ceil(1000 * HOSTS_PER_BOX)
    }
}

/// What happened in a run in which every invariant held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The seed.
    pub seed: u64,
    /// A hash over everything that happened.
    pub trace: u64,
    /// How much was noted.
    pub notes: u64,
    /// Virtual time that passed.
    pub elapsed: Duration,
    /// Virtual time that passed, times hosts.
    pub host_time: Duration,
    /// Flows and packets.
    pub traffic: Counts,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            opened,
            answered,
            refused,
            delivered,
        } = self.traffic;
        write!(
            f,
            "seed {}: {:.1} host-hours, {} events, {opened} flows ({answered} answered, {refused} \
             refused), {delivered} packets delivered, trace {:016x}",
            self.seed,
            self.host_time.as_secs_f64() / 3600.0,
            self.notes,
            self.trace
        )
    }
}

/// A run in which an invariant did not hold, or something panicked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    scenario: &'static str,
    seed: u64,
    what: String,
    last: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            scenario,
            seed,
            what,
            last,
        } = self;
        write!(
            f,
            "seed {seed} of `{scenario}` fails: {what}\n\nThe last of it:\n{last}\nTo repeat it:\n  \
             SIM_SCENARIO={scenario} SIM_SEED={seed} cargo test -p sim --test fleet -- one_seed --nocapture\n"
        )
    }
}

impl std::error::Error for Failure {}

/// Runs a scenario from a seed to its end.
///
/// # Errors
/// An invariant did not hold, or something panicked; the failure says how to repeat it.
pub fn run(scenario: Scenario, seed: u64) -> Result<Summary, Box<Failure>> {
    let mut world = World::new(scenario, seed);
    let ended = catch_unwind(AssertUnwindSafe(|| while world.step() {}));
    let what = match (ended, &world.violation) {
        (Err(panic), _) => Some(format!("panic: {}", panic_text(panic.as_ref()))),
        (Ok(()), Some(violation)) => Some(format!(
            "\"{}\" does not hold\n  {}",
            violation.rule, violation.detail
        )),
        (Ok(()), None) => None,
    };
    let elapsed = world.now.since_start();
    match what {
        Some(what) => {
            let last = world.trace.last_lines(&what);
            Err(Box::new(Failure {
                scenario: scenario.name,
                seed,
                what,
                last,
            }))
        }
        None => Ok(Summary {
            seed,
            trace: world.trace.hash(),
            notes: world.trace.notes(),
            elapsed,
            host_time: elapsed * scenario.hosts,
            traffic: world.traffic.counts,
        }),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without words")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_seed_what_broke_and_the_command_that_repeats_it() {
        let failure = Failure {
            scenario: "rough",
            seed: 77,
            what: "\"no brain spins\" does not hold".to_owned(),
            last: "  t+1s vm-3: starts\n".to_owned(),
        };
        let told = failure.to_string();
        for part in [
            "seed 77",
            "no brain spins",
            "vm-3: starts",
            "SIM_SCENARIO=rough SIM_SEED=77 cargo test -p sim",
        ] {
            assert!(told.contains(part), "{told}");
        }
    }
}
