//! Echo requests from the left machine to the right one.

use std::net::IpAddr;
use std::time::Duration;

use lab::{LabError, wait_until};

use super::tcp::{Load, WARM_UP_SECS};
use crate::ground::Ground;

const FIRST_DEADLINE: Duration = Duration::from_secs(20);
/// Between two requests.
const INTERVAL: Duration = Duration::from_millis(5);
const IDLE_COUNT: u32 = 200;

/// What came of many echo requests.
#[derive(Debug, PartialEq)]
pub(super) struct RoundTrips {
    pub(super) p50_micros: f64,
    pub(super) p99_micros: f64,
}

/// Waits until the target answers: the tunnel stands. It is asked every few milliseconds.
pub(super) fn wait_for_first(ground: &Ground, target: IpAddr) -> Result<(), LabError> {
    let target = target.to_string();
    wait_until("the right machine answers", FIRST_DEADLINE, || {
        let ping = ground.left.namespace.launch("ping");
        let ran = ping
            .args(["-n", "-q", "-c1", "-w1", "-i0.005", &target])
            .run()?;
        Ok(ran.status.success().then_some(()))
    })
}

/// Measures while nothing else moves.
pub(super) fn idle(ground: &Ground, target: IpAddr) -> Result<RoundTrips, LabError> {
    let times = ask(ground, target, IDLE_COUNT)?;
    summary(times)
}

/// Measures for so many seconds while a stream takes all that it gets.
pub(super) fn under_load(
    ground: &Ground,
    target: IpAddr,
    seconds: u32,
) -> Result<RoundTrips, LabError> {
    let _load = Load::start(ground, target, WARM_UP_SECS + seconds + 1)?;
    let per_sec = 1000 / INTERVAL.as_millis() as u32;
    let warm_up = (WARM_UP_SECS * per_sec) as usize;
    let times = ask(ground, target, (WARM_UP_SECS + seconds) * per_sec)?;
    let counting = times.get(warm_up..).unwrap_or_default();
    summary(counting.to_vec())
}

/// Asks so many times, and returns the round trips in µs. What is lost is not among them.
fn ask(ground: &Ground, target: IpAddr, count: u32) -> Result<Vec<f64>, LabError> {
    let longest_secs = (INTERVAL * count).as_secs() + 2;
    let ping = ground.left.namespace.launch("ping");
    let ran = ping
        .args(["-n", "-c", &count.to_string()])
        .args(["-i", &INTERVAL.as_secs_f64().to_string()])
        .args(["-w", &longest_secs.to_string(), &target.to_string()])
        .run()?;
    Ok(read_micros(&ran.stdout))
}

fn summary(mut times: Vec<f64>) -> Result<RoundTrips, LabError> {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = (times.len() as f64 * share).ceil() as usize;
        times.get(place.saturating_sub(1)).copied()
    };
    let both = at(0.5).zip(at(0.99));
    let (p50_micros, p99_micros) =
        both.ok_or_else(|| LabError::new("not one echo request was answered"))?;
    Ok(RoundTrips {
        p50_micros,
        p99_micros,
    })
}

/// Reads `time=0.123 ms` from each line.
fn read_micros(said: &str) -> Vec<f64> {
    said.lines()
        .filter_map(|line| line.split_once("time=")?.1.split(' ').next()?.parse().ok())
        .map(|millis: f64| millis * 1000.0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_from_the_lines_that_have_one() {
        let said = "PING 10.0.0.1 (10.0.0.1) 56(84) bytes of data.\n\
                    64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time=0.250 ms\n\
                    64 bytes from 10.0.0.1: icmp_seq=2 ttl=64 time=1 ms\n\
                    \n--- 10.0.0.1 ping statistics ---\n\
                    2 packets transmitted, 2 received, 0% packet loss, time 1ms\n";
        assert_eq!(read_micros(said), [250.0, 1000.0]);
    }

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let times = (1..=200).rev().map(f64::from).collect();
        let expected = RoundTrips {
            p50_micros: 100.0,
            p99_micros: 198.0,
        };
        assert_eq!(summary(times).unwrap(), expected);
        assert_eq!(summary(vec![7.0]).unwrap().p99_micros, 7.0);
        assert!(summary(Vec::new()).is_err());
    }
}
