//! The founding of a fleet, and taking it up again at every later start.
//!
//! A first start writes four things, in this order, each durable before the next: a note that a
//! fleet is being founded, the authority, the admin's credential, the fleet in the store. Then the
//! note goes. A start that finds the note goes on with what is missing; one that does not find it
//! expects everything, so that a lost store or lost keys are never taken for a first start.

use std::path::PathBuf;
use std::sync::Arc;

use fleet::{Bootstrap, BootstrapConfig, bootstrap};
use ipnet::IpNet;
use model::address::OverlayPrefixes;
use model::ids::Digest;
use model::name::Name;
use model::time::Now;
use runtime::clock::random_seed;
use runtime::config::Fault;
use runtime::state_dir::StateDir;

use crate::authority_file::{self, AuthorityFile};
use crate::credential_file;
use crate::overlap;
use crate::public;
use crate::restore;
use crate::settings::{FleetChoices, Settings};
use crate::store::{Listing, RedbStore, Store};

/// The note that a fleet is being founded.
const NOTE: &str = "founding";
/// The store's own directory.
pub(crate) const STORE: &str = "store";
/// The name of a fleet when nobody says another.
const DEFAULT_NAME: &str = "main";
/// The DNS suffix of a fleet when nobody says another.
const DEFAULT_SUFFIX: &str = "mesh.internal";

/// A fleet as it lies on the disk.
pub(crate) struct Founded {
    /// Its authority.
    pub(crate) authority: AuthorityFile,
    /// Its store, open.
    pub(crate) store: Arc<RedbStore>,
    /// Everything in it.
    pub(crate) listing: Listing,
    /// Where the first admin's credential is, after a first start.
    pub(crate) credential: Option<PathBuf>,
}

/// Takes up the fleet of the state directory, or founds one where there is none.
pub(crate) async fn take_up(
    state: &StateDir,
    choices: &FleetChoices,
    advertise: &[String],
    now: Now,
) -> Result<Founded, String> {
    if state.read(restore::NOTE).map_err(text)?.is_some() {
        return Err(format!(
            "a restore into {} was cut off; run `mesh-coordinator restore` with the same backup \
             again",
            state.file("").display()
        ));
    }
    let is_founding = begin(state)?;
    let authority = match AuthorityFile::read(state)? {
        Some(authority) => authority,
        None => AuthorityFile::create(state, chosen_name(choices), now.unix)?,
    };
    let store = open_store(state).await?;
    let listing = list(&store).await?;
    match (listing.entries.is_empty(), is_founding) {
        (true, false) => Err(lost(
            state,
            "the store is empty, but the fleet's authority is there",
        )),
        (true, true) => found(state, choices, advertise, authority, store, now).await,
        (false, _) => {
            state.remove(NOTE).map_err(text)?;
            // The start that wrote it may have ended before it could say so.
            let credential = is_founding.then(|| state.file(credential_file::FILE));
            Ok(Founded {
                authority,
                store,
                listing,
                credential,
            })
        }
    }
}

/// Returns whether a fleet is to be founded, now or further, and notes it.
fn begin(state: &StateDir) -> Result<bool, String> {
    if state.read(NOTE).map_err(text)?.is_some() {
        return Ok(true);
    }
    let has_authority = AuthorityFile::read(state)?.is_some();
    let has_store = state.file(STORE).try_exists().map_err(text)?;
    match (has_authority, has_store) {
        (true, true) => Ok(false),
        (false, false) => {
            let note = b"The first start of this coordinator has not ended yet; start it again.\n";
            state.write(NOTE, note).map_err(text)?;
            Ok(true)
        }
        (true, false) => Err(lost(
            state,
            "the fleet's authority is there, but its store is gone",
        )),
        (false, true) => Err(lost(
            state,
            "the fleet's store is there, but its authority is gone",
        )),
    }
}

fn lost(state: &StateDir, what: &str) -> String {
    format!(
        "{}: {what}; restore both from one backup (a new fleet needs an empty directory)",
        state.file("").display()
    )
}

