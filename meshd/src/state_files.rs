//! The agent's files in the state directory.

use agent::{StateFile, StoredFiles};
use runtime::state_dir::{StateDir, StateError};

/// Reads what an earlier daemon kept.
///
/// # Errors
/// A file is there and cannot be read.
pub fn load(state: &StateDir) -> Result<StoredFiles, StateError> {
    Ok(StoredFiles {
        identity: state.read(StateFile::Identity.name())?,
        map: state.read(StateFile::Map.name())?,
        high_water: state.read(StateFile::HighWater.name())?,
    })
}

/// Removes all of them: the identity first, since what is left without it is worth nothing.
///
/// # Errors
/// The file system refuses.
pub fn erase(state: &StateDir) -> Result<(), StateError> {
    StateFile::ALL
        .iter()
        .try_for_each(|file| state.remove(file.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erasing_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(root.path(), "test").unwrap();
        state.write(StateFile::Identity.name(), b"keys").unwrap();
        assert_eq!(
            load(&state).unwrap().identity.as_deref(),
            Some(&b"keys"[..])
        );
        erase(&state).unwrap();
        erase(&state).unwrap();
        assert_eq!(load(&state).unwrap().identity, None);
    }
}
