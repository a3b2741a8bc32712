//! How long a call was at what. Each host measures by its own clock, and the destination tells the
//! source how long its part took: times of two hosts are never compared.

use std::cell::Cell;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use model::time::Instant;
use runtime::clock::Clock;

use crate::marks;

/// A part of a call's time. A call that ended in one had it until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// At the source, until it was decided and an endpoint had room for it: back-off and attempts that
    /// came to nothing are in it.
    Queue,
    /// Until there was a session with the endpoint's host.
    Connect,
    /// From one host to the other and back.
    Tunnel,
    /// At the destination, until it was decided and a program had been connected.
    ServerQueue,
    /// From then to the head of the program's answer.
    FirstByte,
    /// From then to its end.
    Body,
}

impl Stage {
    /// All of them, in their order.
    pub const ALL: [Self; 6] = [
        Self::Queue,
        Self::Connect,
        Self::Tunnel,
        Self::ServerQueue,
        Self::FirstByte,
        Self::Body,
    ];

    /// Returns the name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Connect => "connect",
            Self::Tunnel => "tunnel",
            Self::ServerQueue => "server_queue",
            Self::FirstByte => "first_byte",
            Self::Body => "body",
        }
    }
}

/// How long a call was in each stage. What it did not come to has no time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    took: [Option<Duration>; Stage::ALL.len()],
    /// With the other host, which did not say for what.
    untold: Duration,
}

impl Stages {
    /// Returns how long it was in a stage, if it came to it and that is known.
    pub const fn of(&self, stage: Stage) -> Option<Duration> {
        self.took[stage as usize]
    }

    /// Returns the same, with the time of one stage.
    #[must_use]
    pub const fn with(mut self, stage: Stage, took: Duration) -> Self {
        self.took[stage as usize] = Some(took);
        self
    }

    /// Returns how long it was with its endpoint until the head of the answer.
    pub fn answer(&self) -> Duration {
        let stages = [
            Stage::Connect,
            Stage::Tunnel,
            Stage::ServerQueue,
            Stage::FirstByte,
        ];
        let told = stages.into_iter().filter_map(|stage| self.of(stage));
        told.sum::<Duration>() + self.untold
    }

    /// Returns how long its caller waited for the head of the answer.
    pub fn to_answer(&self) -> Duration {
        self.of(Stage::Queue).unwrap_or_default() + self.answer()
    }

    /// Returns how long it took, all in all.
    pub fn whole(&self) -> Duration {
        self.to_answer() + self.of(Stage::Body).unwrap_or_default()
    }

    /// Adds what was between a session and the answer, by what the other host says of it.
    #[must_use]
    pub(crate) fn with_far(self, took: Duration, told: Option<Told>) -> Self {
        let Some(told) = told else {
            return Self {
                untold: took,
                ..self
            };
        };
        // It cannot have had it for longer than it was away.
        let first_byte = told.first_byte.map(|it| it.min(took));
        let left = took - first_byte.unwrap_or_default();
        let server_queue = told.server_queue.min(left);
        let stages = self
            .with(Stage::Tunnel, left - server_queue)
            .with(Stage::ServerQueue, server_queue);
        match first_byte {
            Some(first_byte) => stages.with(Stage::FirstByte, first_byte),
            None => stages,
        }
    }

    /// Adds what a host did of its own: when it began with the call, when its program had been
    /// connected, and when that had answered.
    #[must_use]
    pub(crate) fn with_near(
        self,
        began: Instant,
        handed: Option<Instant>,
        answered: Instant,
    ) -> Self {
        let Some(handed) = handed else {
            return self.with(Stage::ServerQueue, answered - began);
        };
        self.with(Stage::ServerQueue, handed - began)
            .with(Stage::FirstByte, answered - handed)
    }
}

/// What a destination tells of its part: `SERVER_QUEUE,FIRST_BYTE` in microseconds, the second only if
/// a program was asked something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    server_queue: Duration,
    first_byte: Option<Duration>,
}

impl Told {
    /// Tells of so long a part, as far as it has come.
    pub(crate) fn of(stages: &Stages) -> Self {
        Self {
            server_queue: stages.of(Stage::ServerQueue).unwrap_or_default(),
            first_byte: stages.of(Stage::FirstByte),
        }
    }

    /// Writes it to the head of an answer.
    pub(crate) fn write(self, headers: &mut HeaderMap) {
        // Two numbers of ten digits at most, and a comma.
        let mut text = [0; 21];
        let mut end = write_micros(&mut text, 0, self.server_queue);
        if let Some(first_byte) = self.first_byte {
            text[end] = b',';
            end = write_micros(&mut text, end + 1, first_byte);
        }
        let mut value =
            HeaderValue::from_bytes(&text[..end]).expect("digits may stand in a header");
        // No two are alike: they are to push nothing out of the tables of HTTP/2.
        value.set_sensitive(true);
        headers.insert(marks::TIMING, value);
    }

