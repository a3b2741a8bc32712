//! Whether what a store holds is a fleet: everything can be read, every signature holds, and every
//! claim (a name, a key, an address) is that of the host whose record says so.

use model::address::OverlayPrefixes;
use model::ids::{Digest, PolicyVersion};
use model::name::Name;
use model::store::{KeyValue, StoreRevision};

use crate::keys::Place;
use crate::state::{Host, State};
use crate::stored::{StoredFleet, decode};

/// What is in a store that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The fleet's name.
    pub fleet: Name,
    /// Its epoch.
    pub epoch: u64,
    /// Members.
    pub hosts: usize,
    /// Hosts that are no more.
    pub removed: usize,
    /// The policy in force.
    pub policy: PolicyVersion,
}

/// Checks everything that a store holds at `revision`. `root_pins` are those of the roots whose keys
/// are there, the oldest first.
///
/// # Errors
/// Says what is wrong first, and what to try.
pub fn verify(
    root_pins: &[Digest],
    entries: &[KeyValue],
    revision: StoreRevision,
) -> Result<Verified, String> {
    let state = State::load(root_pins, entries, revision).map_err(|error| error.to_string())?;
    if let Some(later) = entries.iter().find(|it| it.mod_revision > revision) {
        return Err(format!(
            "{} was changed at revision {}, but the store is at {revision}; restore a backup",
            later.key, later.mod_revision
        ));
    }
    for host in state.hosts.values() {
        check_claims(&state, host)?;
    }
    if state.policy.head.is_none() {
        return Err(format!(
            "policy version {} is in force, but missing; restore a backup",
            state.policy.version
        ));
    }
    state
        .audit
        .check()
        .map_err(|broken| format!("the audit log was changed: {broken}"))?;
    Ok(Verified {
        fleet: state.statement.fleet_name.clone(),
        epoch: state.statement.epoch,
        hosts: state.hosts.len(),
        removed: state.tombstones.len(),
        policy: state.policy.version,
    })
}

/// Returns the prefixes of the overlay that a store's fleet has, as the store says; `None`: it has no
/// fleet that can be read, which `Fleet::new` tells.
pub fn stored_overlay(entries: &[KeyValue]) -> Option<OverlayPrefixes> {
    let key = Place::Fleet.key();
    let stored = entries.iter().find(|stored| stored.key == key)?;
    Some(decode::<StoredFleet>(&stored.value).ok()?.overlay)
}

fn check_claims(state: &State, host: &Host) -> Result<(), String> {
    let record = &host.record;
    let (id, name) = (record.host, &record.name);
    let owner = state.names.get(name);
    let has_name = owner.is_some_and(|it| it.host == id && it.reserved_until_secs.is_none());
    let has_key = state.wireguard_keys.get(&record.wireguard_key) == Some(&id);
    let address = state.addresses.get(&host.address_index);
    let has_address = address.is_some_and(|it| it.host == id && it.resting_until_secs.is_none());
    let is_at_index = state.nth_addresses(host.address_index) == Some(record.addresses);
    let missing = [
        (has_name, "name"),
        (has_key, "key"),
        (has_address && is_at_index, "address"),
    ];
    match missing.iter().find(|(holds, _)| !holds) {
        None => Ok(()),
        Some((_, what)) => Err(format!(
            "host {name} ({id}) does not hold its own {what}; restore a backup"
        )),
    }
}
