//! Names that are not the mesh's, asked of the host's own resolvers, with a bounded memory for
//! answers. Aliases are not followed: an answer is passed on as it came, so that an alias into the
//! mesh sends no mesh name outside.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use hickory_proto::op::{DnsRequestOptions, Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::Record;
use hickory_resolver::config::{NameServerConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer};
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::{NameServerPool, PoolContext, ResponseCache, TlsConfig, TtlConfig};
use tokio::sync::Semaphore;

/// Answers that are remembered; the least useful goes first.
const ANSWERS_MAX: u64 = 1024;
/// Questions under way; more are answered with a failure at once.
const QUESTIONS_MAX: usize = 256;
/// How long the resolvers together may take.
const TIMEOUT: Duration = Duration::from_secs(4);
/// Resolvers that are asked: as many as the C library looks at (resolv.conf(5), MAXNS).
const SERVERS_MAX: usize = 3;

type Pool = NameServerPool<TokioRuntimeProvider>;

/// Asks others.
pub struct Forwarder {
    upstreams: ArcSwapOption<Upstreams>,
    under_way: Semaphore,
}

/// The resolvers, with what they said: a change forgets both.
struct Upstreams {
    addresses: Vec<(IpAddr, u16)>,
    pool: Pool,
    remembered: ResponseCache,
}

/// What the others said.
pub(super) struct Forwarded {
    pub(super) code: ResponseCode,
    pub(super) answers: Vec<Record>,
    pub(super) authorities: Vec<Record>,
}

impl Forwarded {
    fn only(code: ResponseCode) -> Self {
        Self {
            code,
            answers: Vec::new(),
            authorities: Vec::new(),
        }
    }
}

impl Default for Forwarder {
    fn default() -> Self {
        Self {
            upstreams: ArcSwapOption::empty(),
            under_way: Semaphore::new(QUESTIONS_MAX),
        }
    }
}

impl Forwarder {
    /// Takes the resolvers to ask, on port 53; with none, nobody is asked.
    pub fn set_upstreams(&self, servers: &[IpAddr]) {
        self.set_upstreams_at(servers.iter().map(|ip| (*ip, 53)).collect());
    }

    pub(super) fn set_upstreams_at(&self, mut addresses: Vec<(IpAddr, u16)>) {
        addresses.truncate(SERVERS_MAX);
        let known = self.upstreams.load();
        let known = known.as_ref().map_or(&[][..], |it| &it.addresses);
        if known != addresses {
            let upstreams = (!addresses.is_empty()).then(|| Arc::new(Upstreams::new(addresses)));
            self.upstreams.store(upstreams);
        }
    }

    /// Returns whom it asks.
    pub fn upstreams(&self) -> Vec<SocketAddr> {
        let upstreams = self.upstreams.load();
        let addresses = upstreams.iter().flat_map(|it| &it.addresses);
        addresses
            .map(|address| SocketAddr::from(*address))
            .collect()
    }

    /// Returns whether there is anybody to ask.
    pub fn has_upstreams(&self) -> bool {
        self.upstreams.load().is_some()
    }

    /// Asks, or remembers.
    pub(super) async fn ask(&self, mut query: Query) -> Forwarded {
        let Some(upstreams) = self.upstreams.load_full() else {
            return Forwarded::only(ResponseCode::Refused);
        };
        query.name = query.name.to_lowercase();
        if let Some(remembered) = upstreams.remembered.get(&query, Instant::now()) {
            return said(remembered);
        }
        let Ok(_permit) = self.under_way.try_acquire() else {
            return Forwarded::only(ResponseCode::ServFail);
        };
        let asked = upstreams.ask(query.clone()).await;
        upstreams
            .remembered
            .insert(query, asked.clone(), Instant::now());
        said(asked)
    }
}

impl Upstreams {
    fn new(addresses: Vec<(IpAddr, u16)>) -> Self {
        let mut options = ResolverOpts::default();
        options.timeout = TIMEOUT;
        let tls = TlsConfig::new().expect("nothing is set up: TLS is not compiled in");
        let servers = addresses.iter().map(|(ip, port)| {
            let mut server = NameServerConfig::udp_and_tcp(*ip);
            for connection in &mut server.connections {
                connection.port = *port;
            }
            server
        });
        let context = Arc::new(PoolContext::new(options, tls));
        let pool = Pool::from_config(servers, context, TokioRuntimeProvider::default());
        Self {
            pool,
            addresses,
            remembered: ResponseCache::new(ANSWERS_MAX, TtlConfig::default()),
        }
    }

    async fn ask(&self, query: Query) -> Result<Message, NetError> {
        let asked = self.pool.lookup(query, DnsRequestOptions::default());
        match tokio::time::timeout(TIMEOUT, asked.first_answer()).await {
            Ok(Ok(response)) => Ok(response.into_message()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(NetError::Timeout),
        }
    }
}

fn said(result: Result<Message, NetError>) -> Forwarded {
    match result {
        Ok(message) if message.metadata.op_code == OpCode::Query => Forwarded {
            code: message.metadata.response_code,
            answers: message.answers,
            authorities: message.authorities,
        },
        Ok(_) => Forwarded::only(ResponseCode::ServFail),
        Err(NetError::Dns(DnsError::NoRecordsFound(nothing))) => said_nothing(nothing),
        Err(NetError::Dns(DnsError::ResponseCode(code))) => Forwarded::only(code),
        Err(error) => {
            tracing::debug!(%error, "the host's resolvers do not answer");
            Forwarded::only(ResponseCode::ServFail)
        }
    }
}

fn said_nothing(nothing: NoRecords) -> Forwarded {
    let soa = nothing.soa.map(|soa| (*soa).into_record_of_rdata());
    Forwarded {
        authorities: soa.into_iter().collect(),
        ..Forwarded::only(nothing.response_code)
    }
}
