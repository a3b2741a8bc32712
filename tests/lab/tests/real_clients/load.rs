//! h2load and wrk: many requests at once, all of which are answered.

use lab::LabError;

use crate::place::Place;
use crate::web::serve_nginx;

#[test]
fn h2load_gets_an_answer_to_every_request() -> Result<(), LabError> {
    let place = Place::start()?;
    let _nginx = serve_nginx(&place)?;
    for (service, port, option) in [("web2", 8081, "-m10"), ("web", 8080, "--h1")] {
        for way in place.ways(service)? {
            let url = format!("http://{}:{port}/small", way.host);
            let load = way.from.launch("h2load");
            let load = load.args(["-n2000", "-c20", option, &url]);
            let said = load.run()?.success()?.stdout;
            let all = "requests: 2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed";
            assert!(said.contains(all), "{url}: {said}");
            assert!(said.contains("status codes: 2000 2xx"), "{url}: {said}");
        }
    }
    Ok(())
}

#[test]
fn wrk_sees_no_error_on_many_connections() -> Result<(), LabError> {
    let place = Place::start()?;
    let _nginx = serve_nginx(&place)?;
    for way in place.ways("web")? {
        let url = format!("http://{}:8080/small", way.host);
        let load = way.from.launch("wrk").args(["-t1", "-c100", "-d2s", &url]);
        let said = load.run()?.success()?.stdout;
        assert!(said.contains("requests in"), "{said}");
        assert!(!said.contains("Socket errors"), "{said}");
        assert!(!said.contains("Non-2xx"), "{said}");
    }
    Ok(())
}