    /// Takes it off the head of an answer. Daemons of before do not tell.
    pub(crate) fn take(headers: &mut HeaderMap) -> Option<Self> {
        let value = headers.remove(marks::TIMING)?;
        let text = value.to_str().ok()?;
        let (server_queue, first_byte) = match text.split_once(',') {
            Some((server_queue, first_byte)) => (server_queue, Some(first_byte)),
            None => (text, None),
        };
        let micros = |text: &str| text.parse().ok().map(u32::into).map(Duration::from_micros);
        Some(Self {
            server_queue: micros(server_queue)?,
            first_byte: match first_byte {
                Some(text) => Some(micros(text)?),
                None => None,
            },
        })
    }
}

/// Writes microseconds, an hour at most, and returns where they end.
fn write_micros(text: &mut [u8; 21], start: usize, took: Duration) -> usize {
    let mut left = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
    let digits = left.checked_ilog10().unwrap_or(0) as usize + 1;
    for digit in text[start..start + digits].iter_mut().rev() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
    }
    start + digits
}

/// When a call came to something; the last time counts.
#[derive(Debug)]
pub(crate) struct Milestone {
    clock: Clock,
    at: Cell<Option<Instant>>,
}

impl Milestone {
    /// It has not come to it yet.
    pub(crate) const fn ahead(clock: Clock) -> Self {
        Self {
            clock,
            at: Cell::new(None),
        }
    }

    /// It has come to it.
    pub(crate) fn reach(&self) {
        self.at.set(Some(self.clock.monotonic()));
    }

    /// It is to come to it anew.
    pub(crate) fn forget(&self) {
        self.at.set(None);
    }

    /// Returns when that was.
    pub(crate) const fn at(&self) -> Option<Instant> {
        self.at.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn what_a_destination_tells_is_read_and_taken_off() {
        for (server_queue, first_byte, text) in [
            (0, None, "0"),
            (120, Some(0), "120,0"),
            (10, Some(999_999), "10,999999"),
            (u64::MAX, Some(u64::MAX), "4294967295,4294967295"),
        ] {
            let told = Told {
                server_queue: micros(server_queue),
                first_byte: first_byte.map(micros),
            };
            let mut headers = HeaderMap::new();
            told.write(&mut headers);
            assert_eq!(headers["mesh-timing"], text);
            let most = |took: Duration| took.min(micros(u32::MAX.into()));
            let read = Told {
                server_queue: most(told.server_queue),
                first_byte: told.first_byte.map(most),
            };
            assert_eq!(Told::take(&mut headers), Some(read));
            assert!(headers.is_empty());
        }
    }

    #[test]
    fn what_cannot_be_read_tells_nothing_and_is_taken_off() {
        for bad in ["", "a", "1,", ",1", "-1", "1,2,3", "4294967296"] {
            let mut headers = HeaderMap::new();
            headers.insert(marks::TIMING, HeaderValue::from_static(bad));
            assert_eq!(Told::take(&mut headers), None, "{bad}");
            assert!(headers.is_empty());
        }
    }

    #[test]
    fn the_stages_of_a_call_are_all_of_its_time() {
        let told = |server_queue, first_byte| {
            Some(Told {
                server_queue: micros(server_queue),
                first_byte: Some(micros(first_byte)),
            })
        };
        let sent = Stages::default()
            .with(Stage::Queue, micros(7))
            .with(Stage::Connect, micros(5));
        // The last two say more than there was: nobody's clock runs like another's.
        for told in [None, told(10, 60), told(0, 200), told(90, 90)] {
            let stages = sent
                .with_far(micros(100), told)
                .with(Stage::Body, micros(3));
            assert_eq!(stages.answer(), micros(105), "{told:?}");
            assert_eq!(stages.whole(), micros(115));
        }
        let stages = sent.with_far(micros(100), told(10, 60));
        let parts = Stage::ALL.map(|stage| stages.of(stage).map(|took| took.as_micros()));
        assert_eq!(
            parts,
            [Some(7), Some(5), Some(30), Some(10), Some(60), None]
        );
    }

    #[test]
    fn a_program_that_was_never_connected_has_no_time() {
        let at = |micros_| Instant::default() + micros(micros_);
        let stages = Stages::default().with_near(at(10), None, at(40));
        assert_eq!(stages.of(Stage::ServerQueue), Some(micros(30)));
        assert_eq!(stages.of(Stage::FirstByte), None);
        let stages = Stages::default().with_near(at(10), Some(at(15)), at(40));
        assert_eq!(stages.of(Stage::ServerQueue), Some(micros(5)));
        assert_eq!(stages.of(Stage::FirstByte), Some(micros(25)));
    }
}
