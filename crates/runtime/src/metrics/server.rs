//! The port at which metrics are asked for. It answers one question a connection, has few places and
//! little patience, and never keeps the daemon from starting: an address that cannot be had is tried
//! again, since the one of the overlay comes later, and a former daemon may hold it for a moment.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::listen::MetricsListen;
use super::page::Format;
use super::trouble::Trouble;

/// Connections at one time; one more takes the place of the oldest, so that who holds places without
/// asking keeps nobody out.
const CONNECTIONS_MAX: usize = 16;
/// How long a connection lives, whoever is slow.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(10);
/// How long the daemon may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of the head of a request; the least that hyper takes.
const HEAD_BYTES_MAX: usize = 8192;
/// How often an address that cannot be had is tried again.
const BIND_INTERVAL: Duration = Duration::from_secs(1);
/// How many times it is tried before the log tells: a daemon that hands over has gone by then.
const BIND_QUIETLY: u32 = 5;
/// How long nothing is accepted after the kernel was out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who writes pages. `None`: the daemon is stopping.
pub trait Source: Clone + Send + Sync + 'static {
    /// Writes a page of how it is now.
    fn page(&self, format: Format) -> impl Future<Output = Option<String>> + Send;
}

/// Answers where the setting says, until the future is dropped. While it cannot, `trouble` says why.
pub async fn serve<S: Source>(
    mut setting: watch::Receiver<MetricsListen>,
    source: S,
    trouble: Trouble,
) {
    let router = Router::new()
        .route("/metrics", get(show::<S>))
        .fallback(|| async { (StatusCode::NOT_FOUND, "metrics are at /metrics\n") })
        .with_state(source);
    loop {
        let wanted = *setting.borrow_and_update();
        // What was wrong with a former address is nobody's trouble any more.
        trouble.set(None);
        tokio::select! {
            () = answer_at(wanted, &router, &trouble) => {}
            () = change(&mut setting) => {}
        }
    }
}

async fn show<S: Source>(State(source): State<S>, headers: HeaderMap) -> Response {
    answer(&source, &headers).await
}

/// Answers one request, in the format that its headers ask for.
pub async fn answer(source: &impl Source, headers: &HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT);
    let format = Format::accepted(accept.and_then(|it| it.to_str().ok()));
    match tokio::time::timeout(PATIENCE, source.page(format)).await {
        Ok(Some(page)) => ([(header::CONTENT_TYPE, format.content_type())], page).into_response(),
        Ok(None) => (StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping\n").into_response(),
        Err(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the daemon has too much to do to say how it is\n",
        )
            .into_response(),
    }
}

async fn change(setting: &mut watch::Receiver<MetricsListen>) {
    if setting.changed().await.is_err() {
        // Nobody is left to change it.
        std::future::pending().await
    }
}

async fn answer_at(wanted: MetricsListen, router: &Router, trouble: &Trouble) {
    match wanted.address() {
        Some(address) => accept(listen(address, trouble).await, router).await,
        None => std::future::pending().await,
    }
}

async fn listen(address: SocketAddr, trouble: &Trouble) -> TcpListener {
    let mut attempts = Attempts {
        address,
        failed: 0,
        trouble,
    };
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                attempts.succeeded();
                return listener;
            }
            Err(error) => {
                attempts.failed(&error);
                tokio::time::sleep(BIND_INTERVAL).await;
            }
        }
    }
}

/// Tries to have an address; operators are told of it when it takes long.
struct Attempts<'t> {
    address: SocketAddr,
    failed: u32,
    trouble: &'t Trouble,
}

impl Attempts<'_> {
    fn failed(&mut self, error: &io::Error) {
        self.failed += 1;
        if self.failed == BIND_QUIETLY {
            let why = format!(
                "cannot answer for metrics at {}: {error}; {}, and it is tried again",
                self.address,
                advice(error)
            );
            tracing::warn!("{why}");
            self.trouble.set(Some(why));
        }
    }

    fn succeeded(&self) {
        match self.trouble.set(None) {
            Some(_) => tracing::info!(address = %self.address, "metrics are answered now"),
            None => tell_of(self.address),
        }
    }
}

fn tell_of(address: SocketAddr) {
    match address.ip().is_loopback() {
        true => tracing::debug!(%address, "metrics are answered"),
        false => tracing::info!(%address, "metrics are answered to whoever reaches this address"),
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another program has it: set `metrics` to another port",
        io::ErrorKind::AddrNotAvailable => "this host does not have it now",
        _ => "set `metrics` to another address",
    }
}

