//! How many UDP datagrams a second get through when less than one in a hundred may be lost: the rate is
//! searched for, because a sender at full speed takes the processor from those that are to forward.

use std::net::IpAddr;
use std::time::Duration;

use lab::LabError;

use crate::tunnels::ground::Ground;
use crate::tunnels::stream::{Passed, Stream};

/// How long one rate is tried.
const TRIAL: Duration = Duration::from_millis(300);
/// Each halves the search, on a logarithmic scale.
const STEPS: u32 = 6;
const LOST_SHARE_MAX: f64 = 0.01;

/// Searches, and returns how many arrived each second at the best rate.
pub(super) fn most_per_sec(ground: &Ground, target: IpAddr, size: usize) -> Result<f64, LabError> {
    let mut stream = Stream::open(ground, target, size)?;
    search(|rate| stream.send(rate, TRIAL))
}

/// Tries rates; at `None` as fast as it goes.
fn search(mut trial: impl FnMut(Option<f64>) -> Result<Passed, LabError>) -> Result<f64, LabError> {
    let flat_out = trial(None)?;
    if is_good(&flat_out) {
        return Ok(flat_out.arrived_per_sec());
    }
    // With the processors to itself, the tunnel passes on more than in that throng, but not more than
    // was sent. Below a sixteenth of what arrived nobody was seen.
    let mut high = flat_out.offered_per_sec();
    let mut low = (flat_out.arrived_per_sec() / 16.0).max(1000.0);
    let mut best = None;
    for _ in 0..STEPS {
        let rate = (low * high).sqrt();
        let mut passed = trial(Some(rate))?;
        if !is_good(&passed) {
            // A stranger may have had the processor: each rate has two chances.
            passed = trial(Some(rate))?;
        }
        if is_good(&passed) {
            best = Some(passed.arrived_per_sec());
            low = rate;
        } else {
            high = rate;
        }
    }
    best.ok_or_else(|| {
        LabError::new(format!(
            "more than 1 % of datagrams is lost even at {high:.0} a second"
        ))
    })
}

fn is_good(passed: &Passed) -> bool {
    passed.lost_share() < LOST_SHARE_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What passes takes at most `limit` a second and loses the rest; at full speed it is offered four
    /// times as much, and passes on a half.
    fn tunnel(limit: f64) -> impl FnMut(Option<f64>) -> Result<Passed, LabError> {
        move |rate| {
            let (offered, arrived) = match rate {
                Some(rate) => (rate, rate.min(limit)),
                None => (limit * 4.0, limit / 2.0),
            };
            Ok(Passed {
                offered: offered as u64,
                arrived: arrived as u64,
                took: Duration::from_secs(1),
            })
        }
    }

    #[test]
    fn the_search_ends_a_little_below_the_limit() {
        let found = search(tunnel(300_000.0)).unwrap();
        assert!((270_000.0..303_000.0).contains(&found), "{found}");
    }

    #[test]
    fn who_loses_nothing_at_full_speed_is_asked_no_more() {
        let mut asked = 0;
        let found = search(|_| {
            asked += 1;
            Ok(Passed {
                offered: 1000,
                arrived: 1000,
                took: Duration::from_secs(1),
            })
        });
        assert_eq!((found.unwrap(), asked), (1000.0, 1));
    }

    #[test]
    fn who_loses_always_has_no_figure() {
        let loses = |_| {
            Ok(Passed {
                offered: 1000,
                arrived: 900,
                took: Duration::from_secs(1),
            })
        };
        assert!(search(loses).is_err());
    }
}
