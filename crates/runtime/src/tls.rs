//! TLS 1.3 of the control channel and the admin API. Whom to believe is decided by `trust`; here
//! it is plugged into rustls.

mod client_roots;
mod members;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use model::identity::SpiffeId;
use model::ids::Digest;
use model::name::Name;
use model::time::UnixTime;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime as RustlsTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use trust::certificate::{self, CertificateError, CertificateFacts};

pub use client_roots::ClientRoots;
pub use members::{STREAMS_ALPN, shown_as, shown_by, stream_client, stream_server};

/// How long one address may take to answer, TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why no coordinator could be reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ConnectError {
    /// What failed, why, what to try; one sentence for each address.
    pub message: String,
    /// At least one address answered and was not believed.
    pub untrusted: bool,
    /// It was not believed since its certificate is not valid at the time of this machine's clock.
    pub clock: bool,
}

/// Connects to the first of `addresses` (`host:port`) that answers and is believed.
///
/// # Errors
/// Says of each address why not.
pub async fn connect(
    addresses: &[String],
    config: Arc<ClientConfig>,
) -> Result<(TlsStream<TcpStream>, String), ConnectError> {
    let mut failures = Vec::new();
    let (mut untrusted, mut clock) = (false, false);
    for address in addresses {
        match tokio::time::timeout(CONNECT_TIMEOUT, connect_one(address, Arc::clone(&config))).await {
            Ok(Ok(stream)) => return Ok((stream, address.clone())),
            Ok(Err(failure)) => {
                untrusted |= failure.untrusted;
                clock |= failure.clock;
                failures.push(failure.message);
            }
            Err(_) => failures.push(format!(
                "cannot reach the coordinator at {address} (no answer within {} s); is its TCP port open from here?",
                CONNECT_TIMEOUT.as_secs()
            )),
        }
    }
    if failures.is_empty() {
        failures.push("no coordinator address is known".into());
    }
    Err(ConnectError {
        message: failures.join("; "),
        untrusted,
        clock,
    })
}

async fn connect_one(
    address: &str,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let unknown = |why: String| ConnectError {
        message: format!(
            "cannot find the coordinator at {address} ({why}); does its name resolve here?"
        ),
        untrusted: false,
        clock: false,
    };
    let found = lookup_host(address).await;
    let found: Vec<SocketAddr> = found.map_err(|error| unknown(error.to_string()))?.collect();
    if found.is_empty() {
        return Err(unknown("the name has no address".to_owned()));
    }
    let stream = TcpStream::connect(&found[..]).await.map_err(|error| ConnectError {
        message: format!("cannot reach the coordinator at {address} ({error}); is it running, and is its TCP port open from here?"),
        untrusted: false,
        clock: false,
    })?;
    stream.set_nodelay(true).map_err(|error| ConnectError {
        message: format!("cannot set up the connection to {address}: {error}"),
        untrusted: false,
        clock: false,
    })?;
    // Identity is the SPIFFE id in the certificate; the name is only a formality of the protocol.
    let name = ServerName::try_from("coordinator.mesh.internal").expect("a constant DNS name");
    TlsConnector::from(config)
        .connect(name, stream)
        .await
        .map_err(|error| tls_failure(address, &error))
}

fn tls_failure(address: &str, error: &std::io::Error) -> ConnectError {
    let rustls_error = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match rustls_error {
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other))) => {
            let clock = other
                .0
                .downcast_ref::<CertificateError>()
                .is_some_and(|error| {
                    matches!(
                        error,
                        CertificateError::Expired { .. } | CertificateError::NotYetValid { .. }
                    )
                });
            ConnectError {
                message: format!("{address} answered, but is not believed: {other}"),
                untrusted: true,
                clock,
            }
        }
        Some(rustls::Error::InvalidMessage(_)) => ConnectError {
            message: format!(
                "{address} answered, but speaks no TLS; is another program on that port, or a proxy in between?"
            ),
            untrusted: false,
            clock: false,
        },
        Some(error) => ConnectError {
            message: format!(
                "{address} answered, but TLS failed ({error}); is another program on that port?"
            ),
            untrusted: false,
            clock: false,
        },
        None => ConnectError {
            message: format!("the connection to {address} broke: {error}"),
            untrusted: false,
            clock: false,
        },
    }
}

/// Believes the coordinator whose root certificate has this SHA-256: for joining, and for
/// operators. Shows no certificate of its own.
pub fn pinned_client(pin: Digest) -> Arc<ClientConfig> {
    client(
        Arc::new(CoordinatorVerifier {
            belief: Belief::Pin(pin),
            algorithms: algorithms(),
        }),
        None,
    )
}

/// Believes the coordinators of a fleet, and shows the host's certificate.
///
/// # Errors
/// The key or the chain cannot be used.
pub fn member_client(
    roots: Vec<Vec<u8>>,
    fleet: Name,
    chain: &[Vec<u8>],
    key_pkcs8: &[u8],
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let verifier = CoordinatorVerifier {
        belief: Belief::Roots { roots, fleet },
        algorithms: algorithms(),
    };
    let own = certified_key(chain, key_pkcs8)?;
    Ok(client(Arc::new(verifier), Some(own)))
}