async fn found(
    state: &StateDir,
    choices: &FleetChoices,
    advertise: &[String],
    file: AuthorityFile,
    store: Arc<RedbStore>,
    now: Now,
) -> Result<Founded, String> {
    // A start before this one may have made the authority, for a name that it was given.
    if let Some(name) = choices.name.as_ref().filter(|name| **name != file.fleet) {
        return Err(format!(
            "an earlier first start of this coordinator began a fleet named {}, not {name}; \
             start it with --fleet {}, or empty {}",
            file.fleet,
            file.fleet,
            state.file("").display()
        ));
    }
    let authority = file.authority()?;
    let overlay = choices.overlay(authority.fleet_id())?;
    let dns_suffix = choices.dns_suffix.as_deref().unwrap_or(DEFAULT_SUFFIX);
    judge(choices, &prefixes(overlay), advertise).map_err(|fault| fault.message)?;
    let config = BootstrapConfig {
        fleet_name: file.fleet.clone(),
        overlay: Some(overlay),
        dns_suffix: dns_suffix.to_owned(),
    };
    let seed = random_seed().map_err(|error| format!("the kernel gives no randomness: {error}"))?;
    let Bootstrap {
        transaction,
        admin_credential,
    } = bootstrap(&config, &authority, seed, now);
    let pin: Digest = authority.root_pin();
    // Before the commit: afterwards nobody could say the secret again.
    credential_file::write(state, &file.fleet, pin, advertise, &admin_credential).map_err(text)?;
    store
        .transaction(transaction)
        .await
        .map_err(|error| format!("the new fleet could not be stored: {error}"))?
        .map_err(|conflict| format!("the new fleet could not be stored: {conflict}"))?;
    state.remove(NOTE).map_err(text)?;
    let listing = list(&store).await?;
    let credential = Some(state.file(credential_file::FILE));
    Ok(Founded {
        authority: file,
        store,
        listing,
        credential,
    })
}

/// Judges settings as the next start will: those that are for the first start only while there is no
/// fleet yet. Of prefixes that a new fleet's id points to nothing is known before.
///
/// # Errors
/// Names the setting that the start would refuse.
pub(crate) fn check(settings: &Settings) -> Result<(), Fault> {
    let authority = settings.state_dir.join(authority_file::FILE);
    // Who may not look there is told what is wrong with a new fleet, which it may not be.
    if authority.try_exists().unwrap_or(true) {
        return Ok(());
    }
    let chosen = settings.fleet.prefixes();
    judge(&settings.fleet, &chosen, &settings.advertise)
}

/// Judges what is chosen for a new fleet.
fn judge(choices: &FleetChoices, prefixes: &[IpNet], advertise: &[String]) -> Result<(), Fault> {
    let of = |key| move |message| Fault { key, message };
    for prefix in prefixes {
        let key = match prefix {
            IpNet::V4(_) => "overlay_v4",
            IpNet::V6(_) => "overlay_v6",
        };
        if !choices.allow_public {
            public::refuse_prefix(*prefix).map_err(of(key))?;
        }
        overlap::refuse_routes(*prefix).map_err(of(key))?;
        overlap::refuse_advertised(*prefix, advertise).map_err(of("advertise"))?;
    }
    if !choices.allow_public {
        let suffix = choices.dns_suffix.as_deref().unwrap_or(DEFAULT_SUFFIX);
        public::refuse_suffix(suffix).map_err(of("dns_suffix"))?;
    }
    Ok(())
}

/// Returns the prefixes of an overlay.
pub(crate) fn prefixes(overlay: OverlayPrefixes) -> [IpNet; 2] {
    [IpNet::V4(overlay.v4), IpNet::V6(overlay.v6)]
}

fn chosen_name(choices: &FleetChoices) -> Name {
    let default = || DEFAULT_NAME.parse().expect("a constant name");
    choices.name.clone().unwrap_or_else(default)
}

async fn open_store(state: &StateDir) -> Result<Arc<RedbStore>, String> {
    let directory = state.file(STORE);
    let opened = tokio::task::spawn_blocking(move || RedbStore::open(&directory)).await;
    let opened = opened.map_err(|error| format!("the store could not be opened: {error}"))?;
    opened.map(Arc::new).map_err(text)
}

async fn list(store: &RedbStore) -> Result<Listing, String> {
    store.range("").await.map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
