//! Python's gRPC: calls of all four kinds, deadlines, cancellation, metadata before and after messages.

use std::time::Duration;

use lab::LabError;

use crate::place::{Place, python};

const PORT: u16 = 50051;
const CHECKS: usize = 10;
const CANCELLED_DEADLINE: Duration = Duration::from_secs(10);

#[test]
fn python_grpc_calls_of_every_kind_come_through() -> Result<(), LabError> {
    let place = Place::start()?;
    for way in place.ways("talk")? {
        // A server for each way, which tells whether the end of a call reached it.
        let mut server = place.serve_python("grpc_server.py", PORT)?;
        let client = python(way.from, "grpc_client.py")?.arg(format!("{}:{PORT}", way.host));
        let ran = client.run()?.success()?;
        assert_eq!(ran.stdout.lines().count(), CHECKS, "{}", ran.stdout);
        server.wait_for_line("cancelled", CANCELLED_DEADLINE)?;
    }
    Ok(())
}

#[test]
fn a_grpc_call_that_the_policy_denies_fails_as_grpc_calls_do() -> Result<(), LabError> {
    let place = Place::start()?;
    let _server = place.serve_python("grpc_server.py", PORT)?;
    let [_, way] = place.ways("talk")?;
    let client = python(way.from, "grpc_denied.py")?;
    let ran = client
        .arg(format!("{}:{PORT}", way.host))
        .run()?
        .success()?;
    assert!(ran.stdout.contains("PERMISSION_DENIED"), "{}", ran.stdout);
    Ok(())
}
