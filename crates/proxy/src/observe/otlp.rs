//! Spans for a collector, by OTLP over HTTP with JSON (opentelemetry-proto, "OTLP/HTTP"). A thread of
//! its own sends them, in batches; what a collector does not take is counted and left out.

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::Duration;

use model::catalogue::Catalogue;
use serde_json::{Value, json};

use super::host_name;
use super::record::Record;
use crate::marks::Aim;
use crate::report::Side;
use crate::stages::Stage;

/// Spans of one batch.
const BATCH_MAX: usize = 256;
/// Batches that wait for the collector.
const BATCHES_MAX: usize = 16;
/// How long a collector may take for each step of a batch.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where spans go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    /// HOST:PORT
    authority: String,
    path: String,
}

impl FromStr for Collector {
    type Err = String;

    /// Reads `http://HOST[:PORT][/PATH]`; the port is 4318 and the path `/v1/traces` unless it says
    /// otherwise.
    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("http://").ok_or_else(|| {
            format!("{text:?} is no address of a collector: write http://HOST:4318; where it asks for TLS, let a collector on this host pass spans on")
        })?;
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) if !path.is_empty() => (authority, format!("/{path}")),
            Some((authority, _)) => (authority, "/v1/traces".to_owned()),
            None => (rest, "/v1/traces".to_owned()),
        };
        let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'@';
        if authority.is_empty() || !rest.bytes().all(is_plain) {
            return Err(format!(
                "{text:?} names no collector: write http://HOST:4318"
            ));
        }
        let has_port = authority
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        Ok(Self {
            authority: match has_port {
                true => authority.to_owned(),
                false => format!("{authority}:4318"),
            },
            path,
        })
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

/// Gathers spans and passes them on.
#[derive(Debug)]
pub(super) struct SpanExporter {
    spans: Vec<Value>,
    /// The name of this host, as it was known last.
    host: String,
    batches: SyncSender<(String, usize)>,
    lost: Arc<AtomicU64>,
}

impl SpanExporter {
    /// Starts the thread that sends; it ends with this.
    pub(super) fn start(collector: Collector, lost: Arc<AtomicU64>) -> Self {
        let (batches, waiting) = mpsc::sync_channel(BATCHES_MAX);
        let counts = Arc::clone(&lost);
        let thread = std::thread::Builder::new().name("spans".to_owned());
        if let Err(error) = thread.spawn(move || send_all(&collector, &waiting, &counts)) {
            tracing::error!(%error, "no thread to send spans");
        }
        Self::into_queue(batches, lost)
    }

    /// Gathers for whoever takes batches, with their numbers of spans.
    pub(super) const fn into_queue(
        batches: SyncSender<(String, usize)>,
        lost: Arc<AtomicU64>,
    ) -> Self {
        Self {
            spans: Vec::new(),
            host: String::new(),
            batches,
            lost,
        }
    }

    /// Takes the span of a call, if it is traced.
    pub(super) fn take(&mut self, record: &Record, catalogue: Option<&Catalogue>) {
        let Some(span) = span(record, catalogue) else {
            return;
        };
        if let Some(catalogue) = catalogue {
            self.host = host_name(catalogue.me, Some(catalogue));
        }
        self.spans.push(span);
        if self.spans.len() >= BATCH_MAX {
            self.flush();
        }
    }

    /// Passes on what was gathered.
    pub(super) fn flush(&mut self) {
        if self.spans.is_empty() {
            return;
        }
        let spans = std::mem::take(&mut self.spans);
        let count = spans.len();
        let batch = batch(&self.host, spans).to_string();
        if self.batches.try_send((batch, count)).is_err() {
            self.lost.fetch_add(count as u64, Ordering::Relaxed);
        }
    }
}

