//! What is measured. One measurement may give several figures; each kind is a file in here.

mod daemons;
mod round_trip;
mod tcp;

use interop::{Flood, public_key};
use lab::LabError;

use crate::contender::Joined;
use crate::ground::Ground;

/// One number of a contender on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    /// One TCP stream, in Gb/s of payload.
    TcpStream,
    /// The same while strangers begin 20,000 handshakes a second, in hundredths of what it is alone.
    FloodedStream,
    /// Processor time of both daemons for that stream, in seconds for each GB of payload.
    ProcessorTime,
    /// Round trip of an echo request while nothing else moves, in µs.
    IdleRoundTrip,
    /// Resident memory of the larger of the two daemons after the stream, in MiB.
    ResidentMemory,
}

impl Figure {
    /// In the order of the table's columns.
    pub(crate) const ALL: [Self; 5] = [
        Self::TcpStream,
        Self::FloodedStream,
        Self::ProcessorTime,
        Self::IdleRoundTrip,
        Self::ResidentMemory,
    ];

    /// The head of its column.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::TcpStream => "TCP, 1 stream (Gb/s)",
            Self::FloodedStream => "of it in a handshake flood (%)",
            Self::ProcessorTime => "daemons' CPU (s/GB)",
            Self::IdleRoundTrip => "RTT idle p50 (µs)",
            Self::ResidentMemory => "resident (MiB)",
        }
    }

    /// Digits behind the point that mean something.
    pub(crate) fn decimals(self) -> usize {
        match self {
            Self::TcpStream | Self::ProcessorTime => 2,
            Self::IdleRoundTrip | Self::FloodedStream => 0,
            Self::ResidentMemory => 1,
        }
    }
}

/// Takes every figure of a contender that has joined the machines. Daemons have no figures where
/// there are none.
pub(crate) fn measure(
    ground: &Ground,
    joined: &Joined,
    seconds: u32,
) -> Result<Vec<(Figure, f64)>, LabError> {
    round_trip::wait_for_first(ground, joined.target)?;
    let mut figures = vec![(
        Figure::IdleRoundTrip,
        round_trip::median_micros(ground, joined.target)?,
    )];
    let daemons = joined.daemons();
    let before = daemons::processor_time(&daemons)?;
    let stream = tcp::stream(ground, joined.target, seconds)?;
    figures.push((Figure::TcpStream, stream.gigabits_per_sec));
    if !daemons.is_empty() {
        let used = daemons::processor_time(&daemons)?.saturating_sub(before);
        let seconds_per_gigabyte = used.as_secs_f64() / stream.gigabytes_in_all;
        figures.push((Figure::ProcessorTime, seconds_per_gigabyte));
        let resident = daemons::largest_resident_bytes(&daemons)?;
        figures.push((Figure::ResidentMemory, resident as f64 / f64::from(1 << 20)));
    }
    if let Some((at, number)) = joined.handshakes {
        let _flood = Flood::start(&ground.left.namespace, public_key(number), at)?;
        let flooded = tcp::stream(ground, joined.target, seconds)?;
        let share = flooded.gigabits_per_sec / stream.gigabits_per_sec;
        figures.push((Figure::FloodedStream, share * 100.0));
    }
    Ok(figures)
}
