//! The program that this daemon runs, the one that is installed in its place now, and how it is
//! started.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use runtime::service_manager;
use tokio::process::{Child, Command};

/// Tells a daemon that another one hands over to it, on its standard input.
pub(crate) const TAKE_OVER: &str = "--take-over";

/// Where the program is, and what it was when it was started.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    path: PathBuf,
    running: Option<Mark>,
    arguments: Vec<OsString>,
}

/// By what a file is known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Mark {
    fn of(path: &Path) -> io::Result<Self> {
        let file = fs::metadata(path)?;
        Ok(Self {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
        })
    }
}

impl Program {
    /// Looks at the program of this process: early, while its file is where it was started from.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub(crate) fn running() -> io::Result<Self> {
        let path = std::env::current_exe()?;
        // What `/proc` says of a file that was replaced since.
        let text = path.to_string_lossy();
        let path = PathBuf::from(text.trim_end_matches(" (deleted)"));
        let arguments = std::env::args_os().skip(1);
        Ok(Self {
            running: Mark::of(Path::new("/proc/self/exe")).ok(),
            path,
            arguments: arguments.filter(|it| it != TAKE_OVER).collect(),
        })
    }

    /// Returns whether another program is installed in its place than the one that runs.
    pub(crate) fn has_changed(&self) -> bool {
        Mark::of(&self.path).is_ok_and(|installed| Some(installed) != self.running)
    }

    /// Starts the installed program, to take over by what comes on its standard input.
    pub(super) fn start(&self, link: OwnedFd) -> io::Result<Child> {
        let mut command = Command::new(&self.path);
        for variable in service_manager::NOT_FOR_OTHERS {
            command.env_remove(variable);
        }
        command
            .args(&self.arguments)
            .arg(TAKE_OVER)
            .stdin(Stdio::from(link))
            .spawn()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_was_replaced_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meshd");
        fs::write(&path, "one").unwrap();
        let program = Program {
            running: Some(Mark::of(&path).unwrap()),
            path: path.clone(),
            arguments: Vec::new(),
        };
        assert!(!program.has_changed());
        let next = directory.path().join("meshd.new");
        fs::write(&next, "two").unwrap();
        fs::rename(&next, &path).unwrap();
        assert!(program.has_changed(), "another file in its place");
        fs::remove_file(&path).unwrap();
        assert!(!program.has_changed(), "there is nothing to hand over to");
        assert!(!Program::running().unwrap().has_changed());
    }
}
