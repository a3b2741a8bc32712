//! Makes X.509 certificates. Everything in them is passed in, the serial number too, so that the
//! same request at the same time gives the same bytes.

use std::net::IpAddr;
use std::time::Duration;

use model::identity::SpiffeId;
use model::name::Name;
use model::time::UnixTime;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SanType, SerialNumber,
    SignatureAlgorithm,
};
use rustls_pki_types::CertificateDer;

use crate::certificate;
use crate::signing::{SigningKey, first_half};

/// How long a root is valid: it is replaced by rotation, long before.
const ROOT_LIFETIME: Duration = Duration::from_secs(20 * 365 * 24 * 60 * 60);
/// How far a root reaches back, for hosts whose clocks are slow.
const ROOT_BACKDATE: Duration = Duration::from_secs(24 * 60 * 60);
/// How far a leaf reaches back, for hosts whose clocks are slow.
const LEAF_BACKDATE: Duration = Duration::from_secs(60 * 60);
/// The last second that X.509 can name (RFC 5280 4.1.2.5).
const LAST_SECOND: u64 = 253_402_300_799;

/// What a certificate of a member says.
pub(crate) struct Leaf<'a> {
    pub(crate) identity: &'a SpiffeId,
    pub(crate) public: &'a [u8; 32],
    pub(crate) dns_names: &'a [String],
    pub(crate) addresses: &'a [IpAddr],
    pub(crate) now: UnixTime,
    pub(crate) lifetime: Duration,
    pub(crate) serial: [u8; 16],
}

/// Makes the self-signed root certificate of a fleet, DER.
pub(crate) fn root(key: &SigningKey, fleet_name: &Name, now: UnixTime) -> Vec<u8> {
    self_signed(key, format!("mesh fleet {fleet_name}"), now)
}

/// Makes the self-signed root certificate that follows an earlier one, DER.
pub(crate) fn next_root(
    key: &SigningKey,
    fleet_name: &Name,
    number: u64,
    now: UnixTime,
) -> Vec<u8> {
    self_signed(key, format!("mesh fleet {fleet_name}, root {number}"), now)
}

fn self_signed(key: &SigningKey, common_name: String, now: UnixTime) -> Vec<u8> {
    let mut params = params(common_name);
    set_validity(&mut params, before(now, ROOT_BACKDATE), now + ROOT_LIFETIME);
    params.serial_number = Some(serial(first_half(crate::sha256(&key.public()))));
    make_authority(&mut params);
    params
        .self_signed(&Key(key))
        .expect("a root has only fields that can be encoded")
        .der()
        .to_vec()
}

/// Makes the certificate by which those who know only an old root believe what a new one issues,
/// DER: the new root's name, key and validity, signed by the old root. Always the same bytes.
///
/// # Errors
/// One of the two is no certificate of an Ed25519 authority.
pub(crate) fn cross(
    old_key: &SigningKey,
    old_root: &[u8],
    new_root: &[u8],
) -> Result<Vec<u8>, rcgen::Error> {
    let public = certificate::root_public_key(new_root)
        .map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
    let root = certificate::root_facts(new_root).ok_or(rcgen::Error::CouldNotParseCertificate)?;
    let mut params = params(root.common_name);
    set_validity(&mut params, root.not_before, root.not_after);
    params.serial_number = Some(serial(first_half(crate::sha256(new_root))));
    params.use_authority_key_identifier_extension = true;
    make_authority(&mut params);
    sign(&params, &public, old_key, old_root)
}

fn make_authority(params: &mut CertificateParams) {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
}

/// Makes a member's certificate, DER.
///
/// # Errors
/// A DNS name is none.
pub(crate) fn leaf(
    root_key: &SigningKey,
    root_certificate: &[u8],
    leaf: &Leaf<'_>,
) -> Result<Vec<u8>, rcgen::Error> {
    let name = match leaf.identity {
        SpiffeId::Host { host, .. } => host,
        SpiffeId::Coordinator { coordinator, .. } => coordinator,
    };
    let mut params = params(name.to_string());
    set_validity(
        &mut params,
        before(leaf.now, LEAF_BACKDATE),
        leaf.now + leaf.lifetime,
    );
    params.serial_number = Some(serial(leaf.serial));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    params
        .subject_alt_names
        .push(SanType::URI(leaf.identity.to_string().try_into()?));
    for dns_name in leaf.dns_names {
        params
            .subject_alt_names
            .push(SanType::DnsName(dns_name.as_str().try_into()?));
    }
    params
        .subject_alt_names
        .extend(leaf.addresses.iter().copied().map(SanType::IpAddress));
    sign(&params, leaf.public, root_key, root_certificate)
}

/// Signs a certificate for `public` with the key and the name of an issuer.
///
/// # Errors
/// The issuer's certificate is none, or a field cannot be encoded.
pub(crate) fn sign(
    params: &CertificateParams,
    public: &[u8; 32],
    issuer_key: &SigningKey,
    issuer_certificate: &[u8],
) -> Result<Vec<u8>, rcgen::Error> {
    let certificate = CertificateDer::from(issuer_certificate);
    let issuer = Issuer::from_ca_cert_der(&certificate, Key(issuer_key))?;
    Ok(params.signed_by(&Public(public), &issuer)?.der().to_vec())
}

/// Makes a PKCS#10 certificate request, DER.
pub(crate) fn request(key: &SigningKey, name: &Name) -> Vec<u8> {
    params(name.to_string())
        .serialize_request(&Key(key))
        .expect("a request has only fields that can be encoded")
        .der()
        .to_vec()
}

fn params(common_name: String) -> CertificateParams {
    let mut distinguished_name = DistinguishedName::new();
    distinguished_name.push(DnType::CommonName, common_name);
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name;
    params
}

/// Makes a serial number positive, and of one length, whatever the bytes (RFC 5280 4.1.2.2).
fn serial(mut bytes: [u8; 16]) -> SerialNumber {
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn before(time: UnixTime, by: Duration) -> UnixTime {
    UnixTime::from_duration(time.since_epoch().saturating_sub(by))
}

fn set_validity(params: &mut CertificateParams, not_before: UnixTime, not_after: UnixTime) {
    let since_epoch = |time: UnixTime| Duration::from_secs(time.as_secs().min(LAST_SECOND));
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch(not_before);
    params.not_after = epoch + since_epoch(not_after);
}

/// A private key as `rcgen` wants it.
struct Key<'a>(&'a SigningKey);

impl PublicKeyData for Key<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

impl rcgen::SigningKey for Key<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.0.sign_bytes(message).to_vec())
    }
}

/// A public key as `rcgen` wants it.
struct Public<'a>(&'a [u8; 32]);

impl PublicKeyData for Public<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}