fn batch(host: &str, spans: Vec<Value>) -> Value {
    let version = env!("CARGO_PKG_VERSION");
    json!({ "resourceSpans": [{
        "resource": { "attributes": [
            text("service.name", "meshd"),
            text("service.version", version),
            text("host.name", host),
        ] },
        "scopeSpans": [{ "scope": { "name": "meshd", "version": version }, "spans": spans }],
    }] })
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

fn number(key: &str, value: u64) -> Value {
    json!({ "key": key, "value": { "intValue": value.to_string() } })
}

/// Returns the span of a call; names of attributes are those of OpenTelemetry's semantic conventions.
fn span(record: &Record, catalogue: Option<&Catalogue>) -> Option<Value> {
    let trace = record.trace.filter(|trace| trace.sampled)?;
    let began = record.began.unix.since_epoch();
    let stages = record.stages;
    let ended = began + stages.whole();
    let (kind, part) = match record.side {
        Side::Source => (3, "source"),           // SPAN_KIND_CLIENT
        Side::Destination => (2, "destination"), // SPAN_KIND_SERVER
    };
    let to = match &record.aim {
        Aim::Service(name) => name.to_string(),
        Aim::Port(port) => format!("port {port}"),
    };
    let mut attributes = vec![
        text("mesh.call", &record.id.to_string()),
        text("mesh.part", part),
        text("mesh.from", &host_name(record.from, catalogue)),
        text("mesh.to", &to),
        number("mesh.attempts", record.tried.len() as u64),
        number("mesh.answer_us", micros(stages.answer())),
    ];
    attributes.extend(Stage::ALL.into_iter().filter_map(|stage| {
        let took = stages.of(stage)?;
        Some(number(&format!("mesh.{}_us", stage.name()), micros(took)))
    }));
    attributes.extend(
        record
            .workload
            .as_ref()
            .map(|it| text("mesh.workload", it.as_str())),
    );
    attributes.extend(record.reason.map(|it| text("mesh.reason", it.name())));
    let endpoint = record.tried.last().map(|it| host_name(*it, catalogue));
    attributes.extend(endpoint.map(|it| text("mesh.endpoint", &it)));
    if let Some(method) = &record.method {
        attributes.push(text("http.request.method", method.as_str()));
        attributes.push(text("url.path", &record.path));
    }
    if record.status != 0 {
        attributes.push(number("http.response.status_code", record.status.into()));
    }
    attributes.extend(
        record
            .grpc_status
            .map(|status| number("rpc.grpc.status_code", status.into())),
    );
    let is_bad = record.status >= 500 || record.reason.is_some();
    let name = match &record.method {
        Some(method) => format!("{method} {to}"),
        None => to,
    };
    let mut span = json!({
        "traceId": format!("{:032x}", trace.trace_id),
        "spanId": format!("{:016x}", trace.span_id),
        "name": name,
        "kind": kind,
        "startTimeUnixNano": began.as_nanos().to_string(),
        "endTimeUnixNano": ended.as_nanos().to_string(),
        "attributes": attributes,
        "status": { "code": if is_bad { 2 } else { 0 } },
    });
    if let Some(parent) = trace.parent_id {
        span["parentSpanId"] = Value::String(format!("{parent:016x}"));
    }
    Some(span)
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

fn send_all(collector: &Collector, batches: &Receiver<(String, usize)>, lost: &AtomicU64) {
    let mut was_well = true;
    for (batch, spans) in batches {
        match send(collector, &batch) {
            Ok(()) => was_well = true,
            Err(error) => {
                lost.fetch_add(spans as u64, Ordering::Relaxed);
                if std::mem::take(&mut was_well) {
                    tracing::warn!(%error, %collector, "the collector takes no spans; they are left out until it does");
                }
            }
        }
    }
}

/// Sends a batch over a connection of its own: there is one a second at most times.
fn send(collector: &Collector, batch: &str) -> io::Result<()> {
    let mut stream = connect(collector.authority.to_socket_addrs()?)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{batch}",
        collector.path,
        collector.authority,
        batch.len()
    )?;
    let mut status = String::new();
    BufReader::new(io::Read::take(&stream, 1024)).read_line(&mut status)?;
    match status.split(' ').nth(1) {
        Some(code) if code.starts_with('2') => Ok(()),
        _ => Err(io::Error::other(format!(
            "it answered {:?}",
            status.trim_end()
        ))),
    }
}

/// Tries address after address: `localhost` is two, and a collector may listen at one of them.
fn connect(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut failed = io::Error::other("its name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_span_has_its_place_in_the_trace_and_says_what_became_of_the_call() {
        let mut report = super::super::tests::report(0xab);
        report.status = 503;
        report.trace = Some(crate::observe::Trace {
            trace_id: 0x10,
            span_id: 0x20,
            parent_id: Some(0x30),
            sampled: true,
        });
        let span = span(&Record::of(&report), None).unwrap();
        assert_eq!(span["traceId"], "00000000000000000000000000000010");
        assert_eq!(span["spanId"], "0000000000000020");
        assert_eq!(span["parentSpanId"], "0000000000000030");
        assert_eq!(
            (&span["kind"], &span["status"]["code"]),
            (&json!(3), &json!(2))
        );
        assert_eq!(span["name"], "GET orders");
        assert_eq!(span["endTimeUnixNano"], "23000000");
        let attributes = span["attributes"].as_array().unwrap();
        assert!(attributes.contains(&text("mesh.call", "00000000000000ab")));
        assert!(attributes.contains(&number("http.response.status_code", 503)));
        assert!(attributes.contains(&number("mesh.first_byte_us", 15_000)));
        assert!(attributes.contains(&number("mesh.body_us", 2_000)));

        report.trace = report.trace.map(|trace| crate::observe::Trace {
            sampled: false,
            ..trace
        });
        assert_eq!(super::span(&Record::of(&report), None), None);
    }

    #[test]
    fn an_address_says_as_much_as_it_has_to() {
        for (text, expected) in [
            ("http://127.0.0.1", "http://127.0.0.1:4318/v1/traces"),
            ("http://collector:9000/", "http://collector:9000/v1/traces"),
            (
                "http://[::1]:4318/otlp/v1/traces",
                "http://[::1]:4318/otlp/v1/traces",
            ),
        ] {
            assert_eq!(text.parse::<Collector>().unwrap().to_string(), expected);
        }
        for bad in [
            "collector:4318",
            "https://collector",
            "http://",
            "http://a b",
            "http://u@h",
        ] {
            assert!(bad.parse::<Collector>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_collector_is_found_at_whichever_of_its_addresses_it_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = listener.local_addr().unwrap();
        let nobody = SocketAddr::from(([127, 0, 0, 2], there.port()));
        let stream = connect([nobody, there].into_iter()).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), there);
        assert!(connect([nobody].into_iter()).is_err());
        let nameless = connect(std::iter::empty()).unwrap_err().to_string();
        assert_eq!(nameless, "its name has no address");
    }

    #[test]
    fn a_batch_is_posted_and_an_answer_that_is_not_2xx_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let collector: Collector = format!("http://{}", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        let serving = std::thread::spawn(move || {
            ["200 OK", "503 Busy"].map(|status| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut head, mut length) = (String::new(), 0);
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    if let Some(value) = line.strip_prefix("content-length: ") {
                        length = value.trim().parse().unwrap();
                    }
                    head += &line;
                    if line == "\r\n" {
                        break;
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").unwrap();
                (head, String::from_utf8(body).unwrap())
            })
        });
        assert!(send(&collector, "{\"a\":1}").is_ok());
        let refused = send(&collector, "{}").unwrap_err().to_string();
        assert!(refused.contains("503"), "{refused}");
        let [(head, body), _] = serving.join().unwrap();
        assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
        assert_eq!(body, "{\"a\":1}");
    }
}
