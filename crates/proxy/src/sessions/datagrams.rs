//! QUIC of one thread: its endpoint on the datagrams that the machine brings, and how it is spoken. What
//! a connection is believed by is asked elsewhere; there is no data ahead of the handshake.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use model::catalogue::StreamIdentity;
use model::ids::Digest;
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{
    AsyncUdpSocket, ClientConfig, Connection, ConnectionId, ConnectionIdGenerator, Endpoint,
    EndpointConfig, IdleTimeout, ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use runtime::clock::random_seed;
use runtime::tls;
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;
use trust::certificate::CertificateFacts;

use super::addressee::{ID_BYTES, marked, thread_of};
use super::manner::CONNECTIONS_PER_HOST_MAX;

/// How long a session may be silent: longer than the signs of life of its HTTP/2 may take.
const SILENCE_MAX: VarInt = VarInt::from_u32(45_000);
/// Bytes that may be under way on one stream, which carries as much as a TCP connection does.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// The same for a session.
const SESSION_WINDOW_BYTES: u32 = 32 << 20;
/// Connections that wait to be accepted, and bytes that they have sent meanwhile.
const INCOMING_MAX: usize = 512;
const INCOMING_BYTES_MAX: u64 = 8 << 20;
/// What a round trip is taken for before one was measured: what is lost of the first datagrams is sent
/// again after three of them.
const FIRST_ROUND_TRIP: Duration = Duration::from_millis(100);
/// How long the other ends are given to hear that this one stops.
const FAREWELL_MAX: Duration = Duration::from_millis(300);

/// What a thread sends and gets datagrams of QUIC by.
#[derive(Debug)]
pub struct DatagramPort {
    /// Gives those that [`super::Addressee`] says are the thread's own.
    pub socket: Arc<dyn AsyncUdpSocket>,
    /// This daemon is the second of two that share the port while one hands over.
    pub is_second: bool,
}

/// The endpoint of one thread. It begins when there is a certificate to show.
pub struct Datagrams {
    port: DatagramPort,
    thread: usize,
    threads: usize,
    endpoint: RefCell<Option<Endpoint>>,
}

impl Datagrams {
    /// Takes the port of one of so many threads.
    pub fn new(port: DatagramPort, thread: usize, threads: usize) -> Rc<Self> {
        Rc::new(Self {
            port,
            thread,
            threads,
            endpoint: RefCell::default(),
        })
    }

    /// Returns the endpoint. Has to run in the thread's runtime.
    ///
    /// # Errors
    /// The machine's sockets are gone, or it has no randomness.
    pub(super) fn endpoint(
        &self,
        identity: &StreamIdentity,
        server: &ServerConfig,
    ) -> io::Result<Endpoint> {
        if let Some(endpoint) = &*self.endpoint.borrow() {
            return Ok(endpoint.clone());
        }
        let endpoint = Endpoint::new_with_abstract_socket(
            self.config(identity)?,
            Some(server.clone()),
            Arc::clone(&self.port.socket),
            Arc::new(TokioRuntime),
        )?;
        self.endpoint.replace(Some(endpoint.clone()));
        Ok(endpoint)
    }

    /// Closes what is left, and gives the other ends a moment to hear of it.
    pub(crate) async fn close(&self) {
        let Some(endpoint) = self.endpoint.take() else {
            return;
        };
        endpoint.close(VarInt::from_u32(0), b"this daemon stops");
        let _ = timeout(FAREWELL_MAX, endpoint.wait_idle()).await;
    }

    fn config(&self, identity: &StreamIdentity) -> io::Result<EndpointConfig> {
        let mut config = EndpointConfig::new(Arc::new(ResetKey::of(identity)));
        let (thread, threads, is_second) = (self.thread, self.threads, self.port.is_second);
        let seed = random_seed()?;
        config
            .grease_quic_bit(false)
            .supported_versions(vec![1])
            .cid_generator(move || {
                Box::new(OwnIds {
                    seed,
                    given: 0,
                    thread,
                    threads,
                    is_second,
                })
            });
        Ok(config)
    }
}

/// Returns how the connecting end speaks QUIC.
pub(super) fn client(tls: Arc<rustls::ClientConfig>) -> Result<ClientConfig, rustls::Error> {
    let tls = QuicClientConfig::try_from(tls).map_err(|_| no_quic())?;
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(manner(0)));
    Ok(config)
}

