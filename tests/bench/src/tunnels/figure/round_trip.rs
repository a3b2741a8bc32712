//! Echo requests from the left machine to the right one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use lab::{LabError, wait_until};

use super::tcp::{Load, WARM_UP_SECS};
use crate::tunnels::ground::Ground;

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
    let times = ask(ground, target, 0, IDLE_COUNT)?;
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
    let times = ask(ground, target, WARM_UP_SECS * per_sec, seconds * per_sec)?;
    summary(times)
}

/// Asks so many times, first without counting, and returns the round trips in µs that count. What
/// is lost is among them with the longest time that `ping` may take for all.
fn ask(ground: &Ground, target: IpAddr, warm_up: u32, counting: u32) -> Result<Vec<f64>, LabError> {
    let count = warm_up + counting;
    let longest_secs = (INTERVAL * count).as_secs() + 2;
    let ping = ground.left.namespace.launch("ping");
    let ran = ping
        .args(["-n", "-c", &count.to_string()])
        .args(["-i", &INTERVAL.as_secs_f64().to_string()])
        .args(["-w", &longest_secs.to_string(), &target.to_string()])
        .run()?;
    let answered = read_answers(&ran.stdout);
    // With a deadline it asks until so many are answered: what it asks beyond does not count.
    let last = read_sent(&ran.stdout)?.min(count);
    let lost_micros = longest_secs as f64 * 1e6;
    Ok(counted(&answered, warm_up + 1..=last, lost_micros))
}

/// Returns a time for each request in the range. Without a single answer there is nothing to tell.
fn counted(
    answered: &BTreeMap<u32, f64>,
    requests: RangeInclusive<u32>,
    lost_micros: f64,
) -> Vec<f64> {
    if !requests.clone().any(|it| answered.contains_key(&it)) {
        return Vec::new();
    }
    let time = |request| answered.get(&request).copied().unwrap_or(lost_micros);
    requests.map(time).collect()
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

/// Reads `icmp_seq=7` and `time=0.123 ms` from each line that has both: the round trip of each
/// request in µs. Of an answer that came twice, the first counts.
fn read_answers(said: &str) -> BTreeMap<u32, f64> {
    let mut answers = BTreeMap::new();
    for line in said.lines() {
        let request = word_behind(line, "icmp_seq=").and_then(|it| it.parse().ok());
        let millis = word_behind(line, "time=").and_then(|it| it.parse::<f64>().ok());
        if let Some((request, millis)) = request.zip(millis) {
            answers.entry(request).or_insert(millis * 1000.0);
        }
    }
    answers
}

/// Reads how many requests were sent from `205 packets transmitted, 200 received`.
fn read_sent(said: &str) -> Result<u32, LabError> {
    let mut counts = said
        .lines()
        .filter_map(|line| line.split_once(" packets transmitted")?.0.parse().ok());
    let sent = counts.next();
    sent.ok_or_else(|| LabError::new("ping does not say how many requests it sent"))
}

fn word_behind<'line>(line: &'line str, name: &str) -> Option<&'line str> {
    line.split_once(name)?.1.split(' ').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_echo_counts_as_the_longest_time() {
        let said = "PING 10.0.0.1 (10.0.0.1) 56(84) bytes of data.\n\
                    64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time=0.250 ms\n\
                    64 bytes from 10.0.0.1: icmp_seq=4 ttl=64 time=1 ms\n\
                    64 bytes from 10.0.0.1: icmp_seq=3 ttl=64 time=0.5 ms\n\
                    64 bytes from 10.0.0.1: icmp_seq=3 ttl=64 time=9 ms (DUP!)\n\
                    \n--- 10.0.0.1 ping statistics ---\n\
                    5 packets transmitted, 3 received, +1 duplicates, 40% packet loss, time 1ms\n";
        let answers = read_answers(said);
        assert_eq!(read_sent(said).unwrap(), 5);
        let all = counted(&answers, 1..=5, 7e6);
        assert_eq!(all, [250.0, 7e6, 500.0, 1000.0, 7e6]);
        let behind_warm_up = counted(&answers, 3..=4, 7e6);
        assert_eq!(behind_warm_up, [500.0, 1000.0]);
        assert!(counted(&answers, 5..=5, 7e6).is_empty(), "no answer at all");
        let sent = 2; // Fewer than were to warm up.
        assert!(counted(&answers, 3..=sent, 7e6).is_empty());
        assert!(read_sent("PING 10.0.0.1").is_err());
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
