//! Who is believed at the TLS port, at both ends of it.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::routing::get;
use axum::{Extension, Json, Router};
use model::ids::Digest;
use model::key::Secret;
use model::name::Name;
use model::time::UnixTime;
use runtime::api_client::ApiClient;
use runtime::clock::unix_now;
use runtime::tls::{self, ServerIdentity};
use runtime::tls_server::{Connection, TlsServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;
use trust::authority::{COORDINATOR_CERTIFICATE_LIFETIME, HOST_CERTIFICATE_LIFETIME};
use trust::enrolment::TlsKey;
use trust::{Authority, AuthoritySeeds, CoordinatorIdentity, HostIdentity};

#[tokio::test]
async fn the_pinned_coordinator_is_believed() {
    let server = Server::start(Fleet::new(1)).await;
    assert_eq!(
        server.ask(tls::pinned_client(server.fleet.pin())).await,
        Ok(None)
    );
}

#[tokio::test]
async fn another_authority_is_not_believed() {
    let server = Server::start(Fleet::new(1)).await;
    let error = tls::connect(
        &[server.at()],
        tls::pinned_client(Digest::from_bytes([9; 32])),
    )
    .await
    .unwrap_err();
    assert!(error.untrusted && !error.clock, "{error}");
    assert!(error.message.contains("another authority"), "{error}");
}

#[tokio::test]
async fn a_certificate_out_of_its_time_names_the_clock() {
    let fleet = Fleet::new(1);
    let long_ago =
        UnixTime::from_secs(unix_now().as_secs() - 2 * COORDINATOR_CERTIFICATE_LIFETIME.as_secs());
    let server = Server::start_since(fleet, long_ago).await;
    let error = tls::connect(&[server.at()], tls::pinned_client(server.fleet.pin()))
        .await
        .unwrap_err();
    assert!(error.untrusted && error.clock, "{error}");
    assert!(error.message.contains("timedatectl"), "{error}");
}

#[tokio::test]
async fn another_program_behind_the_address_is_called_that() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let other = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        // Open until the other end has read it.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let config = tls::pinned_client(Digest::from_bytes([0; 32]));
    let error = tls::connect(&[at], config).await.unwrap_err();
    assert!(
        error.message.contains("is another program on that port"),
        "{error}"
    );
    assert!(!error.untrusted);
    other.await.unwrap();
}

#[tokio::test]
async fn a_name_that_is_none_is_not_taken_for_a_closed_port() {
    // No resolver is asked for a name with an empty label.
    let at = "no..name:7443".to_owned();
    let config = tls::pinned_client(Digest::from_bytes([0; 32]));
    let error = tls::connect(&[at], config).await.unwrap_err();
    assert!(
        error.message.contains("does its name resolve here?"),
        "{error}"
    );
    assert!(!error.message.contains("port"), "{error}");
}

#[tokio::test]
async fn a_host_that_poses_as_coordinator_is_not_believed() {
    let fleet = Fleet::new(1);
    let key = TlsKey::from_seed(Secret::from_bytes([5; 32]));
    let chain = fleet.host_chain(&key, unix_now());
    let server = Server::start_with(fleet, &chain, &key).await;
    let error = tls::connect(&[server.at()], tls::pinned_client(server.fleet.pin()))
        .await
        .unwrap_err();
    assert!(error.untrusted, "{error}");
}

#[tokio::test]
async fn a_member_shows_who_it_is() {
    let server = Server::start(Fleet::new(1)).await;
    let seen = server.ask(server.fleet.member(unix_now())).await;
    assert_eq!(seen, Ok(Some("spiffe://prod/host/vm-1".to_owned())));
}

#[tokio::test]
async fn a_member_whose_certificate_expired_is_still_known() {
    let server = Server::start(Fleet::new(1)).await;
    let long_ago =
        UnixTime::from_secs(unix_now().as_secs() - 2 * HOST_CERTIFICATE_LIFETIME.as_secs());
    let seen = server.ask(server.fleet.member(long_ago)).await;
    assert_eq!(seen, Ok(Some("spiffe://prod/host/vm-1".to_owned())));
}