async fn accept(listener: TcpListener, router: &Router) {
    let mut places = Places::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let serving = tokio::spawn(serve_connection(stream, router.clone()));
                places.take(serving.abort_handle());
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The connections that are served; they end with it.
#[derive(Default)]
struct Places(VecDeque<AbortHandle>);

impl Places {
    fn take(&mut self, connection: AbortHandle) {
        self.0.retain(|it| !it.is_finished());
        if self.0.len() >= CONNECTIONS_MAX
            && let Some(oldest) = self.0.pop_front()
        {
            oldest.abort();
        }
        self.0.push_back(connection);
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

async fn serve_connection(stream: TcpStream, router: Router) {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECTION_LIFETIME)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false);
    let service = TowerToHyperService::new(router);
    let served = builder.serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_LIFETIME, served).await {
        tracing::debug!(%error, "a connection for metrics ended early");
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[derive(Clone)]
    struct Constant;

    impl Source for Constant {
        async fn page(&self, format: Format) -> Option<String> {
            Some(format!("{format:?}\n"))
        }
    }

    /// A port that is free now.
    async fn setting() -> MetricsListen {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        MetricsListen::At(listener.local_addr().unwrap())
    }

    async fn connect(setting: MetricsListen) -> TcpStream {
        let address = setting.address().unwrap();
        loop {
            match TcpStream::connect(address).await {
                Ok(stream) => return stream,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    async fn ask(mut stream: TcpStream, head: &str) -> String {
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_question_is_answered_in_the_format_that_it_asks_for() {
        let at = setting().await;
        let (_keep, wanted) = watch::channel(at);
        let served = tokio::spawn(serve(wanted, Constant, Trouble::default()));
        let plain = ask(
            connect(at).await,
            "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n",
        )
        .await;
        assert!(plain.starts_with("HTTP/1.1 200"), "{plain}");
        assert!(plain.contains("text/plain; version=0.0.4") && plain.ends_with("Prometheus\n"));
        let head =
            "GET /metrics HTTP/1.1\r\nhost: x\r\naccept: application/openmetrics-text\r\n\r\n";
        assert!(
            ask(connect(at).await, head)
                .await
                .ends_with("OpenMetrics\n")
        );
        let other = ask(connect(at).await, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(other.starts_with("HTTP/1.1 404"), "{other}");
        let written = ask(
            connect(at).await,
            "POST /metrics HTTP/1.1\r\nhost: x\r\n\r\n",
        )
        .await;
        assert!(written.starts_with("HTTP/1.1 405"), "{written}");
        served.abort();
    }

    #[tokio::test]
    async fn who_holds_places_without_asking_keeps_nobody_out() {
        let at = setting().await;
        let (_keep, wanted) = watch::channel(at);
        let served = tokio::spawn(serve(wanted, Constant, Trouble::default()));
        let mut silent = Vec::new();
        for _ in 0..=CONNECTIONS_MAX {
            silent.push(connect(at).await);
        }
        // The first had to go.
        let mut nothing = Vec::new();
        let ended = silent[0].read_to_end(&mut nothing).await;
        assert!(ended.is_err() || nothing.is_empty());
        let answer = ask(
            connect(at).await,
            "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n",
        )
        .await;
        assert!(answer.ends_with("Prometheus\n"), "{answer}");
        served.abort();
    }

    #[tokio::test]
    async fn a_changed_setting_moves_the_port() {
        let (first, second) = (setting().await, setting().await);
        let (change, wanted) = watch::channel(first);
        let served = tokio::spawn(serve(wanted, Constant, Trouble::default()));
        drop(connect(first).await);
        change.send(second).unwrap();
        drop(connect(second).await);
        assert!(TcpStream::connect(first.address().unwrap()).await.is_err());
        change.send(MetricsListen::Off).unwrap();
        while TcpStream::connect(second.address().unwrap()).await.is_ok() {
            tokio::task::yield_now().await;
        }
        served.abort();
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_had_once_it_is_free() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = taken.local_addr().unwrap();
        let trouble = Trouble::default();
        let mut listening = std::pin::pin!(listen(address, &trouble));
        tokio::select! {
            biased;
            _ = &mut listening => panic!("it is another's"),
            () = tokio::task::yield_now() => {}
        }
        drop(taken);
        assert_eq!(listening.await.local_addr().unwrap(), address);
    }

    #[test]
    fn an_address_that_cannot_be_had_for_long_is_told_until_it_is_had() {
        let trouble = Trouble::default();
        let mut attempts = Attempts {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 7445)),
            failed: 0,
            trouble: &trouble,
        };
        let taken = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 1..BIND_QUIETLY {
            attempts.failed(&taken);
            assert_eq!(trouble.told(), None, "a daemon that hands over may hold it");
        }
        attempts.failed(&taken);
        let why = trouble.told().unwrap();
        assert!(why.contains("127.0.0.1:7445") && why.contains("another program has it"));
        attempts.succeeded();
        assert_eq!(trouble.told(), None);
    }

    #[tokio::test]
    async fn another_setting_ends_the_trouble_with_the_former_one() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = MetricsListen::At(taken.local_addr().unwrap());
        let (change, wanted) = watch::channel(at);
        let trouble = Trouble::default();
        trouble.set(Some("another program has it".into()));
        let served = tokio::spawn(serve(wanted, Constant, trouble.clone()));
        change.send(MetricsListen::Off).unwrap();
        while trouble.told().is_some() {
            tokio::task::yield_now().await;
        }
        served.abort();
    }
}