/// Returns how the accepting end speaks QUIC.
pub(super) fn server(tls: Arc<rustls::ServerConfig>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let tls = QuicServerConfig::try_from(tls).map_err(|_| no_quic())?;
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    let streams = u32::try_from(CONNECTIONS_PER_HOST_MAX).expect("a small number");
    config
        .transport_config(Arc::new(manner(streams)))
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_MAX);
    Ok(Arc::new(config))
}

/// Returns what the other end of a session has shown; `None`: nothing of a host of the fleet.
pub(super) fn shown_by(session: &Connection, roots: &[Vec<u8>]) -> Option<CertificateFacts> {
    let handshake = session.handshake_data()?.downcast::<HandshakeData>().ok()?;
    let chain = session.peer_identity()?;
    let chain = chain.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    tls::shown_as(handshake.protocol.as_deref(), &chain, roots)
}

fn manner(streams: u32) -> TransportConfig {
    let mut manner = TransportConfig::default();
    manner
        .max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .initial_rtt(FIRST_ROUND_TRIP)
        .max_idle_timeout(Some(IdleTimeout::from(SILENCE_MAX)))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(SESSION_WINDOW_BYTES))
        .send_window(u64::from(STREAM_WINDOW_BYTES));
    manner
}

fn no_quic() -> rustls::Error {
    rustls::Error::General("the cryptographic library has no keys for QUIC".into())
}

/// Gives out IDs that lead to their thread, and say nothing else.
struct OwnIds {
    seed: [u8; 32],
    given: u64,
    thread: usize,
    threads: usize,
    is_second: bool,
}

impl ConnectionIdGenerator for OwnIds {
    fn generate_cid(&mut self) -> ConnectionId {
        loop {
            self.given += 1;
            let dice = [&self.seed[..], &self.given.to_be_bytes()].concat();
            let dice = trust::digest(b"mesh.v1.quic-id", &dice);
            let mut id = *dice
                .as_bytes()
                .first_chunk::<ID_BYTES>()
                .expect("it has 32");
            id[0] = marked(id[0], self.is_second);
            if thread_of(id[0], self.threads) == self.thread {
                return ConnectionId::new(&id);
            }
        }
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// What proves that this host has forgotten a connection. Made of the host's key, so that the daemon
/// after this one can tell the other ends, too, and they need not wait.
struct ResetKey(Digest);

impl ResetKey {
    fn of(identity: &StreamIdentity) -> Self {
        let key = identity.private_key.expose();
        Self(trust::digest(b"mesh.v1.quic-reset-key", key))
    }

    fn signed(&self, data: &[u8]) -> Digest {
        let input = [&self.0.as_bytes()[..], data].concat();
        trust::digest(b"mesh.v1.quic-reset", &input)
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature: &mut [u8]) {
        signature.copy_from_slice(self.signed(data).as_bytes());
    }

    fn signature_len(&self) -> usize {
        size_of::<Digest>()
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        // Only QUIC's other end compares, in constant time by itself.
        match self.signed(data).as_bytes() == signature {
            true => Ok(()),
            false => Err(CryptoError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_lead_to_their_thread_and_none_comes_twice() {
        let mut ids = OwnIds {
            seed: [1; 32],
            given: 0,
            thread: 2,
            threads: 3,
            is_second: true,
        };
        let mut given: Vec<Vec<u8>> = (0..500).map(|_| ids.generate_cid().to_vec()).collect();
        let is_right =
            |id: &Vec<u8>| id.len() == ID_BYTES && id[0] >> 7 == 1 && id[0] % 128 % 3 == 2;
        assert!(given.iter().all(is_right));
        given.sort_unstable();
        given.dedup();
        assert_eq!(given.len(), 500);
    }
}
