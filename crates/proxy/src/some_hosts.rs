//! Hosts by their numbers, for tests.

use model::address::HostAddresses;
use model::ids::{Digest, FleetId, HostId, Revision};
use model::key::WireguardKey;
use model::name::Labels;
use model::record::HostRecord;

/// The host of a number.
pub(crate) const fn host(number: u8) -> HostId {
    HostId::from_bytes([number; HostId::LEN])
}

/// What is signed of it: `vm-1`, `vm-2`, and so on.
pub(crate) fn record(number: u8) -> HostRecord {
    HostRecord {
        fleet: FleetId::from_bytes([1; 16]),
        host: host(number),
        name: format!("vm-{number}").parse().unwrap(),
        labels: Labels::default(),
        wireguard_key: WireguardKey::from_bytes([number; 32]),
        tls_key_hash: Digest::from_bytes([number; 32]),
        addresses: HostAddresses {
            v4: [10, 0, 0, number].into(),
            v6: [number; 16].into(),
        },
        offers_aes_256_gcm: false,
        revision: Revision::default(),
    }
}
