//! TLS 1.3 between two hosts of a fleet, for the streams of services. Both show their certificates;
//! whether the key is the one of a record that holds is asked when the handshake is over.

use std::sync::Arc;

use model::identity::SpiffeId;
use model::name::Name;
use model::time::UnixTime;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime as RustlsTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{
    ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName, ServerConfig,
    SignatureScheme,
};
use trust::certificate::{self, CertificateFacts};

use super::{algorithms, certified_key, not_believed, owned, presented, provider};

/// What the streams of services are called in the handshake.
pub const STREAMS_ALPN: &[u8] = b"mesh-streams/1";

/// Makes the connecting end. It believes every host of the fleet; the caller has to ask
/// [`shown_by`] which one answered.
///
/// # Errors
/// The key or the chain cannot be used.
pub fn stream_client(
    roots: Vec<Vec<u8>>,
    fleet: Name,
    chain: &[Vec<u8>],
    key_pkcs8: &[u8],
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let own = certified_key(chain, key_pkcs8)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(MemberVerifier::new(roots, fleet))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    // The verifier is not asked again on resumption, and what it said may have changed since.
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config.alpn_protocols = vec![STREAMS_ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// Makes the accepting end. Who shows no certificate of a host of the fleet is not let in; the caller
/// has to ask [`shown_by`] which host it is.
///
/// # Errors
/// The key or the chain cannot be used.
pub fn stream_server(
    roots: Vec<Vec<u8>>,
    fleet: Name,
    chain: &[Vec<u8>],
    key_pkcs8: &[u8],
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let own = certified_key(chain, key_pkcs8)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
        .with_client_cert_verifier(MemberVerifier::new(roots, fleet))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![STREAMS_ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// Returns what the certificate says that the other end has shown; `None` when it speaks another
/// protocol, or before the handshake is over.
pub fn shown_by(connection: &CommonState, roots: &[Vec<u8>]) -> Option<CertificateFacts> {
    shown_as(
        connection.alpn_protocol(),
        connection.peer_certificates()?,
        roots,
    )
}

/// As [`shown_by`], of a handshake whose keys another library has, as QUIC's.
pub fn shown_as(
    protocol: Option<&[u8]>,
    chain: &[CertificateDer<'_>],
    roots: &[Vec<u8>],
) -> Option<CertificateFacts> {
    if protocol != Some(STREAMS_ALPN) {
        return None;
    }
    certificate::verify_chain_of_any_age(&owned(chain), roots, crate::clock::unix_now()).ok()
}

/// Believes the hosts of a fleet, also those whose certificate has expired: what they may is said by
/// records, which do not, and a fleet whose coordinator is away goes on.
#[derive(Debug)]
struct MemberVerifier {
    roots: Vec<Vec<u8>>,
    fleet: Name,
    algorithms: WebPkiSupportedAlgorithms,
}

/// The certificate is good, but it is not a host's of this fleet.
#[derive(Debug, thiserror::Error)]
#[error("it shows the identity {0}, which is not a host of this fleet")]
struct NotAHost(SpiffeId);

impl MemberVerifier {
    fn new(roots: Vec<Vec<u8>>, fleet: Name) -> Arc<Self> {
        Arc::new(Self {
            roots,
            fleet,
            algorithms: algorithms(),
        })
    }

    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: RustlsTime,
    ) -> Result<(), rustls::Error> {
        let chain = presented(end_entity, intermediates);
        let now = UnixTime::from_secs(now.as_secs());
        let facts =
            certificate::verify_chain_of_any_age(&chain, &self.roots, now).map_err(not_believed)?;
        match facts.check_host(&self.fleet) {
            Ok(_) => Ok(()),
            Err(_) => Err(not_believed(NotAHost(facts.spiffe))),
        }
    }
}

impl ServerCertVerifier for MemberVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: RustlsTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
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

impl ClientCertVerifier for MemberVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: RustlsTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(end_entity, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
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

fn no_tls12() -> rustls::Error {
    rustls::Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered)
}
