//! `mesh-coordinator restore` and `store verify`: what is done while no coordinator runs.
//!
//! A restore writes a note, the store, the authority, in this order, each durable before the next;
//! then the note goes. A start that finds the note refuses, a restore that finds it begins again.

use std::fs;
use std::path::Path;

use model::name::Name;
use model::time::Now;
use runtime::clock::Clock;
use runtime::state_dir::StateDir;
use trust::Authority;

use crate::authority_file::{self, AuthorityFile};
use crate::backup::{self, Opened};
use crate::founding::STORE;
use crate::recover::recover;
use crate::settings::{AdminTask, Settings, StoreTask, Task};
use crate::store::{Listing, RedbStore, Store};

/// The note that a restore has begun and not ended.
pub(crate) const NOTE: &str = "restoring";

/// Does what is asked instead of running; returns what to tell.
///
/// # Errors
/// A sentence that says what failed, why, and what to try.
pub async fn run(task: Task, settings: &Settings) -> Result<String, String> {
    match task {
        Task::Restore { file } => restore(settings, &file).await,
        Task::Store(StoreTask::Verify { backup }) => verify(settings, backup.as_deref()).await,
        Task::Admin(AdminTask::Recover { name, out }) => {
            recover(settings, &name, out.as_deref()).await
        }
    }
}

/// Makes a coordinator's state directory of a backup. The next start asks the fleet's hosts what
/// they remember since.
///
/// # Errors
/// The backup cannot be used, or there is a fleet already; nothing was changed then.
pub async fn restore(settings: &Settings, file: &Path) -> Result<String, String> {
    let opened = backup::open(file)?;
    let authority = AuthorityFile::parse(&opened.authority)?.authority()?;
    let summary = summary(&authority, &opened.listing)?;
    let state = StateDir::open(&settings.state_dir, "mesh-coordinator").map_err(text)?;
    refuse_a_fleet(&state)?;
    let note = b"A restore of this coordinator has not ended; run it again.\n";
    state.write(NOTE, note).map_err(text)?;
    remove_unfinished(&state)?;
    write(&state, &opened, Clock::start().now()).await?;
    state.remove(NOTE).map_err(text)?;
    Ok(format!(
        "restored {summary}, as it was {}. Start mesh-coordinator now: it asks the hosts what they \
         remember since then, and takes no orders until they have told it (`meshctl recovery`)",
        taken(opened.backup.taken_secs)
    ))
}

async fn write(state: &StateDir, opened: &Opened, now: Now) -> Result<(), String> {
    let directory = state.file(STORE);
    let listing = opened.listing.clone();
    let store = tokio::task::spawn_blocking(move || RedbStore::create_from(&directory, &listing));
    let store = store.await.map_err(text)?.map_err(text)?;
    let why = format!(
        "it was restored from a backup that was made {}",
        taken(opened.backup.taken_secs)
    );
    let marked = store.transaction(fleet::restored(&why, now)).await;
    marked.map_err(text)?.map_err(text)?;
    drop(store);
    state
        .write(authority_file::FILE, &opened.authority)
        .map_err(text)
}

fn refuse_a_fleet(state: &StateDir) -> Result<(), String> {
    if state.read(NOTE).map_err(text)?.is_some() {
        return Ok(());
    }
    let has_authority = state.read(authority_file::FILE).map_err(text)?.is_some();
    let has_store = state.file(STORE).try_exists().map_err(text)?;
    if has_authority || has_store {
        return Err(format!(
            "there is a fleet in {} already; move the directory away first, so that nothing of it \
             is lost",
            state.file("").display()
        ));
    }
    Ok(())
}

/// What a restore left that was cut off.
fn remove_unfinished(state: &StateDir) -> Result<(), String> {
    state.remove(authority_file::FILE).map_err(text)?;
    match fs::remove_dir_all(state.file(STORE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(text(error)),
        _ => Ok(()),
    }
}

/// Checks the store of the state directory, or a backup: every signature, every claim.
///
/// # Errors
/// Says what is wrong with it.
pub async fn verify(settings: &Settings, file: Option<&Path>) -> Result<String, String> {
    if let Some(file) = file {
        let opened = backup::open(file)?;
        let authority = AuthorityFile::parse(&opened.authority)?.authority()?;
        let taken = taken(opened.backup.taken_secs);
        return Ok(format!(
            "{}, made {taken}",
            summary(&authority, &opened.listing)?
        ));
    }
    let state = StateDir::open(&settings.state_dir, "mesh-coordinator").map_err(text)?;
    if !state.file(STORE).try_exists().map_err(text)? {
        return Err(format!("there is no store in {}", state.file("").display()));
    }
    let authority = AuthorityFile::read(&state)?.ok_or_else(|| {
        let directory = state.file("");
        format!(
            "the authority of the store in {} is gone",
            directory.display()
        )
    })?;
    let directory = state.file(STORE);
    let store = tokio::task::spawn_blocking(move || RedbStore::open(&directory)).await;
    let store = store.map_err(text)?.map_err(text)?;
    let listing = store.range("").await.map_err(text)?;
    summary(&authority.authority()?, &listing)
}

fn summary(authority: &Authority, listing: &Listing) -> Result<String, String> {
    let entries = &listing.entries;
    let verified = fleet::verify(&authority.root_pins(), entries, listing.revision)?;
    let fleet: &Name = &verified.fleet;
    Ok(format!(
        "fleet {fleet}: revision {}, epoch {}, {} hosts, {} removed ones, policy version {}; \
         everything holds",
        listing.revision.0, verified.epoch, verified.hosts, verified.removed, verified.policy
    ))
}

fn taken(unix_secs: u64) -> String {
    fleet::time_text(unix_secs)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
