//! The agent's files in the state directory, and who writes them.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use agent::{PersistId, StateFile, StoredFiles};
use model::key::SecretBytes;
use runtime::state_dir::{StateDir, StateError};
use tokio::sync::mpsc;

/// Reads what an earlier daemon kept, and warns of what others could read or write meanwhile.
///
/// # Errors
/// A file is there and cannot be read.
pub fn load(state: &StateDir) -> Result<StoredFiles, StateError> {
    let files = StateFile::ALL.iter();
    for warning in files.filter_map(|file| exposure(&state.file(file.name()))) {
        tracing::warn!("{warning}");
    }
    Ok(StoredFiles {
        identity: state.read(StateFile::Identity.name())?,
        map: state.read(StateFile::Map.name())?,
        high_water: state.read(StateFile::HighWater.name())?,
    })
}

/// Says who else could read or change a file: a copy that was put back loses what kept it private.
fn exposure(path: &Path) -> Option<String> {
    let file = std::fs::metadata(path).ok()?;
    let (owner, mode) = (file.uid(), file.mode() & 0o777);
    let me = rustix::process::geteuid().as_raw();
    if owner == me && mode & 0o077 == 0 {
        return None;
    }
    let path = path.display();
    Some(format!(
        "{path} belongs to user {owner} and has mode {mode:o}; it should be private to user {me}: \
         run chown {me} {path}; chmod 600 {path}. If somebody else could read it, make new keys: \
         meshctl leave, then meshctl join"
    ))
}

/// Reads what a daemon keeps, which may run meanwhile.
///
/// # Errors
/// A file is there and cannot be read.
pub fn peek(state_dir: &Path) -> io::Result<StoredFiles> {
    let read = |file: StateFile| match std::fs::read(state_dir.join(file.name())) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    };
    Ok(StoredFiles {
        identity: read(StateFile::Identity)?,
        map: read(StateFile::Map)?,
        high_water: read(StateFile::HighWater)?,
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

/// What is to be done with the files.
#[derive(Debug)]
pub enum Work {
    /// Replaces one of them.
    Write(StateFile, SecretBytes),
    /// Removes all of them.
    Erase,
}

impl Work {
    fn run(self, state: &StateDir) -> Result<(), StateError> {
        match self {
            Self::Write(file, contents) => state.write(file.name(), contents.expose()),
            Self::Erase => erase(state),
        }
    }
}

/// Work that may wait: the agent asks for one write per file at a time.
const WORK_MAX: usize = 16;

/// Works on the files in the order in which it was asked to: keys that were erased must not come
/// back by an older write, nor old contents after newer ones.
pub struct StateWriter {
    work: mpsc::Sender<(PersistId, Work)>,
    answers: mpsc::Receiver<(PersistId, Result<(), String>)>,
    outstanding: usize,
}

/// More waits than the disk keeps up with.
#[derive(Debug, thiserror::Error)]
#[error("the disk is too slow: {WORK_MAX} writes wait for it")]
pub struct DiskBusy;

impl StateWriter {
    /// Starts the task that writes.
    pub fn start(state: Arc<StateDir>) -> Self {
        let (work, queue) = mpsc::channel(WORK_MAX);
        let (answer, answers) = mpsc::channel(WORK_MAX);
        tokio::spawn(run(state, queue, answer));
        Self {
            work,
            answers,
            outstanding: 0,
        }
    }

    /// Asks for work.
    ///
    /// # Errors
    /// Too much waits already; nothing is done.
    pub fn ask(&mut self, id: PersistId, work: Work) -> Result<(), DiskBusy> {
        self.work.try_send((id, work)).map_err(|_| DiskBusy)?;
        self.outstanding += 1;
        Ok(())
    }

    /// Returns whether all work that was asked for has been answered.
    pub fn is_idle(&self) -> bool {
        self.outstanding == 0
    }

    /// Waits for the next work to end, and returns how it did.
    pub async fn answer(&mut self) -> (PersistId, Result<(), String>) {
        let answer = self.answers.recv().await;
        self.outstanding -= 1;
        answer.expect("the task lives as long as it can be asked")
    }
}

async fn run(
    state: Arc<StateDir>,
    mut queue: mpsc::Receiver<(PersistId, Work)>,
    answers: mpsc::Sender<(PersistId, Result<(), String>)>,
) {
    while let Some((id, work)) = queue.recv().await {
        let state = Arc::clone(&state);
        let result = match tokio::task::spawn_blocking(move || work.run(&state)).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(error) => Err(format!("the write did not end: {error}")),
        };
        // Without a reader the daemon has ended: what is asked for is still done.
        let _ = answers.send((id, result)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_asked_for_is_done_in_that_order() {
        let root = tempfile::tempdir().unwrap();
        let state = Arc::new(StateDir::open(root.path(), "test").unwrap());
        let mut writer = StateWriter::start(Arc::clone(&state));
        let write = |byte| Work::Write(StateFile::Identity, SecretBytes::new(vec![byte; 1 << 20]));
        let asked = [write(1), write(2), Work::Erase, write(3), Work::Erase];
        for (id, work) in (0..).zip(asked) {
            writer.ask(PersistId(id), work).unwrap();
        }
        for id in 0..5 {
            assert_eq!(writer.answer().await, (PersistId(id), Ok(())));
        }
        assert_eq!(load(&state).unwrap().identity, None);
        assert!(!root.path().join("identity.new").exists());
    }

    #[tokio::test]
    async fn more_work_than_fits_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let state = Arc::new(StateDir::open(root.path(), "test").unwrap());
        let mut writer = StateWriter::start(state);
        // The task does not run before the test waits for something.
        for id in 0..WORK_MAX as u64 {
            writer.ask(PersistId(id), Work::Erase).unwrap();
        }
        assert!(writer.ask(PersistId(99), Work::Erase).is_err());
    }

    #[test]
    fn a_file_that_others_can_read_is_named_with_what_to_do() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(root.path(), "test").unwrap();
        state.write("identity", b"keys").unwrap();
        let path = state.file("identity");
        assert_eq!(exposure(&path), None);
        assert_eq!(exposure(&state.file("map")), None, "one that is not there");
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(&path, open).unwrap();
        let warning = exposure(&path).unwrap();
        assert!(warning.contains("has mode 644"), "{warning}");
        assert!(warning.contains("chmod 600"), "{warning}");
    }

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
