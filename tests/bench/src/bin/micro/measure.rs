//! Processor time for one of many, as a median.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Rounds, of which the median counts.
const ROUNDS: usize = 5;
/// What a round takes at least.
const ROUND: Duration = Duration::from_millis(200);

/// Nanoseconds for one of something.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub(crate) struct Each(f64);

impl Each {
    pub(crate) fn new(took: Duration, count: usize) -> Self {
        Self(took.as_secs_f64() * 1e9 / count as f64)
    }

    pub(crate) fn per_second(self) -> f64 {
        1e9 / self.0
    }

    /// Returns how many of `other` this one costs.
    pub(crate) fn ratio(self, other: Self) -> f64 {
        self.0 / other.0
    }

    pub(crate) fn nanoseconds(self) -> f64 {
        self.0
    }

    /// Returns this for a person: three digits and a unit.
    pub(crate) fn shown(self) -> String {
        match self.0 {
            nanoseconds if nanoseconds < 1e3 => format!("{nanoseconds:.1} ns"),
            nanoseconds if nanoseconds < 1e6 => format!("{:.2} µs", nanoseconds / 1e3),
            nanoseconds => format!("{:.2} ms", nanoseconds / 1e6),
        }
    }
}

/// Measures `work`, which does `count` of something.
pub(crate) fn each(count: usize, mut work: impl FnMut()) -> Each {
    work();
    median(|| {
        let (began, start) = (Instant::now(), processor_time());
        let mut times = 0;
        while began.elapsed() < ROUND {
            work();
            times += 1;
        }
        Each::new(processor_time() - start, count * times)
    })
}

/// The same where each time something must be made before, which does not count; nor does it to
/// drop what `work` returns.
pub(crate) fn each_after<T, R>(
    count: usize,
    mut make: impl FnMut() -> T,
    mut work: impl FnMut(T) -> R,
) -> Each {
    work(make());
    median(|| {
        let began = Instant::now();
        let (mut took, mut times) = (Duration::ZERO, 0);
        while began.elapsed() < ROUND {
            let made = make();
            let start = processor_time();
            let done = work(made);
            took += processor_time() - start;
            times += 1;
            drop(done);
        }
        Each::new(took, count * times)
    })
}

fn median(mut round: impl FnMut() -> Each) -> Each {
    let mut rounds: [Each; ROUNDS] = std::array::from_fn(|_| round());
    rounds.sort_by(|one, other| one.partial_cmp(other).expect("times are numbers"));
    rounds[ROUNDS / 2]
}

/// Measures work that is done once.
pub(crate) fn once<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = processor_time();
    let done = std::hint::black_box(work());
    (done, processor_time() - start)
}

/// Returns the processor time of this thread: others on the machine take none of it.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("it counts from zero")
}

/// Returns a large number for a person.
pub(crate) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut shown = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}
