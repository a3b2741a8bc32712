//! The authority's file that was, while another takes its place: it keeps a name of its own until it
//! is overwritten, so that a crash, or a disk that cannot be written, leaves nothing that a later
//! attempt does not find.
//!
//! ```text
//! link authority.old ──> authority.new ──> rename to authority ──> authority read back ──> directory synced ──> authority.old overwritten, removed
//! ```
//!
//! Until the directory is synced, the file that a power loss leaves in the authority's place can be
//! the former one, whatever is read there now.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use runtime::state_dir::{StateDir, StateError};

use crate::authority_file::{AuthorityFile, FILE};

/// The file that was in the authority's place.
const FORMER: &str = "authority.old";
/// One that was to be in its place, and did not get there.
const UNFINISHED: &str = "authority.new";

/// Gives the file that is about to be replaced a second name.
pub(crate) fn keep(state: &StateDir) -> Result<(), String> {
    let linked = fs::hard_link(state.file(FILE), state.file(FORMER));
    linked.map_err(|error| cannot("keep hold of", &state.file(FILE), &error))
}

/// Overwrites and removes what is left of files that were replaced, if there is anything. A copy that
/// the file system or the disk keeps elsewhere is not reached.
///
/// # Errors
/// The authority's file itself cannot be read, or the disk does not say that it has it in its place,
/// so that nothing may be spoilt that could be needed; or the disk refuses. It is worth trying again.
pub(crate) fn erase(state: &StateDir) -> Result<(), String> {
    erase_once_synced(state, || state.sync())
}

/// Does it with another way to bring the directory to the disk, which a test lets fail.
fn erase_once_synced(
    state: &StateDir,
    sync: impl Fn() -> Result<(), StateError>,
) -> Result<(), String> {
    for name in [UNFINISHED, FORMER] {
        let path = state.file(name);
        if !path.try_exists().unwrap_or(true) {
            continue;
        }
        // Before it is looked at which file is in force: on the disk it is the same one from now on.
        sync().map_err(|error| error.to_string())?;
        if AuthorityFile::read(state)?.is_none() {
            return Err(format!(
                "{} is there, and {} is not; restore both from a backup",
                path.display(),
                state.file(FILE).display()
            ));
        }
        overwrite(&path, &state.file(FILE)).map_err(|error| cannot("overwrite", &path, &error))?;
        state.remove(name).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Fills a file with zeros, unless it is the one that is in force, by another name.
fn overwrite(path: &Path, in_force: &Path) -> io::Result<()> {
    let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    if place(fs::metadata(path)?) == place(fs::metadata(in_force)?) {
        return Ok(());
    }
    let mut file: File = OpenOptions::new().write(true).open(path)?;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(0);
    file.write_all(&vec![0; length])?;
    file.sync_all()
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> String {
    format!("cannot {what} {}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use model::time::UnixTime;

    use super::*;

    fn state() -> (tempfile::TempDir, StateDir) {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(&root.path().join("state"), "test").unwrap();
        let now = UnixTime::from_secs(1 << 30);
        AuthorityFile::create(&state, "prod".parse().unwrap(), now).unwrap();
        (root, state)
    }

    fn is_zero(file: &File) -> bool {
        let mut left = vec![1; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut left, 0).unwrap();
        left.iter().all(|byte| *byte == 0)
    }

    #[test]
    fn what_a_crash_between_the_writes_left_is_overwritten_later() {
        let (_root, state) = state();
        // The new file is in its place, and nothing has happened to the former one yet.
        let whole = state.read(FILE).unwrap().unwrap();
        for name in [FORMER, UNFINISHED] {
            fs::write(state.file(name), &whole).unwrap();
        }
        let left = [FORMER, UNFINISHED].map(|name| File::open(state.file(name)).unwrap());
        erase(&state).unwrap();
        for (name, file) in [FORMER, UNFINISHED].into_iter().zip(&left) {
            assert!(is_zero(file), "{name}");
            assert!(!state.file(name).exists());
        }
        assert_eq!(state.read(FILE).unwrap().unwrap(), whole);
    }

    #[test]
    fn the_file_in_force_is_not_overwritten_by_its_second_name() {
        let (_root, state) = state();
        keep(&state).unwrap();
        erase(&state).unwrap();
        assert!(!state.file(FORMER).exists());
        AuthorityFile::read(&state).unwrap().unwrap();
    }

    #[test]
    fn nothing_is_spoilt_while_the_disk_may_still_have_the_former_file_in_force() {
        let (_root, state) = state();
        let former = state.read(FILE).unwrap().unwrap();
        // The new file was renamed into its place, and then its directory could not be synced.
        keep(&state).unwrap();
        let next = [&former[..], b"\n"].concat();
        state.write(FILE, &next).unwrap();
        let fails = || {
            Err(StateError::Io {
                what: "sync",
                path: state.file(""),
                source: io::Error::other("the disk is gone"),
            })
        };
        for _ in 0..2 {
            let refused = erase_once_synced(&state, fails).unwrap_err();
            assert!(refused.contains("the disk is gone"), "{refused}");
            assert_eq!(fs::read(state.file(FORMER)).unwrap(), former);
        }
        let left = File::open(state.file(FORMER)).unwrap();
        erase(&state).unwrap();
        assert!(is_zero(&left), "the disk has the new file in its place now");
        assert!(!state.file(FORMER).exists());
        assert_eq!(state.read(FILE).unwrap().unwrap(), next);
    }

    #[test]
    fn nothing_is_spoilt_while_the_file_in_force_cannot_be_read() {
        let (_root, state) = state();
        let whole = state.read(FILE).unwrap().unwrap();
        fs::write(state.file(FORMER), &whole).unwrap();
        state.write(FILE, &whole[..whole.len() / 2]).unwrap();
        let refused = erase(&state).unwrap_err();
        assert!(refused.contains("cannot be used"), "{refused}");
        assert_eq!(fs::read(state.file(FORMER)).unwrap(), whole);
    }
}
