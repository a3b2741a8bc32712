//! Certificates and certificate requests: what is believed says what was issued, and a request is
//! good only as it was signed.

use std::sync::LazyLock;

use model::ids::Digest;
use trust::Authority;
use trust::certificate::{CertificateFacts, facts, verify_chain, verify_pinned_chain};
use trust::enrolment::check_certificate_request;

use crate::Seed;
use crate::small_fleet::{NOW, SmallFleet, name, seeds as authority_seeds, tls_key};

/// What was issued.
struct Issued {
    root: Vec<u8>,
    pin: Digest,
    host: Vec<u8>,
    coordinator: Vec<u8>,
    request: Vec<u8>,
}

static ISSUED: LazyLock<Issued> = LazyLock::new(|| {
    let fleet = SmallFleet::new();
    let request = tls_key().certificate_request(&name("web-1"));
    Issued {
        root: fleet.authority.root_certificate().to_vec(),
        pin: fleet.authority.root_pin(),
        host: fleet.host_chain(&name("web-1"), &request).remove(0),
        coordinator: fleet.coordinator_chain().remove(0),
        request,
    }
});

/// Reads bytes as a certificate in every place where one can stand, and as a request.
pub fn target(bytes: &[u8]) {
    let certificate = bytes.to_vec();
    as_a_leaf(&certificate);
    as_a_root(certificate);
    as_a_request(bytes);
}

fn as_a_leaf(certificate: &[u8]) {
    let Issued { root, pin, .. } = &*ISSUED;
    let chain = [certificate.to_vec(), root.clone()];
    match facts(certificate) {
        Ok(facts) => {
            assert!(facts.not_before <= facts.not_after);
            let fleet = facts.spiffe.fleet();
            let _ = (facts.check_host(fleet), facts.check_coordinator(fleet));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let believed = verify_chain(&chain, std::slice::from_ref(root), NOW);
    if let Ok(facts) = &believed {
        assert!(was_issued(facts), "{facts:?}");
    }
    if let Ok(facts) = verify_pinned_chain(&chain, pin, NOW) {
        assert_eq!(believed, Ok(facts), "the pin takes nothing away");
    }
}

fn was_issued(found: &CertificateFacts) -> bool {
    [&ISSUED.host, &ISSUED.coordinator]
        .into_iter()
        .any(|issued| facts(issued).as_ref() == Ok(found))
}

fn as_a_root(certificate: Vec<u8>) {
    let Issued { root, host, .. } = &*ISSUED;
    let believed = verify_chain(
        std::slice::from_ref(host),
        std::slice::from_ref(&certificate),
        NOW,
    );
    assert!(
        believed.is_err() || facts(host) == believed,
        "a root says who is believed, not what is said"
    );
    let is_root = certificate == *root;
    let loaded = Authority::load(authority_seeds(), certificate);
    assert!(loaded.is_ok() || !is_root, "the root is its own");
}

fn as_a_request(bytes: &[u8]) {
    let Ok(checked) = check_certificate_request(bytes) else {
        assert_ne!(
            bytes, ISSUED.request,
            "the request is good as it was signed"
        );
        return;
    };
    assert_eq!(checked.tls_key_hash, trust::sha256(&checked.spki));
    if checked.public_key == tls_key().public() {
        assert_eq!(bytes, ISSUED.request, "nobody else can sign for this key");
    }
}

/// What the authority issues, and what it is asked with.
pub(crate) fn seeds() -> Vec<Seed> {
    let Issued {
        root,
        host,
        coordinator,
        request,
        ..
    } = &*ISSUED;
    vec![
        Seed::new("root", root.clone()),
        Seed::new("host", host.clone()),
        Seed::new("coordinator", coordinator.clone()),
        Seed::new("request", request.clone()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_issued_is_believed() {
        for issued in [&ISSUED.host, &ISSUED.coordinator] {
            let chain = [issued.clone(), ISSUED.root.clone()];
            let believed = verify_chain(&chain, &chain[1..], NOW);
            assert!(was_issued(&believed.unwrap()));
        }
    }
}
