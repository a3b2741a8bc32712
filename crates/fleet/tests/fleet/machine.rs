//! A machine that may join: its keys, and what it shows to prove that it has them.

use model::control::EnrolRequest;
use model::ids::Digest;
use model::key::Secret;
use trust::JoinToken;
use trust::enrolment::{TlsKey, Transcript, wireguard_proof, wireguard_public};

use crate::world::{World, name};

/// A machine with its own keys.
#[derive(Clone)]
pub(crate) struct Machine {
    wireguard: Secret,
    tls: Secret,
    machine_id: String,
}

impl Machine {
    pub(crate) fn new(seed: u16) -> Self {
        let bytes = |kind: u8| {
            let mut bytes = [kind; 32];
            bytes[1..3].copy_from_slice(&seed.to_be_bytes());
            Secret::from_bytes(bytes)
        };
        Self {
            wireguard: bytes(1),
            tls: bytes(2),
            machine_id: format!("machine-{seed}"),
        }
    }

    /// The same keys on another machine.
    pub(crate) fn cloned_to(&self, machine_id: &str) -> Self {
        Self {
            machine_id: machine_id.to_owned(),
            ..self.clone()
        }
    }

    /// The same machine with other keys.
    pub(crate) fn with_fresh_keys(&self, seed: u16) -> Self {
        Self {
            machine_id: self.machine_id.clone(),
            ..Self::new(seed)
        }
    }

    pub(crate) fn wireguard(&self) -> &Secret {
        &self.wireguard
    }

    pub(crate) fn with_wireguard(&self, wireguard: Secret) -> Self {
        Self {
            wireguard,
            ..self.clone()
        }
    }

    pub(crate) fn with_tls_key_of(self, other: &Self) -> Self {
        Self {
            tls: other.tls.clone(),
            ..self
        }
    }

    pub(crate) fn tls_key_hash(&self) -> Digest {
        TlsKey::from_seed(self.tls.clone()).public_key_hash()
    }

    pub(crate) fn certificate_request(&self, host: &str) -> Vec<u8> {
        TlsKey::from_seed(self.tls.clone()).certificate_request(&name(host))
    }

    pub(crate) fn request(&self, world: &World, token: &JoinToken, host: &str) -> EnrolRequest {
        let (_, statement) = world.anchors();
        let host_name = name(host);
        let certificate_request = self.certificate_request(host);
        let wireguard_key = wireguard_public(&self.wireguard);
        let transcript = Transcript {
            fleet: statement.fleet,
            token: token.id,
            name: &host_name,
            wireguard_key,
            certificate_request: &certificate_request,
        };
        let wireguard_proof =
            wireguard_proof(&self.wireguard, &statement.enrolment_key, &transcript).unwrap();
        EnrolRequest {
            token: token.id,
            token_secret: token.secret,
            name: host_name,
            wireguard_key,
            certificate_request,
            wireguard_proof,
            software_version: "1.2.3".into(),
            machine_id: self.machine_id.clone(),
            features: Vec::new(),
        }
    }
}
