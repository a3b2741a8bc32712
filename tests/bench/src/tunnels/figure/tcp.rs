//! TCP streams from the left machine to the right one, by `iperf3`.

use std::net::IpAddr;
use std::time::Duration;

use lab::{LabError, Process};
use serde_json::Value;

use crate::tunnels::ground::Ground;

/// Goes before the seconds that count: the congestion window opens.
pub(super) const WARM_UP_SECS: u32 = 1;
const DEADLINE: Duration = Duration::from_secs(20);

/// What came of some streams together.
#[derive(Debug, PartialEq)]
pub(super) struct Streams {
    /// In the seconds that count.
    pub(super) gigabits_per_sec: f64,
    /// With what went before them.
    pub(super) gigabytes_in_all: f64,
}

/// Measures so many streams at once.
pub(super) fn streams(
    ground: &Ground,
    target: IpAddr,
    count: u32,
    seconds: u32,
) -> Result<Streams, LabError> {
    let mut server = serve(ground)?;
    let report = ground
        .left
        .namespace
        .launch("iperf3")
        .args(["--json", "-c", &target.to_string()])
        .args(["-P", &count.to_string()])
        .args(["-t", &seconds.to_string(), "-O", &WARM_UP_SECS.to_string()])
        .within(DEADLINE + Duration::from_secs(seconds.into()))
        .run()?
        .json()?;
    server.wait(DEADLINE)?;
    read_report(&report).ok_or_else(|| LabError::new(format!("iperf3 reported {report}")))
}

/// A stream that takes all that it gets; it ends when this is dropped.
pub(super) struct Load {
    _client: Process,
    _server: Process,
}

impl Load {
    pub(super) fn start(ground: &Ground, target: IpAddr, seconds: u32) -> Result<Self, LabError> {
        let server = serve(ground)?;
        let client = ground
            .left
            .namespace
            .launch("iperf3")
            .args(["-c", &target.to_string(), "-t", &seconds.to_string()])
            .spawn("iperf3-client")?;
        Ok(Self {
            _client: client,
            _server: server,
        })
    }
}

fn serve(ground: &Ground) -> Result<Process, LabError> {
    let server = ground.right.namespace.launch("iperf3");
    let mut server = server.args(["-s", "-1", "--forceflush"]).spawn("iperf3")?;
    server.wait_for_line("Server listening", DEADLINE)?;
    Ok(server)
}

fn read_report(report: &Value) -> Option<Streams> {
    let received = &report["end"]["sum_received"]["bits_per_second"];
    let intervals = report["intervals"].as_array()?;
    let bytes: f64 = intervals
        .iter()
        .filter_map(|interval| interval["sum"]["bytes"].as_f64())
        .sum();
    Some(Streams {
        gigabits_per_sec: received.as_f64()? / 1e9,
        gigabytes_in_all: bytes / 1e9,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bytes_of_the_warm_up_count_for_the_daemons_but_not_for_the_speed() {
        let report = json!({
            "intervals": [
                { "sum": { "bytes": 1e9, "omitted": true } },
                { "sum": { "bytes": 2e9, "omitted": false } },
            ],
            "end": { "sum_received": { "bits_per_second": 16e9 } },
        });
        let stream = read_report(&report).unwrap();
        assert_eq!(stream.gigabits_per_sec, 16.0);
        assert_eq!(stream.gigabytes_in_all, 3.0);
    }

    #[test]
    fn a_report_of_an_error_is_no_stream() {
        assert_eq!(read_report(&json!({ "error": "unable to connect" })), None);
    }
}
