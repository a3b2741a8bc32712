//! Mesh DNS: answers for the fleet's names and the overlay's reverse zones, from a snapshot. Other
//! names are passed on to the host's own resolvers for askers on loopback, and refused to all
//! others; a name of the mesh is never asked of anyone else.

mod forward;
mod question;
pub(crate) mod reverse;
mod sockets;
mod streams;
mod tally;
mod zone;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use agent::Names;
use arc_swap::ArcSwap;
use hickory_proto::op::{Edns, Message, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

pub use forward::Forwarder;
pub use sockets::DnsSockets;
pub use tally::DnsTally;
use zone::Answer;

/// Bytes of the largest datagram that is sent, and that askers are told to send: it fits where IPv6
/// does (DNS flag day 2020; RFC 9715).
const DATAGRAM_BYTES_MAX: u16 = 1232;
/// Bytes of an answer to an asker that names no size (RFC 1035 4.2.1).
const PLAIN_DATAGRAM_BYTES_MAX: u16 = 512;

/// A server on one address, UDP and TCP; it stops when it is dropped.
pub struct DnsServer {
    datagrams: hickory_server::Server<Responder>,
    streams: JoinHandle<()>,
    sockets: DnsSockets,
}

/// The address cannot be had.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot answer DNS on {address}: {source}; {}", dns_advice(.source)
)]
pub struct DnsError {
    address: SocketAddr,
    source: std::io::Error,
}

fn dns_advice(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => "run meshd as root",
        _ => "is another resolver there? (--dns-listen chooses another address)",
    }
}

/// What a server answers with.
#[derive(Clone)]
pub struct Responder {
    /// The fleet's names.
    pub names: Arc<ArcSwap<Names>>,
    /// Who else is asked; `None` where askers may come from elsewhere.
    pub forwarder: Option<Arc<Forwarder>>,
    /// What came of the questions.
    pub tally: Arc<DnsTally>,
}

impl DnsServer {
    /// Starts answering on `address`.
    ///
    /// # Errors
    /// The address is taken or not this host's.
    pub async fn start(address: SocketAddr, responder: Responder) -> Result<Self, DnsError> {
        Self::serve(DnsSockets::bind(address).await?, responder)
    }

    /// Starts answering on sockets that are bound already.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn serve(sockets: DnsSockets, responder: Responder) -> Result<Self, DnsError> {
        let address = sockets.address();
        let failed = |source| DnsError { address, source };
        let udp = sockets.udp.try_clone().map_err(failed)?;
        let tcp = sockets.tcp.try_clone().map_err(failed)?;
        let udp = UdpSocket::from_std(udp).map_err(failed)?;
        let tcp = TcpListener::from_std(tcp).map_err(failed)?;
        let mut datagrams = hickory_server::Server::new(responder.clone());
        datagrams.register_socket(udp);
        Ok(Self {
            datagrams,
            streams: tokio::spawn(streams::serve(tcp, responder)),
            sockets,
        })
    }

    /// Returns the sockets, which another daemon may take over.
    pub fn sockets(&self) -> &DnsSockets {
        &self.sockets
    }

    /// Returns where it answers.
    pub fn address(&self) -> SocketAddr {
        self.sockets.address()
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.datagrams.shutdown_token().cancel();
        self.streams.abort();
    }
}

impl Responder {
    /// Returns what is said, as the asker can take it.
    async fn message(&self, request: &Request) -> Message {
        let mut message = self.respond(request).await;
        // The question counts, as it is sent back.
        let questions = request.queries.queries().iter();
        message.queries = questions.map(|it| it.original().clone()).collect();
        self.tally.count(&message);
        fit(&mut message, room(request));
        message
    }

