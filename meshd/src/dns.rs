//! Mesh DNS: answers for the fleet's names and the overlay's reverse zones, from a snapshot. The
//! fleet's suffix is never asked of anyone else; other names are refused.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use agent::Names;
use arc_swap::ArcSwap;
use hickory_proto::op::{Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR, SOA};
use hickory_proto::rr::{DNSClass, LowerName, Name, RData, Record, RecordType};
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};

/// Seconds that an answer may be remembered. Short, since endpoints of a service come and go.
const TTL_SECS: u32 = 5;
/// How long an idle TCP client is kept.
const TCP_TIMEOUT: Duration = Duration::from_secs(10);
/// Answers that may wait for a slow TCP client.
const TCP_ANSWERS_MAX: usize = 64;

/// A server on one address, UDP and TCP; it stops when it is dropped.
pub struct DnsServer {
    server: hickory_server::Server<Zone>,
    address: SocketAddr,
}

/// The address cannot be had.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot answer DNS on {address}: {source}; is another resolver there? (--dns-listen chooses another address)"
)]
pub struct DnsError {
    address: SocketAddr,
    source: std::io::Error,
}

impl DnsServer {
    /// Starts answering from `names` on `address`.
    ///
    /// # Errors
    /// The address is taken or not this host's.
    pub async fn start(address: SocketAddr, names: Arc<ArcSwap<Names>>) -> Result<Self, DnsError> {
        let failed = |source| DnsError { address, source };
        let udp = UdpSocket::bind(address).await.map_err(failed)?;
        let address = udp.local_addr().map_err(failed)?;
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
        let mut server = hickory_server::Server::new(Zone { names });
        server.register_socket(udp);
        server.register_listener(tcp, TCP_TIMEOUT, TCP_ANSWERS_MAX);
        Ok(Self { server, address })
    }

    /// Returns where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.server.shutdown_token().cancel();
    }
}

/// Answers from the snapshot.
struct Zone {
    names: Arc<ArcSwap<Names>>,
}

/// What is said to one question.
#[derive(Debug, PartialEq)]
struct Answer {
    code: ResponseCode,
    records: Vec<Record>,
    /// The zone's SOA, with answers that say that there is nothing (RFC 2308 3).
    soa: Option<Record>,
}

impl Answer {
    fn refused() -> Self {
        Self {
            code: ResponseCode::Refused,
            records: Vec::new(),
            soa: None,
        }
    }

    fn found(zone: &Name, records: Vec<Record>) -> Self {
        let soa = records.is_empty().then(|| soa(zone));
        Self {
            code: ResponseCode::NoError,
            records,
            soa,
        }
    }

    fn no_such_name(zone: &Name) -> Self {
        Self {
            code: ResponseCode::NXDomain,
            records: Vec::new(),
            soa: Some(soa(zone)),
        }
    }
}

fn soa(zone: &Name) -> Record {
    let data = SOA::new(zone.clone(), Name::root(), 1, 60, 60, 60, TTL_SECS);
    Record::from_rdata(zone.clone(), TTL_SECS, RData::SOA(data))
}

fn answer(names: &Names, name: &LowerName, kind: RecordType) -> Answer {
    let name = Name::from(name);
    if let Some(address) = reverse_address(&name) {
        return answer_reverse(names, &name, address, kind);
    }
    let Ok(zone) = Name::from_ascii(format!("{}.", names.suffix())) else {
        return Answer::refused();
    };
    if names.suffix().is_empty() || !zone.zone_of(&name) {
        return Answer::refused();
    }
    if name == zone {
        let records = if matches!(kind, RecordType::SOA | RecordType::ANY) {
            vec![soa(&zone)]
        } else {
            Vec::new()
        };
        return Answer::found(&zone, records);
    }
    if name.num_labels() != zone.num_labels() + 1 {
        return Answer::no_such_name(&zone);
    }
    let label = name
        .iter()
        .next()
        .and_then(|label| std::str::from_utf8(label).ok());
    let Some(entry) = label.and_then(|label| names.lookup(label)) else {
        return Answer::no_such_name(&zone);
    };
    let record = |data| Record::from_rdata(name.clone(), TTL_SECS, data);
    let mut records = Vec::new();
    if matches!(kind, RecordType::A | RecordType::ANY) {
        records.extend(entry.v4().map(|address| record(RData::A(A(address)))));
    }
    if matches!(kind, RecordType::AAAA | RecordType::ANY) {
        records.extend(entry.v6().map(|address| record(RData::AAAA(AAAA(address)))));
    }
    Answer::found(&zone, records)
}

/// Reads a whole address out of a name of the reverse zones.
fn reverse_address(name: &Name) -> Option<IpAddr> {
    let net = name.parse_arpa_name().ok()?;
    let whole = match net.addr() {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    };
    (net.prefix_len() == whole).then(|| net.addr())
}

fn answer_reverse(names: &Names, name: &Name, address: IpAddr, kind: RecordType) -> Answer {
    if !names
        .overlay()
        .is_some_and(|overlay| overlay.contains(address))
    {
        return Answer::refused();
    }
    let Some(host) = names.reverse(address) else {
        return Answer::no_such_name(name);
    };
    let Ok(target) = Name::from_ascii(format!("{host}.{}.", names.suffix())) else {
        return Answer::refused();
    };
    let wanted = matches!(kind, RecordType::PTR | RecordType::ANY);
    let records =
        wanted.then(|| Record::from_rdata(name.clone(), TTL_SECS, RData::PTR(PTR(target))));
    Answer::found(name, records.into_iter().collect())
}

#[async_trait::async_trait]
impl RequestHandler for Zone {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut respond: R,
    ) -> ResponseInfo {
        let answer = match request.request_info() {
            Ok(info)
                if info.metadata.op_code == OpCode::Query
                    && info.query.query_class() == DNSClass::IN =>
            {
                answer(
                    &self.names.load(),
                    info.query.name(),
                    info.query.query_type(),
                )
            }
            Ok(_) => Answer {
                code: ResponseCode::NotImp,
                records: Vec::new(),
                soa: None,
            },
            Err(_) => Answer {
                code: ResponseCode::FormErr,
                records: Vec::new(),
                soa: None,
            },
        };
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = answer.code;
        metadata.authoritative =
            matches!(answer.code, ResponseCode::NoError | ResponseCode::NXDomain);
        let response = MessageResponseBuilder::from_message_request(request).build(
            metadata,
            &answer.records,
            [],
            answer.soa.as_ref(),
            [],
        );
        match respond.send_response(response).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "a DNS answer could not be sent");
                ResponseInfo::from(hickory_proto::op::Header {
                    metadata,
                    counts: hickory_proto::op::HeaderCounts::default(),
                })
            }
        }
    }
}
