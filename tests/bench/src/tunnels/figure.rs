//! What is measured. One measurement may give several figures; each kind is a file in here.

mod datagrams;
mod round_trip;
mod tcp;

use interop::{Flood, public_key};
use lab::LabError;

use crate::daemons;
use crate::kind::{Kind, Writing};
use crate::tunnels::contender::Joined;
use crate::tunnels::ground::Ground;

/// One number of a contender on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    /// One TCP stream, in Gb/s of payload.
    TcpStream,
    /// Four at once, together.
    TcpStreams,
    /// Processor time of both daemons for the one stream, in seconds for each GB of payload.
    ProcessorTime,
    /// The stream while strangers begin 20,000 handshakes a second, in hundredths of what it is alone.
    FloodedStream,
    /// Resident memory of the larger of the two daemons after the stream, in MiB.
    ResidentMemory,
    /// From the start of the first daemon until an echo request is answered, in ms.
    FirstAnswer,
    /// UDP datagrams of 64 bytes, in thousands a second, of which less than 1 % is lost.
    Datagrams64,
    /// The same of 128 bytes.
    Datagrams128,
    /// The same of 1200 bytes.
    Datagrams1200,
    /// Round trip of an echo request while nothing else moves, in µs.
    IdleRoundTrip,
    /// What 99 of 100 do not take longer than.
    IdleRoundTripP99,
    /// Round trip while one TCP stream takes all that it gets, in µs.
    LoadedRoundTrip,
    /// What 99 of 100 do not take longer than.
    LoadedRoundTripP99,
}

impl Figure {
    /// About streams, and what they cost.
    pub(crate) const OF_STREAMS: [Self; 6] = [
        Self::TcpStream,
        Self::TcpStreams,
        Self::ProcessorTime,
        Self::FloodedStream,
        Self::ResidentMemory,
        Self::FirstAnswer,
    ];
    /// About single packets, and how long they take.
    pub(crate) const OF_PACKETS: [Self; 7] = [
        Self::Datagrams64,
        Self::Datagrams128,
        Self::Datagrams1200,
        Self::IdleRoundTrip,
        Self::IdleRoundTripP99,
        Self::LoadedRoundTrip,
        Self::LoadedRoundTripP99,
    ];

    /// All of them.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Self::OF_STREAMS.into_iter().chain(Self::OF_PACKETS)
    }
}

impl Kind for Figure {
    fn writing(self) -> Writing {
        let (key, title, decimals) = match self {
            Self::TcpStream => ("tcp-1", "TCP, 1 stream (Gb/s)", 2),
            Self::TcpStreams => ("tcp-4", "TCP, 4 streams (Gb/s)", 2),
            Self::ProcessorTime => ("cpu", "daemons' CPU (s/GB)", 2),
            Self::FloodedStream => ("flood", "of 1 stream in a handshake flood (%)", 0),
            Self::ResidentMemory => ("memory", "resident (MiB)", 1),
            Self::FirstAnswer => ("start", "start to first answer (ms)", 0),
            Self::Datagrams64 => ("udp-64", "UDP, 64 bytes (1000/s)", 0),
            Self::Datagrams128 => ("udp-128", "UDP, 128 bytes (1000/s)", 0),
            Self::Datagrams1200 => ("udp-1200", "UDP, 1200 bytes (1000/s)", 0),
            Self::IdleRoundTrip => ("rtt-idle", "RTT idle p50 (µs)", 0),
            Self::IdleRoundTripP99 => ("rtt-idle-p99", "p99 (µs)", 0),
            Self::LoadedRoundTrip => ("rtt-loaded", "RTT under load p50 (µs)", 0),
            Self::LoadedRoundTripP99 => ("rtt-loaded-p99", "p99 (µs)", 0),
        };
        Writing {
            key,
            title,
            decimals,
        }
    }
}

/// Who is asked for what, and how long.
#[derive(Clone, Copy)]
pub(crate) struct Trial<'a> {
    pub(crate) ground: &'a Ground,
    pub(crate) joined: &'a Joined,
    /// What is wanted; a measurement that gives one of these gives its others, too.
    pub(crate) wanted: &'a [Figure],
    /// Of each stream.
    pub(crate) seconds: u32,
}