    /// Decides what is said, all but the transport's limits.
    async fn respond(&self, request: &Request) -> Message {
        let mut message = Message::response(request.metadata.id, request.metadata.op_code);
        message.metadata = Metadata::response_from_request(&request.metadata);
        if let Some(asked) = &request.edns {
            message.edns = Some(own_edns(asked));
        }
        if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            message.metadata.response_code = ResponseCode::BADVERS;
            return message;
        }
        if request.metadata.op_code != OpCode::Query {
            message.metadata.response_code = ResponseCode::NotImp;
            return message;
        }
        match request.request_info() {
            // Each host knows the names that it may reach, which are none of its peers' business.
            Ok(info) if !self.is_of_this_host(info.src.ip()) => {
                tracing::debug!("another host asked for a name, and is refused");
                message.metadata.response_code = ResponseCode::Refused;
            }
            Ok(info) => self.answer(info.query.original(), &mut message).await,
            Err(_) => message.metadata.response_code = ResponseCode::FormErr,
        }
        message
    }

    async fn answer(&self, query: &Query, message: &mut Message) {
        let is_local = self.forwarder.is_some();
        let answer = match query.query_class() {
            DNSClass::IN if is_transfer(query.query_type()) => {
                Some(Answer::only(ResponseCode::Refused))
            }
            DNSClass::IN => zone::answer(&self.names.load(), query.name(), query.query_type()),
            DNSClass::CH if is_local => Some(version(query)),
            _ => Some(Answer::only(ResponseCode::Refused)),
        };
        message.metadata.recursion_available = self.can_ask_others();
        match answer {
            Some(answer) => {
                let is_ours = query.query_class() == DNSClass::IN;
                message.metadata.authoritative = is_ours && answer.code != ResponseCode::Refused;
                message.metadata.response_code = answer.code;
                message.answers = answer.records;
                message.authorities = answer.soa.into_iter().collect();
                message.additionals = answer.additionals;
            }
            None => self.pass_on(query, message).await,
        }
    }

    fn is_of_this_host(&self, asker: IpAddr) -> bool {
        asker.is_loopback() || self.names.load().is_own(asker)
    }

    fn can_ask_others(&self) -> bool {
        let is_member = !self.names.load().suffix().is_empty();
        let somebody = self.forwarder.as_ref().filter(|it| it.has_upstreams());
        is_member && somebody.is_some()
    }

    async fn pass_on(&self, query: &Query, message: &mut Message) {
        let may_ask = message.metadata.recursion_desired && message.metadata.recursion_available;
        let Some(forwarder) = self.forwarder.as_ref().filter(|_| may_ask) else {
            message.metadata.response_code = ResponseCode::Refused;
            return;
        };
        let said = forwarder.ask(query.clone()).await;
        message.metadata.response_code = said.code;
        message.answers = said.answers;
        message.authorities = said.authorities;
    }
}

fn own_edns(asked: &Edns) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(DATAGRAM_BYTES_MAX);
    // Copied, signed or not (RFC 3225 3).
    edns.set_dnssec_ok(asked.flags().dnssec_ok);
    edns
}

fn is_transfer(kind: RecordType) -> bool {
    matches!(kind, RecordType::AXFR | RecordType::IXFR)
}

/// Tells this host's own users what answers them.
fn version(query: &Query) -> Answer {
    let asked = query.name().to_lowercase().to_ascii();
    let is_known = matches!(asked.as_str(), "version.bind." | "version.server.")
        && matches!(query.query_type(), RecordType::TXT | RecordType::ANY);
    if !is_known {
        return Answer::only(ResponseCode::Refused);
    }
    let text = concat!("meshd ", env!("CARGO_PKG_VERSION"));
    let data = RData::TXT(TXT::new(vec![text.to_owned()]));
    let mut record = Record::from_rdata(query.name().clone(), 0, data);
    record.dns_class = DNSClass::CH;
    Answer {
        records: vec![record],
        ..Answer::only(ResponseCode::NoError)
    }
}

/// Leaves out what does not fit: first what nobody asked for, then everything, so that the asker
/// comes back by TCP.
fn fit(message: &mut Message, bytes_max: u16) {
    let fits = |message: &Message| {
        message
            .to_vec()
            .is_ok_and(|bytes| bytes.len() <= usize::from(bytes_max))
    };
    if fits(message) {
        return;
    }
    message.additionals.clear();
    if fits(message) {
        return;
    }
    message.answers.clear();
    message.authorities.clear();
    message.metadata.truncation = true;
}

/// Bytes that the asker can take.
fn room(request: &Request) -> u16 {
    match (request.protocol(), &request.edns) {
        (Protocol::Udp, Some(edns)) => edns
            .max_payload()
            .clamp(PLAIN_DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MAX),
        (Protocol::Udp, None) => PLAIN_DATAGRAM_BYTES_MAX,
        _ => u16::MAX,
    }
}

#[async_trait::async_trait]
impl RequestHandler for Responder {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut respond: R,
    ) -> ResponseInfo {
        let message = self.message(request).await;
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if let Some(edns) = &message.edns {
            builder.edns(edns);
        }
        let response = builder.build(
            message.metadata,
            &message.answers,
            &message.authorities,
            [],
            &message.additionals,
        );
        match respond.send_response(response).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "a DNS answer could not be sent");
                ResponseInfo::from(hickory_proto::op::Header {
                    metadata: message.metadata,
                    counts: hickory_proto::op::HeaderCounts::default(),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests;
