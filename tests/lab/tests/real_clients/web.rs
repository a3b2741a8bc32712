//! curl and nginx: versions of HTTP, large bodies both ways, connections used again, denials.

use std::fs;
use std::path::Path;
use std::time::Duration;

use lab::{LabError, Process, Ran};

use crate::place::{Place, Way, wait_listening};

const PORT: u16 = 8080;
const HTTP2_PORT: u16 = 8081;
const PLAIN_PORT: u16 = 8082;
const LARGE_BYTES: usize = 30_000_000;
const STOP_DEADLINE: Duration = Duration::from_secs(10);

const SETTINGS: &str = "\
user root; worker_processes 1; daemon off; pid nginx.pid; error_log stderr;
events { worker_connections 1024; }
http {
    access_log off; keepalive_requests 1000000;
    client_max_body_size 0;
    client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
    server {
        listen 8080; listen 8082; listen 8081 http2;
        root files;
        location = /who { return 200 \"$remote_addr $http_mesh_caller\\n\"; }
        location /admin/ { return 200 \"secret\\n\"; }
        location /files/ { alias files/; dav_methods PUT; create_full_put_path on; }
    }
}
";

/// nginx with a large file, and what is in it.
pub(crate) fn serve_nginx(place: &Place) -> Result<Process, LabError> {
    let directory = place.directory("nginx");
    for name in ["files", "tmp"] {
        fs::create_dir_all(directory.join(name)).unwrap();
    }
    fs::write(directory.join("files/large"), large()).unwrap();
    fs::write(directory.join("files/small"), "0123456789").unwrap();
    fs::write(directory.join("nginx.conf"), SETTINGS).unwrap();
    let nginx = place.server().launch("nginx").in_directory(&directory);
    let mut process = nginx
        .args(["-e", "stderr", "-c", "nginx.conf", "-p"])
        .arg(&directory)
        .spawn("nginx")?;
    wait_listening(place.server(), HTTP2_PORT)?;
    assert!(process.is_running()?);
    Ok(process)
}

/// Bytes of which no part is like another.
fn large() -> Vec<u8> {
    let numbers = 0_u64..(LARGE_BYTES as u64 / 8);
    let mixed = numbers.map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed.flat_map(u64::to_le_bytes).collect()
}

fn curl(way: &Way<'_>, arguments: &[&str]) -> Result<Ran, LabError> {
    let curl = way.from.launch("curl").args(["-sS", "-m", "40"]);
    curl.args(arguments).run()?.success()
}

#[test]
fn curl_fetches_from_nginx_by_every_version_of_http() -> Result<(), LabError> {
    let place = Place::start()?;
    let _nginx = serve_nginx(&place)?;
    for (service, port, option, version) in [
        ("web", PORT, "--http1.1", "1.1"),
        ("web2", HTTP2_PORT, "--http2-prior-knowledge", "2"),
        ("plain", PLAIN_PORT, "--http1.1", "1.1"),
    ] {
        for way in place.ways(service)? {
            let url = format!("http://{}:{port}/large", way.host);
            let file = place.lab.directory().join("fetched");
            let to = file.to_string_lossy().into_owned();
            let said = curl(
                &way,
                &[
                    option,
                    "-o",
                    &to,
                    "-w",
                    "%{http_code} %{http_version}",
                    &url,
                ],
            )?;
            assert_eq!(said.stdout, format!("200 {version}"), "{url}");
            assert!(fs::read(&file).unwrap() == large(), "{url} came changed");
        }
    }
    Ok(())
}

#[test]
fn curl_speaks_http_2_to_an_nginx_that_does_not() -> Result<(), LabError> {
    let place = Place::start()?;
    let _nginx = serve_nginx(&place)?;
    for (service, port) in [("web", PORT), ("plain", PLAIN_PORT)] {
        let [_, way] = place.ways(service)?;
        let speak = |more: &[&str], path: &str| {
            let url = format!("http://{}:{port}/{path}", way.host);
            curl(
                &way,
                &[&["--http2-prior-knowledge"], more, &[&url]].concat(),
            )
        };
        // More than an endpoint may fail.
        for _ in 0..8 {
            let said = speak(&["-w", " %{http_code} %{http_version}"], "small")?;
            assert_eq!(said.stdout, "0123456789 200 2");
        }
        let file = place.lab.directory().join("translated");
        speak(&["-o", &file.to_string_lossy()], "large")?;
        assert!(is_large(&file), "it came changed");
        let grpc = ["-i", "-H", "content-type: application/grpc"];
        for _ in 0..8 {
            let said = speak(&grpc, "small")?.stdout.to_lowercase();
            assert!(said.contains("\ngrpc-status: 12"), "{said}");
            assert!(said.contains("\nmesh-reason: protocol-mismatch"), "{said}");
        }
        assert_eq!(speak(&[], "small")?.stdout, "0123456789");
    }
    Ok(())
}

/// Asks, says that this was all, and prints what comes until the other end has no more to say, either.
const ENDS_ITS_HALF: &str = "\
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=40) as server:
    server.sendall(b'GET /small HTTP/1.1\\r\\nhost: web\\r\\n\\r\\n' * 2)
    server.shutdown(socket.SHUT_WR)
    while part := server.recv(65536):
        sys.stdout.write(part.decode())
";

#[test]
fn who_ends_its_half_of_a_connection_is_answered() -> Result<(), LabError> {
    let place = Place::start()?;
    let _nginx = serve_nginx(&place)?;
    for way in place.ways("web")? {
        let client = way
            .from
            .launch("/usr/bin/python3")
            .args(["-c", ENDS_ITS_HALF]);
        let client = client.args([&way.host, &PORT.to_string()]);
        let said = client.run()?.success()?.stdout;
        assert_eq!(said.matches("HTTP/1.1 200 OK").count(), 2, "{said}");
        assert_eq!(said.matches("0123456789").count(), 2, "{said}");
    }
    Ok(())
}

#[test]
fn curl_stores_a_large_body_that_was_asked_for_first() -> Result<(), LabError> {
    let place = Place::start()?;
    let _nginx = serve_nginx(&place)?;
    let source = place.lab.directory().join("source");
    fs::write(&source, large()).unwrap();
    let stored = place.directory("nginx").join("files/stored");
    for way in place.ways("web")? {
        let url = format!("http://{}:{PORT}/files/stored", way.host);
        for expect in ["Expect: 100-continue", "Transfer-Encoding: chunked"] {
            let _ = fs::remove_file(&stored);
            let from = source.to_string_lossy().into_owned();
            let said = curl(
                &way,
                &["-H", expect, "-T", &from, "-w", "%{http_code}", &url],
            )?;
            assert_eq!(said.stdout, "201", "{expect}");
            assert!(is_large(&stored), "{expect}");
        }
    }
    Ok(())
}

fn is_large(path: &Path) -> bool {
    fs::read(path).unwrap() == large()
}

#[test]
fn heads_ranges_and_connections_are_kept() -> Result<(), LabError> {
    let place = Place::start()?;
    let _nginx = serve_nginx(&place)?;
    for way in place.ways("web")? {
        let url = |path: &str| format!("http://{}:{PORT}/{path}", way.host);
        let head = curl(&way, &["-I", &url("large")])?.stdout.to_lowercase();
        assert!(
            head.contains(&format!("content-length: {LARGE_BYTES}")),
            "{head}"
        );
        assert_eq!(curl(&way, &["-r", "2-4", &url("small")])?.stdout, "234");
        let three = [&url("small"), &url("nothing"), &url("small")];
        let said = curl(
            &way,
            &[
                "-o",
                "/dev/null",
                "-o",
                "/dev/null",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}:%{num_connects} ",
                three[0],
                three[1],
                three[2],
            ],
        )?;
        assert_eq!(said.stdout, "200:1 404:0 200:0 ");
    }
    Ok(())
}

#[test]
fn nginx_sees_who_calls_and_not_who_says_so() -> Result<(), LabError> {
    let place = Place::start()?;
    let _nginx = serve_nginx(&place)?;
    let [_, way] = place.ways("web")?;
    let url = format!("http://{}:{PORT}/who", way.host);
    let said = curl(&way, &["-H", "mesh-caller: spiffe://test/host/root", &url])?.stdout;
    let (v4, _) = place.pair.alpha.overlay_addresses()?;
    let (own, _) = place.pair.beta.overlay_addresses()?;
    let (address, caller) = said.trim().split_once(' ').unwrap_or_default();
    assert!(
        [v4, own].map(|it| it.to_string()).contains(&address.into()),
        "{said}"
    );
    assert!(caller.ends_with("/host/alpha"), "{said}");
    Ok(())
}

#[test]
fn what_the_policy_denies_does_not_reach_nginx_and_says_why() -> Result<(), LabError> {
    let place = Place::start()?;
    let nginx = serve_nginx(&place)?;
    let [_, way] = place.ways("web")?;
    for (method, path, status) in [
        ("GET", "admin/x", "403"),
        ("DELETE", "small", "403"),
        // What nginx would take for the first, and other programs for something else.
        ("GET", "x/../admin/x", "400"),
    ] {
        let url = format!("http://{}:{PORT}/{path}", way.host);
        let asked = ["--path-as-is", "-i", "-X", method, &url];
        let said = curl(&way, &asked)?.stdout.to_lowercase();
        let first = format!("http/1.1 {status} ");
        assert!(said.starts_with(&first), "{method} {path}: {said}");
        assert!(said.contains("\nmesh-call: "), "{said}");
        assert!(!said.contains("secret"), "{said}");
    }
    assert!(nginx.terminate(STOP_DEADLINE)?.success());
    // Nobody is there any more: the mesh says so itself, at once.
    let url = format!("http://{}:{PORT}/small", way.host);
    let said = curl(&way, &["-i", &url])?.stdout.to_lowercase();
    assert!(said.starts_with("http/1.1 503 "), "{said}");
    assert!(said.contains("\nmesh-reason: "), "{said}");
    Ok(())
}
