//! What is measured of a pair of proxies.

use std::time::Duration;

use lab::{LabError, wait_until};

use crate::daemons;
use crate::kind::{Kind, Writing};
use crate::rounds::Plan;
use crate::services::contender::Standing;
use crate::services::load::{self, Call};

/// Of requests whose time it takes is measured.
pub(super) const TIMED_PER_SEC: u32 = 2_000;

/// Connections of a client that asks as fast as it is answered.
const STEADY_CONNECTIONS: usize = 64;
const SMALL_BYTES: usize = 128;
const MEDIUM_BYTES: usize = 100_000;
const MEDIUM_CONNECTIONS: usize = 8;
const LARGE_BYTES: usize = 100_000_000;
const LARGE_CONNECTIONS: usize = 2;
const FIRST_ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// One number of a contender on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    /// Requests a second.
    Requests,
    /// Processor time of both proxies for 100,000 of them, in seconds.
    ProcessorTime,
    /// What half of the timed requests do not take longer than, in µs.
    P50,
    /// The same of 99 of 100.
    P99,
    /// The same of 999 of 1000.
    P999,
    /// What the proxies add to it.
    AddedP50,
    /// What the proxies add to it.
    AddedP99,
    /// What the proxies add to it.
    AddedP999,
    /// Memory of the larger proxy after its first request, in MiB.
    IdleMemory,
    /// The same with 500 clients' connections.
    Memory500,
    /// The same with 10,000.
    Memory10000,
    /// Bodies of 100 KB, in Gb/s.
    MediumBodies,
    /// Bodies of 100 MB, in Gb/s.
    LargeBodies,
}

impl Figure {
    /// How many, and at what cost.
    pub(super) const OF_REQUESTS: [Self; 2] = [Self::Requests, Self::ProcessorTime];
    /// How long one takes.
    pub(super) const OF_TIME: [Self; 6] = [
        Self::P50,
        Self::P99,
        Self::P999,
        Self::AddedP50,
        Self::AddedP99,
        Self::AddedP999,
    ];
    /// How much is held, and how much is carried.
    pub(super) const OF_SIZE: [Self; 5] = [
        Self::IdleMemory,
        Self::Memory500,
        Self::Memory10000,
        Self::MediumBodies,
        Self::LargeBodies,
    ];

    /// All of them.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        Self::OF_REQUESTS
            .into_iter()
            .chain(Self::OF_TIME)
            .chain(Self::OF_SIZE)
    }
}

impl Kind for Figure {
    fn writing(self) -> Writing {
        let (key, title, decimals) = match self {
            Self::Requests => ("requests", "requests/s", 0),
            Self::ProcessorTime => ("cpu", "proxies' CPU (s/100,000)", 2),
            Self::P50 => ("p50", "p50 (µs)", 0),
            Self::P99 => ("p99", "p99 (µs)", 0),
            Self::P999 => ("p999", "p99.9 (µs)", 0),
            Self::AddedP50 => ("added-p50", "added p50 (µs)", 0),
            Self::AddedP99 => ("added-p99", "added p99 (µs)", 0),
            Self::AddedP999 => ("added-p999", "added p99.9 (µs)", 0),
            Self::IdleMemory => ("memory-idle", "memory idle (MiB)", 1),
            Self::Memory500 => ("memory-500", "with 500 connections (MiB)", 1),
            Self::Memory10000 => ("memory-10000", "with 10,000 (MiB)", 1),
            Self::MediumBodies => ("bodies-100k", "bodies of 100 KB (Gb/s)", 2),
            Self::LargeBodies => ("bodies-100m", "bodies of 100 MB (Gb/s)", 2),
        };
        Writing {
            key,
            title,
            decimals,
        }
    }
}

/// Takes the wanted figures, into `figures`, so that what was measured before a failure is not lost.
pub(super) fn measure(
    standing: &Standing,
    plan: &Plan<Figure>,
    figures: &mut Vec<(Figure, f64)>,
) -> Result<(), LabError> {
    let trial = Trial { standing, plan };
    trial.wait_for_first_answer()?;
    trial.memory(Figure::IdleMemory, 0, figures)?;
    trial.memory(Figure::Memory500, 500, figures)?;
    trial.times(figures)?;
    trial.requests(figures)?;
    trial.bodies(
        Figure::MediumBodies,
        MEDIUM_BYTES,
        MEDIUM_CONNECTIONS,
        figures,
    )?;
    trial.bodies(Figure::LargeBodies, LARGE_BYTES, LARGE_CONNECTIONS, figures)?;
    // Last, because it leaves the largest traces.
    trial.memory(Figure::Memory10000, 10_000, figures)
}

