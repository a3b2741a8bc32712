//! What the fleet signs besides records: certificates, and the first things of a new fleet.

use model::address::OverlayPrefixes;
use model::admin::{AuditOutcome, Role};
use model::ids::PolicyVersion;
use model::key::SecretBytes;
use model::name::Name;
use model::record::TrustStatement;
use model::store::{Compare, Expect, Key, Operation, Transaction};
use model::time::Now;
use policy::{first_policy, first_policy_files};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::Serialize;
use trust::authority::HOST_CERTIFICATE_LIFETIME;
use trust::{Authority, BundleTree, HostIdentity};

use crate::admins::{credential_text, stored_admin};
use crate::audit::{Deed, Stamp, first_entry};
use crate::config::BootstrapConfig;
use crate::fleet::Fleet;
use crate::keys::Place;
use crate::policies::{Version, signed_version};
use crate::stored::{StoredCurrentPolicy, StoredFleet, StoredSigned, encode};

/// The beginning of a fleet.
#[derive(Debug)]
pub struct Bootstrap {
    /// For an empty store; does nothing to one that has a fleet.
    pub transaction: Transaction,
    /// The first credential for the admin API, of `admin`, as text. Nothing else ever shows it.
    pub admin_credential: SecretBytes,
}

/// Prepares a new fleet: its trust statement, its first policy, its first admin.
pub fn bootstrap(
    config: &BootstrapConfig,
    authority: &Authority,
    seed: [u8; 32],
    now: Now,
) -> Bootstrap {
    let fleet = authority.fleet_id();
    let statement = TrustStatement {
        fleet,
        epoch: 1,
        serial: 1,
        fleet_name: config.fleet_name.clone(),
        root_certificates: vec![authority.root_certificate().to_vec()],
        record_keys: vec![authority.record_key()],
        enrolment_key: authority.enrolment_key(),
        dns_suffix: config.dns_suffix.clone(),
        overlay: config
            .overlay
            .unwrap_or_else(|| OverlayPrefixes::derived_from(fleet)),
        previous: None,
    };
    let created = Stamp::new("the first start", now.unix);
    let stored_fleet = StoredFleet {
        trust: StoredSigned::from(&authority.sign_trust(&statement)),
        overlay: statement.overlay,
        created: created.clone(),
    };
    let first = PolicyVersion(1);
    let version = Version {
        fleet,
        epoch: statement.epoch,
        version: first,
        previous: None,
        earlier: &BundleTree::default(),
        bundle: &first_policy(),
        files: first_policy_files(&config.fleet_name),
        message: "ping from any to any, everything else is denied".to_owned(),
        applied: created.clone(),
    };
    let mut random = ChaCha20Rng::from_seed(seed);
    let mut secret = [0; 16];
    random.fill_bytes(&mut secret);
    let name: Name = "admin".parse().expect("a valid name");
    let admin = stored_admin(&name, Role::Admin, &secret, created, None);
    let credential = credential_text(&name, &secret);
    let mut transaction = Transaction::default();
    create(&mut transaction, Place::Fleet.key(), &stored_fleet);
    create(
        &mut transaction,
        Place::PolicyVersion(first).key(),
        &signed_version(authority, version),
    );
    create(
        &mut transaction,
        Place::CurrentPolicy.key(),
        &StoredCurrentPolicy { version: first },
    );
    create(&mut transaction, Place::Admin(name).key(), &admin);
    let founding = Deed {
        who: "the first start".to_owned(),
        from: "local".to_owned(),
        action: "fleet.found".to_owned(),
        outcome: AuditOutcome::Done,
        reason: format!("fleet {}", config.fleet_name),
    };
    first_entry(founding, &mut transaction, now.unix);
    Bootstrap {
        transaction,
        admin_credential: SecretBytes::new(credential.into_bytes()),
    }
}

fn create<T: Serialize>(transaction: &mut Transaction, key: Key, value: &T) {
    transaction.compare.push(Compare {
        key: key.clone(),
        expect: Expect::Absent,
    });
    transaction
        .operations
        .push(Operation::put(key, encode(value)));
}

impl Fleet {
    /// Issues a certificate for the key of a checked request; the chain, or why not.
    pub(crate) fn issue_certificate(
        &mut self,
        host_name: &Name,
        request: &[u8],
        now: Now,
    ) -> Result<Vec<Vec<u8>>, String> {
        let identity = HostIdentity {
            fleet_name: self.state.statement.fleet_name.clone(),
            host_name: host_name.clone(),
        };
        let serial = self.random();
        self.authority
            .issue_host(
                &identity,
                request,
                now.unix,
                HOST_CERTIFICATE_LIFETIME,
                serial,
            )
            .map_err(|error| error.to_string())
    }
}