/// Takes the wanted figures of a contender that has joined the machines, into `figures`, so that
/// what was measured before a failure is not lost. Daemons have no figures where there are none.
pub(crate) fn measure(trial: Trial<'_>, figures: &mut Vec<(Figure, f64)>) -> Result<(), LabError> {
    let Trial {
        ground,
        joined,
        wanted,
        seconds,
    } = trial;
    let wants = |some: &[Figure]| some.iter().any(|figure| wanted.contains(figure));
    let target = joined.target;
    round_trip::wait_for_first(ground, target)?;
    if wants(&[Figure::FirstAnswer]) && !joined.daemons().is_empty() {
        let millis = joined.started.elapsed().as_secs_f64() * 1000.0;
        figures.push((Figure::FirstAnswer, millis));
    }
    if wants(&[Figure::IdleRoundTrip, Figure::IdleRoundTripP99]) {
        let times = round_trip::idle(ground, target)?;
        figures.push((Figure::IdleRoundTrip, times.p50_micros));
        figures.push((Figure::IdleRoundTripP99, times.p99_micros));
    }
    let of_stream = [
        Figure::TcpStream,
        Figure::ProcessorTime,
        Figure::ResidentMemory,
        Figure::FloodedStream,
    ];
    if wants(&of_stream) {
        let alone = stream(trial, figures)?;
        if wants(&[Figure::FloodedStream]) {
            flooded_stream(trial, alone, figures)?;
        }
    }
    if wants(&[Figure::TcpStreams]) {
        let four = tcp::streams(ground, target, 4, seconds)?;
        figures.push((Figure::TcpStreams, four.gigabits_per_sec));
    }
    if wants(&[Figure::LoadedRoundTrip, Figure::LoadedRoundTripP99]) {
        let times = round_trip::under_load(ground, target, seconds)?;
        figures.push((Figure::LoadedRoundTrip, times.p50_micros));
        figures.push((Figure::LoadedRoundTripP99, times.p99_micros));
    }
    datagrams_of_each_size(trial, figures)
}

/// Who loses too much of one size may still pass another on.
fn datagrams_of_each_size(
    trial: Trial<'_>,
    figures: &mut Vec<(Figure, f64)>,
) -> Result<(), LabError> {
    let mut outcome = Ok(());
    for (figure, size) in [
        (Figure::Datagrams64, 64),
        (Figure::Datagrams128, 128),
        (Figure::Datagrams1200, 1200),
    ] {
        if !trial.wanted.contains(&figure) {
            continue;
        }
        match datagrams::most_per_sec(trial.ground, trial.joined.target, size) {
            Ok(per_sec) => figures.push((figure, per_sec / 1000.0)),
            Err(error) => outcome = Err(error),
        }
    }
    outcome
}

/// One stream and what it cost; returns its Gb/s.
fn stream(trial: Trial<'_>, figures: &mut Vec<(Figure, f64)>) -> Result<f64, LabError> {
    let daemons = trial.joined.daemons();
    let before = daemons::processor_time(&daemons)?;
    let stream = tcp::streams(trial.ground, trial.joined.target, 1, trial.seconds)?;
    figures.push((Figure::TcpStream, stream.gigabits_per_sec));
    if !daemons.is_empty() {
        let used = daemons::processor_time(&daemons)?.saturating_sub(before);
        let seconds_per_gigabyte = used.as_secs_f64() / stream.gigabytes_in_all;
        figures.push((Figure::ProcessorTime, seconds_per_gigabyte));
        let resident = daemons::largest_resident_bytes(&daemons)?;
        figures.push((Figure::ResidentMemory, resident as f64 / f64::from(1 << 20)));
    }
    Ok(stream.gigabits_per_sec)
}

/// The same stream while strangers shake hands, where somebody takes WireGuard's handshakes.
fn flooded_stream(
    trial: Trial<'_>,
    alone: f64,
    figures: &mut Vec<(Figure, f64)>,
) -> Result<(), LabError> {
    let Some((at, number)) = trial.joined.handshakes else {
        return Ok(());
    };
    let _flood = Flood::start(&trial.ground.left.namespace, public_key(number), at)?;
    let flooded = tcp::streams(trial.ground, trial.joined.target, 1, trial.seconds)?;
    let share = flooded.gigabits_per_sec / alone;
    figures.push((Figure::FloodedStream, share * 100.0));
    Ok(())
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