/// A contender that stands, and what is wanted of it.
struct Trial<'a> {
    standing: &'a Standing,
    plan: &'a Plan<Figure>,
}

impl Trial<'_> {
    fn wants(&self, some: &[Figure]) -> bool {
        some.iter().any(|figure| self.plan.figures.contains(figure))
    }

    fn call(&self, bytes: usize) -> Call {
        Call {
            target: self.standing.target,
            bytes,
        }
    }

    fn wait_for_first_answer(&self) -> Result<(), LabError> {
        let mut last: Option<std::io::Error> = None;
        let client = &self.standing.ground.client.namespace;
        let answered = wait_until("the server answers", FIRST_ANSWER_DEADLINE, || {
            let outcome = load::once(client, self.call(SMALL_BYTES))?;
            last = outcome.err();
            Ok(last.is_none().then_some(()))
        });
        let why = last.map_or_else(String::new, |last| last.to_string());
        answered.map_err(|error| LabError::new(format!("{error}: {why}")))
    }

    fn memory(
        &self,
        figure: Figure,
        connections: usize,
        figures: &mut Vec<(Figure, f64)>,
    ) -> Result<(), LabError> {
        let daemons = self.standing.daemons.as_slice();
        if !self.wants(&[figure]) || daemons.is_empty() {
            return Ok(());
        }
        let client = &self.standing.ground.client.namespace;
        let call = self.call(SMALL_BYTES);
        let look = || daemons::largest_proportional_bytes(daemons);
        let bytes = load::while_open(client, call, connections, look)??;
        figures.push((figure, bytes as f64 / f64::from(1 << 20)));
        Ok(())
    }

    /// The same times without and with the proxies, one right after the other on the same machines.
    fn times(&self, figures: &mut Vec<(Figure, f64)>) -> Result<(), LabError> {
        if !self.wants(&Figure::OF_TIME) {
            return Ok(());
        }
        let ground = &self.standing.ground;
        let timed = |target| {
            let call = Call {
                target,
                bytes: SMALL_BYTES,
            };
            load::timed(
                &ground.client.namespace,
                call,
                TIMED_PER_SEC,
                2 * self.plan.seconds,
            )
        };
        let direct = timed(ground.direct())?;
        let through = timed(self.standing.target)?;
        let is_direct = self.standing.daemons.is_empty();
        for (figure, added, of_thousand) in [
            (Figure::P50, Figure::AddedP50, 500),
            (Figure::P99, Figure::AddedP99, 990),
            (Figure::P999, Figure::AddedP999, 999),
        ] {
            let micros = through.micros(of_thousand);
            figures.push((figure, micros));
            if !is_direct {
                figures.push((added, micros - direct.micros(of_thousand)));
            }
        }
        Ok(())
    }

    fn requests(&self, figures: &mut Vec<(Figure, f64)>) -> Result<(), LabError> {
        if !self.wants(&Figure::OF_REQUESTS) {
            return Ok(());
        }
        let daemons = self.standing.daemons.as_slice();
        let before = daemons::processor_time(daemons)?;
        let steady = self.steady(SMALL_BYTES, STEADY_CONNECTIONS)?;
        figures.push((Figure::Requests, steady.requests_per_sec));
        if !daemons.is_empty() {
            let used = daemons::processor_time(daemons)?.saturating_sub(before);
            let per_request = used.as_secs_f64() / steady.requests_in_all as f64;
            figures.push((Figure::ProcessorTime, per_request * 1e5));
        }
        Ok(())
    }

    fn bodies(
        &self,
        figure: Figure,
        bytes: usize,
        connections: usize,
        figures: &mut Vec<(Figure, f64)>,
    ) -> Result<(), LabError> {
        if self.wants(&[figure]) {
            let steady = self.steady(bytes, connections)?;
            figures.push((figure, steady.gigabits_per_sec));
        }
        Ok(())
    }

    fn steady(&self, bytes: usize, connections: usize) -> Result<load::Steady, LabError> {
        let client = &self.standing.ground.client.namespace;
        load::steady(client, self.call(bytes), connections, self.plan.seconds)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_figure_has_a_key_of_its_own() {
        let keys: BTreeSet<_> = Figure::all().map(Figure::key).collect();
        assert_eq!(keys.len(), Figure::all().count());
    }
}