fn client(verifier: Arc<CoordinatorVerifier>, own: Option<CertifiedKey>) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match own {
        Some(own) => {
            builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(own)))
        }
        None => builder.with_no_client_auth(),
    };
    // The verifier is not asked again on resumption, and what it said may have changed since.
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// The certificate that a server shows; it can be replaced while the server runs.
pub struct ServerIdentity {
    current: RwLock<Arc<CertifiedKey>>,
}

impl ServerIdentity {
    /// Takes a chain (DER, leaf first) and its PKCS#8 key.
    ///
    /// # Errors
    /// The key or the chain cannot be used.
    pub fn new(chain: &[Vec<u8>], key_pkcs8: &[u8]) -> Result<Self, rustls::Error> {
        Ok(Self {
            current: RwLock::new(Arc::new(certified_key(chain, key_pkcs8)?)),
        })
    }

    /// Shows another certificate from now on.
    ///
    /// # Errors
    /// The key or the chain cannot be used; the old one stays.
    pub fn replace(&self, chain: &[Vec<u8>], key_pkcs8: &[u8]) -> Result<(), rustls::Error> {
        let next = Arc::new(certified_key(chain, key_pkcs8)?);
        *self
            .current
            .write()
            .expect("nobody panics with the lock held") = next;
        Ok(())
    }
}

impl fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerIdentity(..)")
    }
}

impl ResolvesServerCert for ServerIdentity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(
            &self
                .current
                .read()
                .expect("nobody panics with the lock held"),
        ))
    }
}

/// Serves HTTP/2 and HTTP/1.1. Clients may show a certificate of these roots; one that is expired,
/// or was issued by a clock that ran ahead, is let in too, since its host must be able to renew it:
/// what it opens is decided by `fleet`.
pub fn server(identity: Arc<ServerIdentity>, roots: Arc<ClientRoots>) -> Arc<ServerConfig> {
    let verifier = Arc::new(HostVerifier {
        roots,
        algorithms: algorithms(),
    });
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(identity);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

/// Returns what the client's certificate says; `None` when it showed none.
pub fn client_facts(
    connection: &rustls::ServerConnection,
    roots: &ClientRoots,
) -> Option<CertificateFacts> {
    let chain = connection.peer_certificates()?;
    certificate::verify_chain_of_any_age(&owned(chain), &roots.current(), crate::clock::unix_now())
        .ok()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms
}

fn certified_key(chain: &[Vec<u8>], key_pkcs8: &[u8]) -> Result<CertifiedKey, rustls::Error> {
    let chain = chain
        .iter()
        .map(|der| CertificateDer::from(der.clone()))
        .collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key_pkcs8.to_vec()));
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)?;
    Ok(CertifiedKey::new(chain, key))
}

fn owned(chain: &[CertificateDer<'_>]) -> Vec<Vec<u8>> {
    chain.iter().map(|der| der.as_ref().to_vec()).collect()
}

fn presented(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Vec<Vec<u8>> {
    let mut chain = vec![end_entity.as_ref().to_vec()];
    chain.extend(owned(intermediates));
    chain
}

fn not_believed(error: impl std::error::Error + Send + Sync + 'static) -> rustls::Error {
    rustls::Error::InvalidCertificate(rustls::CertificateError::Other(rustls::OtherError(
        Arc::new(error),
    )))
}

/// Whom a client believes to be a coordinator.
#[derive(Debug)]
enum Belief {
    Pin(Digest),
    Roots { roots: Vec<Vec<u8>>, fleet: Name },
}

#[derive(Debug)]
struct CoordinatorVerifier {
    belief: Belief,
    algorithms: WebPkiSupportedAlgorithms,
}

/// The certificate is good, but it is not a coordinator's of this fleet.
#[derive(Debug, thiserror::Error)]
#[error("it shows the identity {0}, which is not a coordinator of this fleet")]
struct NotACoordinator(SpiffeId);

impl ServerCertVerifier for CoordinatorVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: RustlsTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = presented(end_entity, intermediates);
        let now = UnixTime::from_secs(now.as_secs());
        let facts = match &self.belief {
            Belief::Pin(pin) => certificate::verify_pinned_chain(&chain, pin, now),
            Belief::Roots { roots, .. } => certificate::verify_chain(&chain, roots, now),
        }
        .map_err(not_believed)?;
        let right = match (&facts.spiffe, &self.belief) {
            (
                SpiffeId::Coordinator { fleet, .. },
                Belief::Roots {
                    fleet: expected, ..
                },
            ) => fleet == expected,
            (SpiffeId::Coordinator { .. }, Belief::Pin(_)) => true,
            (SpiffeId::Host { .. }, _) => false,
        };
        if right {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(not_believed(NotACoordinator(facts.spiffe)))
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::PeerIncompatible(
            rustls::PeerIncompatible::Tls12NotOffered,
        ))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[derive(Debug)]
struct HostVerifier {
    roots: Arc<ClientRoots>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for HostVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: RustlsTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let chain = presented(end_entity, intermediates);
        let roots = self.roots.current();
        let now = UnixTime::from_secs(now.as_secs());
        certificate::verify_chain_of_any_age(&chain, &roots, now).map_err(not_believed)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::PeerIncompatible(
            rustls::PeerIncompatible::Tls12NotOffered,
        ))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
