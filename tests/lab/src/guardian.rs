//! The process that removes a lab when its owner is gone, and the only code that removes one.
//!
//! Success, failure, panic, Ctrl-C and `kill -9` of the owner all end the same way: the pipe to
//! the guardian closes. The guardian is not in the owner's process group, so Ctrl-C spares it.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::error::{Doing, LabError};

const SCRIPT: &str = include_str!("guardian.sh");

/// A guardian that waits for its owner.
#[derive(Debug)]
pub(crate) struct Guardian(Child);

impl Guardian {
    pub(crate) fn start(id: &str, directory: &Path) -> Result<Self, LabError> {
        Command::new("sh")
            .args(["-c", SCRIPT, "mesh-lab-guardian", id])
            .arg(directory)
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map(Self)
            .doing("start the lab's guardian")
    }

    /// Lets the lab outlive its owner.
    pub(crate) fn keep(self) -> Result<(), LabError> {
        self.finish("keep\n")
    }

    /// Removes the lab and waits until it is gone.
    pub(crate) fn remove(self) -> Result<(), LabError> {
        self.finish("")
    }

    fn finish(mut self, word: &str) -> Result<(), LabError> {
        let mut pipe = self.0.stdin.take().expect("the guardian's input is a pipe");
        pipe.write_all(word.as_bytes())
            .doing("tell the lab's guardian what to do")?;
        drop(pipe);
        let mut problems = String::new();
        let mut errors = self
            .0
            .stderr
            .take()
            .expect("the guardian's errors are a pipe");
        errors
            .read_to_string(&mut problems)
            .doing("read what the lab's guardian says")?;
        let status = self.0.wait().doing("wait for the lab's guardian")?;
        if status.success() {
            return Ok(());
        }
        Err(LabError::new(format!(
            "the lab could not be removed completely: {}; look at `ip netns list`",
            problems.trim()
        )))
    }
}
