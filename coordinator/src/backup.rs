//! Backups: made while the coordinator runs, checked before they are trusted. A backup holds the
//! keys of the fleet's authority, so that it is given out on the coordinator's own machine only, to
//! root and group `mesh`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use data_encoding::BASE64;
use model::admin::{Backup, BackupEntry};
use model::control::{Refusal, RefusalCode};
use model::ids::Digest;
use model::name::Name;
use model::store::{KeyValue, StoreRevision};
use runtime::clock::Clock;
use runtime::local_socket::LocalPeer;

use crate::admin::{self, Failure};
use crate::store::{Listing, RedbStore, Store};

/// What a backup is made of.
pub(crate) struct BackupSource {
    pub(crate) fleet: Name,
    /// Not held open: whoever stops the coordinator closes it.
    pub(crate) store: Weak<RedbStore>,
    /// The authority's file.
    pub(crate) authority: PathBuf,
    pub(crate) clock: Clock,
}

/// Returns the route, for the local socket only.
pub(crate) fn router(source: BackupSource) -> Router {
    Router::new()
        .route(admin::BACKUP, get(backup))
        .method_not_allowed_fallback(|| async { Failure::no_such_method() })
        .with_state(Arc::new(source))
}

async fn backup(
    Extension(peer): Extension<LocalPeer>,
    State(source): State<Arc<BackupSource>>,
) -> Result<Response, Failure> {
    if !peer.trusted {
        let message = "only root and members of group mesh may do this; try sudo";
        return Err(Refusal::new(RefusalCode::Denied, message).into());
    }
    let failed = |why: String| {
        let text = format!("no backup was made: {why}");
        Failure::from(Refusal::new(RefusalCode::Unavailable, text))
    };
    let store = source.store.upgrade();
    let store = store.ok_or_else(|| failed("the coordinator is stopping".into()))?;
    let listing = store.range("").await;
    let listing = listing.map_err(|error| failed(error.to_string()))?;
    drop(store);
    // After the store: a key that something in it was signed with is in the file before.
    let authority = fs::read(&source.authority).map_err(|error| failed(error.to_string()))?;
    let taken_secs = source.clock.now().unix.as_secs();
    let made = make(&source.fleet, &authority, listing, taken_secs);
    tracing::info!(by = peer.uid, revision = made.revision, "a backup was made");
    Ok(Json(made).into_response())
}

fn make(fleet: &Name, authority: &[u8], listing: Listing, taken_secs: u64) -> Backup {
    let entries = listing.entries.into_iter().map(|stored| BackupEntry {
        key: stored.key,
        value: BASE64.encode(&stored.value),
        created: stored.create_revision.0,
        changed: stored.mod_revision.0,
    });
    let mut backup = Backup {
        format: Backup::FORMAT,
        fleet: fleet.clone(),
        software_version: env!("CARGO_PKG_VERSION").into(),
        taken_secs,
        revision: listing.revision.0,
        authority: BASE64.encode(authority),
        entries: entries.collect(),
        digest: Digest::from_bytes([0; 32]),
    };
    backup.digest = trust::sha256(&backup.sealed_bytes());
    backup
}

/// A backup that is whole.
pub(crate) struct Opened {
    pub(crate) backup: Backup,
    pub(crate) authority: Vec<u8>,
    pub(crate) listing: Listing,
}

/// Reads a backup from a file.
///
/// # Errors
/// It cannot be read, is of a later version, or is not what was written.
pub(crate) fn open(path: &Path) -> Result<Opened, String> {
    let failed = |why: String| format!("{} cannot be used as a backup: {why}", path.display());
    let bytes = fs::read(path).map_err(|error| failed(error.to_string()))?;
    let backup: Backup = serde_json::from_slice(&bytes)
        .map_err(|error| failed(format!("it is none, or was cut off ({error})")))?;
    if backup.format > Backup::FORMAT {
        return Err(failed(format!(
            "it has format {}, this version reads up to {}; use the version that wrote it ({})",
            backup.format,
            Backup::FORMAT,
            backup.software_version
        )));
    }
    if trust::sha256(&backup.sealed_bytes()) != backup.digest {
        return Err(failed("it was changed after it was written".into()));
    }
    let decode = |text: &str| {
        BASE64
            .decode(text.as_bytes())
            .map_err(|error| failed(error.to_string()))
    };
    let authority = decode(&backup.authority)?;
    let mut entries = Vec::with_capacity(backup.entries.len());
    for entry in &backup.entries {
        entries.push(KeyValue {
            key: entry.key.clone(),
            value: decode(&entry.value)?,
            create_revision: StoreRevision(entry.created),
            mod_revision: StoreRevision(entry.changed),
        });
    }
    let listing = Listing {
        revision: StoreRevision(backup.revision),
        entries,
    };
    Ok(Opened {
        backup,
        authority,
        listing,
    })
}
