//! PostgreSQL through a service of protocol `tcp`: the server speaks first to nobody, the client asks for
//! encryption in a message of its own, and sessions stay open.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use lab::{LabError, Launch, Process, Ran};

use crate::place::{Place, Way, wait_listening};

const PORT: &str = "5432";
const VERSIONS: &str = "/usr/lib/postgresql";
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// Debian's programs of the newest version, of which only the client's are in the PATH.
fn programs() -> PathBuf {
    let versions = fs::read_dir(VERSIONS).expect("PostgreSQL is installed");
    let newest = versions.filter_map(|entry| Some(entry.ok()?.path())).max();
    newest.expect("PostgreSQL has a version").join("bin")
}

fn serve(place: &Place) -> Result<Process, LabError> {
    let data = place.directory("postgresql");
    place
        .server()
        .run("chown", ["postgres", &data.to_string_lossy()])?;
    let as_owner = |program: &str| -> Launch {
        let own = place.server().launch("setpriv");
        let own = own.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        own.arg(programs().join(program)).arg("-D").arg(&data)
    };
    let made = as_owner("initdb").args(["-A", "trust", "-N", "-U", "postgres"]);
    made.run()?.success()?;
    fs::write(data.join("pg_hba.conf"), "host all all 0.0.0.0/0 trust\n").unwrap();
    let server = as_owner("postgres").args(["-c", "listen_addresses=0.0.0.0", "-c", "fsync=off"]);
    let server = server
        .args(["-c", "unix_socket_directories="])
        .spawn("postgres")?;
    wait_listening(place.server(), 5432)?;
    Ok(server)
}

fn client(way: &Way<'_>, program: &str, arguments: &[&str]) -> Result<Ran, LabError> {
    let client = way.from.launch(programs().join(program));
    let client = client.args(["-h", &way.host, "-p", PORT, "-U", "postgres"]);
    client.args(arguments).run()?.success()
}

#[test]
fn postgresql_works_through_a_service_of_bytes() -> Result<(), LabError> {
    let place = Place::start()?;
    let server = serve(&place)?;
    for way in place.ways("store")? {
        let select = |query: &str| client(&way, "psql", &["-Atc", query, "postgres"]);
        assert_eq!(select("select 6 * 7")?.stdout, "42\n");
        let long = select("select repeat('x', 20000000)")?.stdout;
        assert_eq!(long.len(), 20_000_001);
        let slow = select("select pg_sleep(1), 'awake'")?.stdout;
        assert!(slow.contains("awake"), "{slow}");
        client(&way, "pgbench", &["-q", "-i", "-s1", "postgres"])?;
        let ran = client(&way, "pgbench", &["-n", "-c8", "-j2", "-t50", "postgres"])?;
        let all = "number of transactions actually processed: 400/400";
        assert!(ran.stdout.contains(all), "{}", ran.stdout);
        // A new connection for every transaction.
        let ran = client(
            &way,
            "pgbench",
            &["-n", "-C", "-S", "-c4", "-t25", "postgres"],
        )?;
        let all = "number of transactions actually processed: 100/100";
        assert!(ran.stdout.contains(all), "{}", ran.stdout);
    }
    assert!(server.terminate(STOP_DEADLINE)?.success());
    Ok(())
}
