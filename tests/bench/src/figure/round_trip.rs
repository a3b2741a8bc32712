//! Echo requests from the left machine to the right one.

use std::net::IpAddr;
use std::time::Duration;

use lab::{LabError, wait_until};

use crate::ground::Ground;
use crate::results::median;

const FIRST_DEADLINE: Duration = Duration::from_secs(20);

/// Waits until the target answers: the tunnel stands.
pub(super) fn wait_for_first(ground: &Ground, target: IpAddr) -> Result<(), LabError> {
    wait_until("the right machine answers", FIRST_DEADLINE, || {
        let ping = ground.left.namespace.launch("ping");
        let ran = ping.args(["-c1", "-W1", &target.to_string()]).run()?;
        Ok(ran.status.success().then_some(()))
    })
}

/// Returns the median of fifty round trips, 20 ms apart.
pub(super) fn median_micros(ground: &Ground, target: IpAddr) -> Result<f64, LabError> {
    let target = target.to_string();
    let arguments = ["-c50", "-i0.02", "-W1", &target];
    let said = ground.left.namespace.run("ping", arguments)?.stdout;
    let times = read_micros(&said);
    median(&times).ok_or_else(|| LabError::new(format!("ping printed no times: {said}")))
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
}