#[tokio::test]
async fn a_member_whose_certificate_was_issued_ahead_of_time_is_still_known() {
    let server = Server::start(Fleet::new(1)).await;
    let to_come = UnixTime::from_secs(unix_now().as_secs() + 30 * 24 * 3600);
    let seen = server.ask(server.fleet.member(to_come)).await;
    assert_eq!(seen, Ok(Some("spiffe://prod/host/vm-1".to_owned())));
}

#[tokio::test]
async fn a_member_of_another_fleet_is_turned_away() {
    let (server, other) = (Server::start(Fleet::new(1)).await, Fleet::new(2));
    let key = TlsKey::from_seed(Secret::from_bytes([5; 32]));
    let chain = other.host_chain(&key, unix_now());
    let roots = vec![server.fleet.authority.root_certificate().to_vec()];
    let config = tls::member_client(roots, other.name, &chain, key.pkcs8_der().expose()).unwrap();
    assert!(server.ask(config).await.is_err());
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_the_next_client() {
    let fleet = Fleet::new(1);
    let long_ago =
        UnixTime::from_secs(unix_now().as_secs() - 2 * COORDINATOR_CERTIFICATE_LIFETIME.as_secs());
    let server = Server::start_since(fleet, long_ago).await;
    assert!(
        server
            .ask(tls::pinned_client(server.fleet.pin()))
            .await
            .is_err()
    );
    let (chain, key) = server.fleet.coordinator_chain(unix_now());
    server
        .identity
        .replace(&chain, key.pkcs8_der().expose())
        .unwrap();
    assert_eq!(
        server.ask(tls::pinned_client(server.fleet.pin())).await,
        Ok(None)
    );
}

#[tokio::test]
async fn a_certificate_has_few_connections() {
    let server = Server::start(Fleet::new(1)).await;
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(server.visit().await.unwrap());
    }
    server.visit().await.unwrap_err();
    // Also when it was let in: a member needs one.
    open[0].say("/admit").await.unwrap();
    server.visit().await.unwrap_err();
    assert_eq!(
        server.ask(tls::pinned_client(server.fleet.pin())).await,
        Ok(None),
        "others have theirs"
    );
}

#[tokio::test]
async fn a_connection_that_is_over_ends_after_its_answer() {
    let server = Server::start(Fleet::new(1)).await;
    let mut visit = server.visit().await.unwrap();
    let rest = visit.say("/end").await.unwrap();
    assert!(rest.contains("200 OK"), "{rest}");
    assert!(visit.say("/").await.is_err());
}

#[tokio::test]
async fn garbage_and_silence_hold_nobody_up() {
    let server = Server::start(Fleet::new(1)).await;
    let mut garbage = TcpStream::connect(server.address).await.unwrap();
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let _silent = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(
        server.ask(tls::pinned_client(server.fleet.pin())).await,
        Ok(None)
    );
    // A TLS alert and the end, whatever the kernel makes of unread bytes.
    let mut answer = Vec::new();
    let _ = garbage.read_to_end(&mut answer).await;
    assert!(answer.len() < 64, "{answer:?}");
}

#[tokio::test]
async fn stopping_ends_idle_connections_and_frees_the_port() {
    let mut server = Server::start(Fleet::new(1)).await;
    let (mut idle, _) = tls::connect(&[server.at()], tls::pinned_client(server.fleet.pin()))
        .await
        .unwrap();
    server.stop.take().unwrap().send(()).unwrap();
    (&mut server.task).await.unwrap();
    let mut rest = Vec::new();
    let _ = idle.read_to_end(&mut rest).await;
    assert!(TcpStream::connect(server.address).await.is_err());
}

/// An authority with a name.
struct Fleet {
    name: Name,
    authority: Authority,
}

impl Fleet {
    fn new(seed: u8) -> Self {
        let name: Name = "prod".parse().unwrap();
        let secret = |offset| Secret::from_bytes([seed + offset; 32]);
        let seeds = AuthoritySeeds {
            root: secret(10),
            records: secret(20),
            enrolment: secret(30),
        };
        let since = UnixTime::from_secs(unix_now().as_secs() - 365 * 24 * 3600);
        let authority = Authority::create(&name, seeds, since);
        Self { name, authority }
    }

    fn pin(&self) -> Digest {
        self.authority.root_pin()
    }

    fn coordinator_chain(&self, now: UnixTime) -> (Vec<Vec<u8>>, TlsKey) {
        let key = TlsKey::from_seed(Secret::from_bytes([4; 32]));
        let identity = CoordinatorIdentity {
            fleet_name: self.name.clone(),
            coordinator_name: "c1".parse().unwrap(),
            dns_names: vec!["c1.example.com".into()],
            addresses: vec!["127.0.0.1".parse().unwrap()],
        };
        (
            self.authority
                .issue_coordinator(&identity, &key, now, [1; 16])
                .unwrap(),
            key,
        )
    }

    fn host_chain(&self, key: &TlsKey, now: UnixTime) -> Vec<Vec<u8>> {
        let identity = HostIdentity {
            fleet_name: self.name.clone(),
            host_name: "vm-1".parse().unwrap(),
        };
        let request = key.certificate_request(&identity.host_name);
        self.authority
            .issue_host(&identity, &request, now, HOST_CERTIFICATE_LIFETIME, [2; 16])
            .unwrap()
    }

    fn member(&self, now: UnixTime) -> Arc<rustls::ClientConfig> {
        let key = TlsKey::from_seed(Secret::from_bytes([5; 32]));
        let roots = vec![self.authority.root_certificate().to_vec()];
        let chain = self.host_chain(&key, now);
        tls::member_client(roots, self.name.clone(), &chain, key.pkcs8_der().expose()).unwrap()
    }
}

/// A server that answers who asks.
struct Server {
    fleet: Fleet,
    identity: Arc<ServerIdentity>,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(fleet: Fleet) -> Self {
        Self::start_since(fleet, unix_now()).await
    }

    async fn start_since(fleet: Fleet, issued: UnixTime) -> Self {
        let (chain, key) = fleet.coordinator_chain(issued);
        Self::start_with(fleet, &chain, &key).await
    }

    async fn start_with(fleet: Fleet, chain: &[Vec<u8>], key: &TlsKey) -> Self {
        let identity = Arc::new(ServerIdentity::new(chain, key.pkcs8_der().expose()).unwrap());
        let roots = vec![fleet.authority.root_certificate().to_vec()];
        let roots = tls::ClientRoots::new(roots);
        let config = tls::server(Arc::clone(&identity), Arc::clone(&roots));
        let listener = TlsServer::bind("127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        let address = listener.address();
        let router = Router::new()
            .route("/", get(who_asks))
            .route("/admit", get(admit))
            .route("/end", get(end));
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(listener.serve(config, roots, router, async {
            let _ = stopped.await;
        }));
        Self {
            fleet,
            identity,
            address,
            stop: Some(stop),
            task,
        }
    }

    fn at(&self) -> String {
        self.address.to_string()
    }

    /// Connects as a member, and asks once: the server has looked at its certificate.
    async fn visit(&self) -> std::io::Result<Visit> {
        let connected = tls::connect(&[self.at()], self.fleet.member(unix_now())).await;
        let (stream, _) = connected.map_err(std::io::Error::other)?;
        let mut visit = Visit(stream);
        visit.say("/").await?;
        Ok(visit)
    }

    async fn ask(&self, config: Arc<rustls::ClientConfig>) -> Result<Option<String>, String> {
        let client = ApiClient::tls(vec![self.at()], config, "none".into());
        let asked = tokio::time::timeout(Duration::from_secs(60), client.get("/")).await;
        asked
            .expect("a server that answers")
            .map_err(|error| error.to_string())
    }
}

/// A connection of one member, over which it asks several times.
#[derive(Debug)]
struct Visit(TlsStream<TcpStream>);

impl Visit {
    /// Asks for a path; returns the answer as it comes.
    async fn say(&mut self, path: &str) -> std::io::Result<String> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: c1\r\n\r\n");
        self.0.write_all(request.as_bytes()).await?;
        let mut answer = vec![0; 4096];
        let read = self.0.read(&mut answer).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
    }
}

async fn admit(Extension(connection): Extension<Connection>) {
    connection.admit();
}

async fn end(Extension(connection): Extension<Connection>) {
    connection.end();
}

async fn who_asks(Extension(connection): Extension<Connection>) -> Json<Option<String>> {
    assert!(connection.remote.ip().is_loopback());
    Json(connection.certificate.map(|facts| facts.spiffe.to_string()))
}
